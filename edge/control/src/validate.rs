//! What a request may say. Every refusal names the field.

mod reach;

use std::{collections::BTreeMap, ops::RangeInclusive};

use edge_api::{
    CreateCapsule, CreateSnapshot, DeployConfig, ExecRequest, POOL_EVENTS_INTERVAL_MS_MAX,
    POOL_EVENTS_INTERVAL_MS_MIN, PoolPolicy,
};
use pool_model::POOL_MAX;

pub(crate) use reach::{deploy_tag, invocation, sign, tag, traffic};

use crate::ApiError;

const TIMEOUT_S: RangeInclusive<u64> = 1..=604_800;
const MEMORY_MIB: RangeInclusive<u32> = 128..=16_384;
const VCPUS: RangeInclusive<u32> = 1..=16;
const COMMAND_BYTES_MAX: usize = 64 << 10;
const ENV_BYTES_MAX: usize = 64 << 10;
const METADATA_ENTRIES_MAX: usize = 64;
/// `/v1/pools/events` follows all pools, so that no pool can be looked up there.
const RESERVED_NAME: &str = "events";

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
    if config.name.as_str() == RESERVED_NAME {
        let problem = format!("`{RESERVED_NAME}` is reserved: it is a path of the API");
        return Err(ApiError::field("name", problem));
    }
    Ok(())
}

/// What the pool of a deploy aims for: a new version keeps what the present one has, but where the
/// deploy says otherwise.
pub(crate) fn deploy_policy(
    config: &DeployConfig,
    present: Option<PoolPolicy>,
) -> Result<PoolPolicy, ApiError> {
    let patch = config.pool_patch();
    let new = present.is_none();
    let room = patch.max_warm.is_some();
    let mut aim = patch.over(present.unwrap_or_default());
    if new && !room {
        // Whoever asks for more warm ones than the default has room for, asks for the room too.
        aim.max_warm = aim.max_warm.max(aim.floor_max().min(POOL_MAX));
    }
    policy(&aim)?;
    Ok(aim)
}

pub(crate) fn policy(policy: &PoolPolicy) -> Checked {
    policy.check().map_err(|bad| ApiError::field(bad.field, bad.reason))
}

pub(crate) fn prewarm(count: u32, policy: &PoolPolicy) -> Checked {
    if (1..=policy.max_warm).contains(&count) {
        return Ok(());
    }
    let problem = format!("{count} is not 1 to {}, the pool's `max_warm`", policy.max_warm);
    Err(ApiError::field("count", problem))
}

/// The pace of an event stream, milliseconds.
pub(crate) fn interval_ms(interval_ms: u64) -> Checked {
    range("interval_ms", interval_ms, POOL_EVENTS_INTERVAL_MS_MIN..=POOL_EVENTS_INTERVAL_MS_MAX)
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
    request.traffic.as_ref().map_or(Ok(()), traffic)?;
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
            (DeployConfig { name: "events".parse().unwrap(), ..good.clone() }, "name"),
        ] {
            let text = refused(deploy(&bad));
            assert!(text.starts_with(&format!("`{field}`: ")), "{text}");
        }
    }

    #[test]
    fn a_deploys_pool_is_checked_over_what_the_function_has() {
        let plain = DeployConfig::new("hello".parse().unwrap(), "./run");
        let refused = |config: &DeployConfig, present| {
            deploy_policy(config, present).unwrap_err().to_string()
        };
        let crowd = DeployConfig { min_warm: Some(9), ..plain.clone() };
        let max_warm = |present| deploy_policy(&crowd, present).map(|policy| policy.max_warm);
        assert_eq!(max_warm(None).unwrap(), 9, "a new one gets the room");
        assert!(refused(&crowd, Some(PoolPolicy::default())).starts_with("`min_warm`: "));
        let narrow = DeployConfig { max_warm: Some(3), ..crowd };
        assert!(refused(&narrow, None).starts_with("`min_warm`: "));
        let none = DeployConfig { min_warm: Some(0), max_warm: Some(0), ..plain.clone() };
        assert!(refused(&none, None).contains("`max_warm`: 0 is not 1 to 1000"));
        let huge = DeployConfig { min_warm: Some(5000), ..plain.clone() };
        assert!(refused(&huge, None).contains("`min_warm`: 5000 is not 0 to 1000"));
        // What makes sense only together with what is there already.
        let many = DeployConfig { max_requests: Some(5), ..plain };
        assert!(refused(&many, None).starts_with("`max_requests`: "));
        let reuse = edge_api::Reuse::Sequential;
        let present = PoolPolicy { reuse, max_requests: 2, ..PoolPolicy::default() };
        let aim = deploy_policy(&many, Some(present.clone())).unwrap();
        assert_eq!(aim, PoolPolicy { max_requests: 5, ..present });
    }

    #[test]
    fn counts_and_paces_have_their_ranges() {
        let aim = PoolPolicy::default();
        assert!(prewarm(1, &aim).is_ok() && prewarm(8, &aim).is_ok());
        for count in [0, 9] {
            let text = refused(prewarm(count, &aim));
            assert!(text.contains("`count`") && text.contains("1 to 8"), "{text}");
        }
        assert!(interval_ms(200).is_ok() && interval_ms(60_000).is_ok());
        assert!(interval_ms(199).is_err() && interval_ms(60_001).is_err());
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
