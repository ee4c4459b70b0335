//! Capsules: sandboxes as URLs and JSON call them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pool_model::{
    Generation, OnTimeout, SandboxId, SandboxState, SnapshotId, TemplateId, TrafficPolicy,
};
use serde::{Deserialize, Serialize};

/// A sandbox that lives until it is deleted or its timeout passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capsule {
    /// Its id.
    pub id: SandboxId,
    /// What it is doing.
    pub state: SandboxState,
    /// The template it was booted from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateId>,
    /// The snapshot it was restored from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its timeout passes. None for a paused one: the clock starts again when it resumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// Whether it may reach the internet.
    pub internet: bool,
    /// The caller's own notes.
    pub metadata: BTreeMap<String, String>,
    /// Raised at each restore and resume.
    pub generation: Generation,
    /// Its memory, MiB.
    pub memory_mib: u32,
    /// Where its ports are reached; `{port}` stands for the port.
    pub url_pattern: String,
    /// How its ports may be reached.
    #[serde(default)]
    pub traffic: TrafficPolicy,
    /// What opens its private ports, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_token: Option<String>,
}

impl Capsule {
    /// Where `port` is reached.
    #[must_use]
    pub fn url(&self, port: pool_model::Port) -> String {
        self.url_pattern.replace("{port}", &port.to_string())
    }
}

/// The body of `POST /v1/capsules`. At most one of `template` and `snapshot`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateCapsule {
    /// Template id (`tpl_…`) or name. The platform's default if both are absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Snapshot to restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// Seconds until its timeout, 1 to 604800; 3600 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// What happens when the timeout passes.
    #[serde(default)]
    pub on_timeout: OnTimeout,
    /// Memory, MiB, 128 to 16384. The template's if absent; not together with `snapshot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Virtual processors, 1 to 16. The template's if absent; not together with `snapshot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// Environment of every process started in it.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The caller's own notes: at most 64 entries, 64 bytes of key, 1024 of value.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Whether it may reach the internet; true if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internet: Option<bool>,
    /// How its ports may be reached; all of them by everybody if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficPolicy>,
}

/// The body of `POST /v1/capsules/{id}/timeout`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetTimeout {
    /// Seconds from now, 1 to 604800.
    pub timeout_s: u64,
}
