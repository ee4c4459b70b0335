//! What a request may say. Every refusal names the field.

use std::{collections::BTreeMap, ops::RangeInclusive};

use edge_api::{CreateCapsule, CreateSnapshot, DeployConfig, ExecRequest, PoolPatch, PoolPolicy};

use crate::ApiError;

const TIMEOUT_S: RangeInclusive<u64> = 1..=604_800;
const MEMORY_MIB: RangeInclusive<u32> = 128..=16_384;
const VCPUS: RangeInclusive<u32> = 1..=16;
const COMMAND_BYTES_MAX: usize = 64 << 10;
const ENV_BYTES_MAX: usize = 64 << 10;
const METADATA_ENTRIES_MAX: usize = 64;

type Checked = Result<(), ApiError>;

pub(crate) fn deploy(config: &DeployConfig) -> Checked {
    text("start", &config.start, COMMAND_BYTES_MAX)?;
    if config.start.trim().is_empty() {
        return Err(ApiError::field("start", "expected a command"));
    }
    text("ready_path", &config.ready_path, 2048)?;
    if !config.ready_path.starts_with('/')
        || config.ready_path.parse::<http::uri::PathAndQuery>().is_err()
    {
        return Err(ApiError::field("ready_path", "expected a path that starts with `/`"));
    }
    range("ready_timeout_ms", config.ready_timeout_ms, 1_000..=600_000)?;
    range("timeout_ms", config.timeout_ms, 100..=3_600_000)?;
    machine(config.memory_mib, config.vcpus)?;
    env("env", &config.env)?;
    if config.env.contains_key("PORT") {
        return Err(ApiError::field("env", "`PORT` is set from `port`"));
    }
    policy(&deploy_policy(config))
}

/// What the pool of a deploy aims for. (For a new version of a function its present aim is better;
/// the caller looks.)
pub(crate) fn deploy_policy(config: &DeployConfig) -> PoolPolicy {
    let base = PoolPolicy::default();
    let min_warm = config.min_warm.unwrap_or(base.min_warm);
    PoolPolicy {
        min_warm,
        max_warm: config.max_warm.unwrap_or(base.max_warm.max(min_warm)),
        idle_ttl_ms: config.idle_ttl_ms.unwrap_or(base.idle_ttl_ms),
    }
}

pub(crate) fn patched(policy: PoolPolicy, patch: PoolPatch) -> PoolPolicy {
    PoolPolicy {
        min_warm: patch.min_warm.unwrap_or(policy.min_warm),
        max_warm: patch.max_warm.unwrap_or(policy.max_warm),
        idle_ttl_ms: patch.idle_ttl_ms.unwrap_or(policy.idle_ttl_ms),
    }
}

pub(crate) fn policy(policy: &PoolPolicy) -> Checked {
    range("min_warm", policy.min_warm, 0..=1_000)?;
    range("max_warm", policy.max_warm, 1..=1_000)?;
    range("idle_ttl_ms", policy.idle_ttl_ms, 1_000..=86_400_000)?;
    if policy.min_warm > policy.max_warm {
        let PoolPolicy { min_warm, max_warm, .. } = policy;
        let problem = format!("{min_warm} is more than `max_warm`, which is {max_warm}");
        return Err(ApiError::field("min_warm", problem));
    }
    Ok(())
}

pub(crate) fn capsule(request: &CreateCapsule) -> Checked {
    if request.snapshot.is_some() {
        let with = |field: &str| Err(ApiError::field(field, "not together with `snapshot`"));
        if request.template.is_some() {
            return with("template");
        }
        if request.memory_mib.is_some() {
            return with("memory_mib");
        }
        if request.vcpus.is_some() {
            return with("vcpus");
        }
    }
    if let Some(timeout_s) = request.timeout_s {
        range("timeout_s", timeout_s, TIMEOUT_S)?;
    }
    machine(request.memory_mib, request.vcpus)?;
    env("env", &request.env)?;
    if request.metadata.len() > METADATA_ENTRIES_MAX {
        return Err(ApiError::field("metadata", format!("over {METADATA_ENTRIES_MAX} entries")));
    }
    for (key, value) in &request.metadata {
        if key.is_empty() || key.len() > 64 || value.len() > 1024 {
            let problem = "expected keys of 1 to 64 bytes and values of up to 1024";
            return Err(ApiError::field("metadata", problem));
        }
    }
    Ok(())
}

pub(crate) fn timeout_s(timeout_s: u64) -> Checked {
    range("timeout_s", timeout_s, TIMEOUT_S)
}

pub(crate) fn exec(request: &ExecRequest) -> Checked {
    match (&request.cmd, &request.args) {
        (Some(cmd), None) if !cmd.is_empty() => text("cmd", cmd, COMMAND_BYTES_MAX)?,
        (None, Some(args)) if args.first().is_some_and(|program| !program.is_empty()) => {
            if args.len() > 1024 {
                return Err(ApiError::field("args", "over 1024 entries"));
            }
            args.iter().try_for_each(|arg| text("args", arg, COMMAND_BYTES_MAX))?;
        }
        _ => return Err(ApiError::field("cmd", "expected exactly one of `cmd` and `args`")),
    }
    env("env", &request.env)?;
    if let Some(cwd) = &request.cwd {
        text("cwd", cwd, 4096)?;
    }
    if let Some(user) = &request.user {
        text("user", user, 64)?;
    }
    if request.background && request.stdin.is_some() {
        return Err(ApiError::field("stdin", "not together with `background`"));
    }
    range("timeout_ms", request.timeout_ms.unwrap_or(0), 0..=86_400_000)
}

pub(crate) fn snapshot(request: &CreateSnapshot) -> Checked {
    match &request.name {
        Some(name) if name.is_empty() => Err(ApiError::field("name", "is empty")),
        Some(name) => text("name", name, 64),
        None => Ok(()),
    }
}

fn machine(memory_mib: Option<u32>, vcpus: Option<u32>) -> Checked {
    memory_mib.map_or(Ok(()), |mib| range("memory_mib", mib, MEMORY_MIB))?;
    vcpus.map_or(Ok(()), |vcpus| range("vcpus", vcpus, VCPUS))
}

fn env(field: &str, env: &BTreeMap<String, String>) -> Checked {
    let mut bytes = 0;
    for (name, value) in env {
        let named = !name.is_empty()
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !named {
            let shown: String = name.chars().take(64).collect();
            return Err(ApiError::field(field, format!("`{shown}` can't name a variable")));
        }
        text(field, value, ENV_BYTES_MAX)?;
        bytes += name.len() + value.len();
    }
    if bytes > ENV_BYTES_MAX {
        return Err(ApiError::field(field, format!("over {ENV_BYTES_MAX} bytes")));
    }
    Ok(())
}

/// A text that goes to the guest's kernel as a C string.
fn text(field: &str, text: &str, max_bytes: usize) -> Checked {
    if text.len() > max_bytes {
        return Err(ApiError::field(field, format!("over {max_bytes} bytes")));
    }
    if text.contains('\0') {
        return Err(ApiError::field(field, "has a NUL byte"));
    }
    Ok(())
}

fn range<T: PartialOrd + std::fmt::Display>(
    field: &str,
    value: T,
    allowed: RangeInclusive<T>,
) -> Checked {
    if allowed.contains(&value) {
        return Ok(());
    }
    let problem = format!("{value} is not in {} to {}", allowed.start(), allowed.end());
    Err(ApiError::field(field, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(checked: Checked) -> String {
        checked.unwrap_err().to_string()
    }

    #[test]
    fn a_refused_deploy_names_its_field() {
        let good = DeployConfig::new("hello".parse().unwrap(), "./run");
        assert!(deploy(&good).is_ok());
        let port = BTreeMap::from([("PORT".to_owned(), "1".to_owned())]);
        let name = BTreeMap::from([("A=B".to_owned(), "1".to_owned())]);
        for (bad, field) in [
            (DeployConfig { start: " ".into(), ..good.clone() }, "start"),
            (DeployConfig { start: "a\0b".into(), ..good.clone() }, "start"),
            (DeployConfig { ready_path: "x".into(), ..good.clone() }, "ready_path"),
            (DeployConfig { ready_path: "/ x".into(), ..good.clone() }, "ready_path"),
            (DeployConfig { ready_timeout_ms: 1, ..good.clone() }, "ready_timeout_ms"),
            (DeployConfig { timeout_ms: 0, ..good.clone() }, "timeout_ms"),
            (DeployConfig { memory_mib: Some(1), ..good.clone() }, "memory_mib"),
            (DeployConfig { vcpus: Some(99), ..good.clone() }, "vcpus"),
            (DeployConfig { env: port, ..good.clone() }, "env"),
            (DeployConfig { env: name, ..good.clone() }, "env"),
            (DeployConfig { min_warm: Some(9), max_warm: Some(3), ..good.clone() }, "min_warm"),
            (DeployConfig { max_warm: Some(0), min_warm: Some(0), ..good.clone() }, "max_warm"),
        ] {
            let text = refused(deploy(&bad));
            assert!(text.starts_with(&format!("`{field}`: ")), "{text}");
        }
    }

    #[test]
    fn a_command_is_a_line_or_a_list_but_not_both() {
        let line = ExecRequest { cmd: Some("ls".into()), ..Default::default() };
        let list = ExecRequest { args: Some(vec!["ls".into()]), ..Default::default() };
        assert!(exec(&line).is_ok() && exec(&list).is_ok());
        let both = ExecRequest { cmd: line.cmd.clone(), ..list };
        let empty = ExecRequest { args: Some(vec![]), ..Default::default() };
        for bad in [both, empty, ExecRequest::default()] {
            assert!(refused(exec(&bad)).contains("`cmd`"), "{bad:?}");
        }
    }

    #[test]
    fn a_snapshot_brings_its_own_machine() {
        let snapshot = Some(pool_model::SnapshotId::from_u128(1));
        let ok = CreateCapsule { snapshot, ..Default::default() };
        assert!(capsule(&ok).is_ok());
        let memory = CreateCapsule { memory_mib: Some(256), ..ok.clone() };
        let template = CreateCapsule { template: Some("x".into()), ..ok };
        assert!(refused(capsule(&memory)).contains("memory_mib"));
        assert!(refused(capsule(&template)).contains("template"));
    }
}
