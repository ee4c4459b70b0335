//! Between the wire's words and ours. Everything from outside is checked here, once.

use std::collections::BTreeMap;

use agent_api::{error::to_rpc, v1};
use connectrpc::ConnectError;
use jiff::Timestamp;
use pool_model::{OnTimeout, Port, Prefetch, SandboxId, TeamId};
use pool_store::Manifest;

use crate::{
    error::{AgentError, chain},
    journal::{Purpose, Record},
    lifecycle::{CreateSandbox, Source},
};

/// Most variables of an environment.
const ENV_MAX: usize = 256;
/// Most bytes of an environment.
const ENV_BYTES_MAX: usize = 128 << 10;

/// What a failed call answers. Our own failures are logged here, once.
pub(super) fn failed(error: AgentError) -> ConnectError {
    let code = error.code();
    if code == pool_model::ErrorCode::Internal {
        tracing::error!("rpc failed: {}", chain(&error));
    } else {
        tracing::info!(error.code = %code, "rpc refused: {}", chain(&error));
    }
    to_rpc(code, error.public_message())
}

/// Parses an id.
pub(super) fn id<T>(field: &'static str, text: &str) -> Result<T, AgentError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.parse()
        .map_err(|error: T::Err| AgentError::InvalidArgument { field, reason: error.to_string() })
}

/// Parses an id that may be left out.
pub(super) fn optional_id<T>(field: &'static str, text: &str) -> Result<Option<T>, AgentError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    if text.is_empty() { Ok(None) } else { id(field, text).map(Some) }
}

/// Parses a port.
pub(super) fn port(field: &'static str, number: u32) -> Result<Port, AgentError> {
    let port = u16::try_from(number).ok().and_then(|number| Port::try_from(number).ok());
    port.ok_or_else(|| AgentError::InvalidArgument {
        field,
        reason: format!("{number} is not 1 to 65535"),
    })
}

pub(super) fn create(request: v1::CreateSandboxRequest) -> Result<CreateSandbox, AgentError> {
    use v1::__buffa::oneof::create_sandbox_request as source;
    let source = match request.source {
        Some(source::Source::TemplateId(text)) => Source::Template(id("template_id", &text)?),
        Some(source::Source::SnapshotId(text)) => Source::Snapshot(id("snapshot_id", &text)?),
        None => {
            let reason = "template_id or snapshot_id is needed".to_owned();
            return Err(AgentError::InvalidArgument { field: "source", reason });
        }
    };
    let vcpus = u8::try_from(request.vcpus).map_err(|_| AgentError::InvalidArgument {
        field: "vcpus",
        reason: format!("{} is too many", request.vcpus),
    })?;
    Ok(CreateSandbox {
        sandbox: optional_id("sandbox_id", &request.sandbox_id)?,
        source,
        team: id("team_id", &request.team_id)?,
        purpose: Purpose::Sandbox,
        timeout_ms: request.timeout_ms,
        on_timeout: match request.on_timeout.as_known() {
            Some(v1::OnTimeout::ON_TIMEOUT_PAUSE) => OnTimeout::Pause,
            _ => OnTimeout::Kill,
        },
        memory_mib: request.memory_mib,
        vcpus,
        env: env(request.env)?,
        internet: request.internet,
        prefetch: Prefetch::WorkingSet,
    })
}

/// Checks an environment's size; its names are checked by the guest daemon.
pub(super) fn env(
    pairs: impl IntoIterator<Item = (String, String)>,
) -> Result<BTreeMap<String, String>, AgentError> {
    let env: BTreeMap<String, String> = pairs.into_iter().collect();
    let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len()).sum();
    if env.len() > ENV_MAX || bytes > ENV_BYTES_MAX {
        return Err(AgentError::InvalidArgument {
            field: "env",
            reason: format!(
                "{} variables of {bytes} bytes, at most {ENV_MAX} of {ENV_BYTES_MAX} are allowed",
                env.len()
            ),
        });
    }
    let bad = env.iter().find(|(name, value)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    });
    if let Some((name, _)) = bad {
        let name: String = name.chars().take(64).collect();
        let reason = format!("variable `{name}` is empty or holds `=` or a zero byte");
        return Err(AgentError::InvalidArgument { field: "env", reason });
    }
    Ok(env)
}

pub(super) fn sandbox(record: &Record, envd_version: String) -> v1::Sandbox {
    let mib = |bytes: u64| u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
    v1::Sandbox {
        sandbox_id: record.sandbox.to_string(),
        team_id: record.team.to_string(),
        template_id: record.template.to_string(),
        snapshot_id: record.snapshot.map(|id| id.to_string()).unwrap_or_default(),
        state: record.state.to_string(),
        generation: record.generation.0,
        created_at_ms: record.created_at.as_millisecond(),
        expires_at_ms: record.expires_at.map_or(0, Timestamp::as_millisecond),
        memory_mib: mib(record.memory_bytes),
        vcpus: u32::from(record.vcpus),
        on_timeout: match record.on_timeout {
            OnTimeout::Kill => v1::OnTimeout::ON_TIMEOUT_KILL.into(),
            OnTimeout::Pause => v1::OnTimeout::ON_TIMEOUT_PAUSE.into(),
        },
        internet: record.internet,
        envd_version,
        ..Default::default()
    }
}

pub(super) fn snapshot(manifest: &Manifest, stored_bytes: u64) -> v1::Snapshot {
    v1::Snapshot {
        snapshot_id: manifest.snapshot.to_string(),
        team_id: manifest.team.to_string(),
        template_id: manifest.template.to_string(),
        created_at_ms: manifest.created_at.as_millisecond(),
        memory_bytes: manifest.memory.bytes,
        stored_bytes,
        ..Default::default()
    }
}

/// The team of a listing, all of them when it is left out.
pub(super) fn team(text: &str) -> Result<Option<TeamId>, AgentError> {
    optional_id("team_id", text)
}

/// A sandbox id.
pub(super) fn sandbox_id(text: &str) -> Result<SandboxId, AgentError> {
    id("sandbox_id", text)
}
