//! Functions: what is deployed and how.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pool_model::{FunctionId, Port, SnapshotId, TemplateId};
use serde::{Deserialize, Serialize};

use crate::{
    FunctionName, FunctionTag, InvocationPolicy, PoolPatch, PoolPolicy, Prefetch, Reuse, Schedule,
    TagName,
};

/// A deployed function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its id; stays the same over redeploys.
    pub id: FunctionId,
    /// Its name, the first label of its URL.
    pub name: FunctionName,
    /// The current version. Each deploy makes a new one, 1 first.
    pub version: u32,
    /// The template its virtual machine was booted from.
    pub template: TemplateId,
    /// The snapshot its sandboxes are restored from.
    pub snapshot: SnapshotId,
    /// The port its server listens on.
    pub port: Port,
    /// The command that started the server.
    pub start: String,
    /// The path that was asked until it answered 2xx.
    pub ready_path: String,
    /// Longest time one invocation may take, milliseconds.
    pub timeout_ms: u64,
    /// When it was first deployed.
    pub created_at: Timestamp,
    /// When the current version was deployed.
    pub updated_at: Timestamp,
    /// Where to call it.
    pub url: String,
    /// What its pool aims for.
    pub pool: PoolPolicy,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<FunctionTag>,
}

/// The `config` part of `POST /v1/functions` (multipart/form-data). It comes first; the other part,
/// `code`, is a tar.gz of the directory that the start command runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployConfig {
    /// The function's name. A name that exists already gets a new version.
    pub name: FunctionName,
    /// Template id (`tpl_…`) or name. The platform's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// What starts the server: run by `/bin/bash -l -c` as `user` in the code's directory, with
    /// `PORT` set.
    pub start: String,
    /// The port that the server will listen on.
    #[serde(default = "default_port")]
    pub port: Port,
    /// The path that answers 2xx once the server is ready.
    #[serde(default = "default_ready_path")]
    pub ready_path: String,
    /// How long the server may take to become ready, milliseconds (1000 to 600000).
    #[serde(default = "default_ready_timeout_ms")]
    pub ready_timeout_ms: u64,
    /// Memory of its virtual machine, MiB. The template's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Virtual processors. The template's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Environment of the start command.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Warm sandboxes to keep at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_warm: Option<u32>,
    /// Warm and restoring sandboxes to have at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_warm: Option<u32>,
    /// Idle warm sandboxes over `min_warm` go after this, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ttl_ms: Option<u64>,
    /// See [`PoolPatch::max_age_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// See [`PoolPatch::burst`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// See [`PoolPatch::refill_concurrency`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refill_concurrency: Option<u32>,
    /// See [`PoolPatch::prefetch`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<Prefetch>,
    /// See [`PoolPatch::reuse`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
    /// See [`PoolPatch::max_requests`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// See [`PoolPatch::memory_budget_mib`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_budget_mib: Option<u64>,
    /// See [`PoolPatch::schedule`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Vec<Schedule>>,
    /// Longest time one invocation may take, milliseconds (100 to 3600000).
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// Whether invocations may reach the internet. (The build may, always.)
    #[serde(default = "default_internet")]
    pub internet: bool,
    /// A tag for the new version. One that there is moves to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<TagName>,
    /// Whether the plain name leads to the new version. If not, it needs a tag, and can't be the
    /// function's first. What is said of pool and invocations holds for the function either way.
    #[serde(default = "default_promote", skip_serializing_if = "is_true")]
    pub promote: bool,
    /// How the function may be invoked, all of it. If absent, open for a new function and as it is
    /// for a new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<InvocationPolicy>,
}

impl DeployConfig {
    /// A deploy with every default.
    #[must_use]
    pub fn new(name: FunctionName, start: impl Into<String>) -> Self {
        Self {
            name,
            template: None,
            start: start.into(),
            port: default_port(),
            ready_path: default_ready_path(),
            ready_timeout_ms: default_ready_timeout_ms(),
            memory_mib: None,
            vcpus: None,
            env: BTreeMap::new(),
            min_warm: None,
            max_warm: None,
            idle_ttl_ms: None,
            max_age_ms: None,
            burst: None,
            refill_concurrency: None,
            prefetch: None,
            reuse: None,
            max_requests: None,
            memory_budget_mib: None,
            schedule: None,
            timeout_ms: default_timeout_ms(),
            internet: default_internet(),
            tag: None,
            promote: default_promote(),
            invocation: None,
        }
    }

    /// What it says of the pool. What it doesn't say has the default for a new function and stays
    /// as it is for a new version.
    #[must_use]
    pub fn pool_patch(&self) -> PoolPatch {
        PoolPatch {
            min_warm: self.min_warm,
            max_warm: self.max_warm,
            idle_ttl_ms: self.idle_ttl_ms,
            max_age_ms: self.max_age_ms,
            burst: self.burst,
            refill_concurrency: self.refill_concurrency,
            prefetch: self.prefetch,
            reuse: self.reuse,
            max_requests: self.max_requests,
            memory_budget_mib: self.memory_budget_mib,
            schedule: self.schedule.clone(),
        }
    }
}

fn default_port() -> Port {
    Port::try_from(8080).expect("8080 is a port")
}

fn default_ready_path() -> String {
    "/".to_owned()
}

fn default_ready_timeout_ms() -> u64 {
    60_000
}

fn default_timeout_ms() -> u64 {
    30_000
}

fn default_internet() -> bool {
    true
}

fn default_promote() -> bool {
    true
}

/// The default isn't written, so that an older edge takes the rest.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_true(value: &bool) -> bool {
    *value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_does_not_exist_is_refused_by_name() {
        let text = r#"{"name":"hello","start":"./run","prot":80}"#;
        let error = serde_json::from_str::<DeployConfig>(text).unwrap_err();
        assert!(error.to_string().contains("prot"), "{error}");
    }

    #[test]
    fn the_short_form_has_all_defaults() {
        let text = r#"{"name":"hello","start":"./run"}"#;
        let config: DeployConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config, DeployConfig::new("hello".parse().unwrap(), "./run"));
    }

    #[test]
    fn what_a_patch_can_say_a_deploy_can_say_too() {
        let patch = PoolPatch::whole(PoolPolicy { min_warm: 3, ..PoolPolicy::default() });
        let mut json = serde_json::to_value(&patch).unwrap();
        json["name"] = "hello".into();
        json["start"] = "./run".into();
        let config: DeployConfig = serde_json::from_value(json).unwrap();
        assert_eq!(config.pool_patch(), patch);
    }
}
