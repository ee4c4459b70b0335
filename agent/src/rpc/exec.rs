//! Runs a process in a guest and streams what it writes.

use std::{collections::BTreeMap, time::Duration};

use agent_api::{error::to_rpc, v1};
use connectrpc::ConnectError;
use envd_api::{EnvdError, ProcessEvent, Start, Stdin};
use futures::{Stream, StreamExt as _};
use pool_model::ErrorCode;

use tokio::time::timeout;

use super::convert;
use crate::{agent::Agent, background::FOLLOW_MAX, error::AgentError};

/// Longest to unpack an archive; TCG unpacks 64 MiB in under a minute.
const EXTRACT_MAX: Duration = Duration::from_secs(180);

type Events = std::pin::Pin<Box<dyn Stream<Item = Result<v1::ExecEvent, ConnectError>> + Send>>;

/// Starts the process; a paused sandbox is resumed first.
pub(super) async fn exec(agent: &Agent, request: v1::ExecRequest) -> Result<Events, AgentError> {
    let sandbox = convert::sandbox_id(&request.sandbox_id)?;
    let start = start(&request)?;
    let guest = agent.running(sandbox).await?;
    let known = agent.sandbox(sandbox)?;
    let stream = guest.envd(&known.record().access_token).start(&start).await.map_err(|error| {
        AgentError::Guest { sandbox, step: "start a process", source: Box::new(error) }
    })?;
    let started = started(stream.pid());
    if request.background {
        // Nobody listens any more, but somebody may ask how it went. Letting go of the stream lets
        // the process run on.
        let process = known.background.add(stream.pid());
        agent.host.tasks.spawn(async move {
            let _ = timeout(FOLLOW_MAX, process.follow(stream)).await;
        });
        return Ok(Box::pin(futures::stream::once(async move { Ok(started) })));
    }
    // The guest is held for as long as somebody listens.
    let events = stream.filter_map(move |event| {
        let _held = &guest;
        let event = match event {
            Ok(event) => translate(event).map(Ok),
            Err(error) => Some(Err(broken(error))),
        };
        async move { event }
    });
    Ok(Box::pin(futures::stream::once(async move { Ok(started) }).chain(events)))
}

fn start(request: &v1::ExecRequest) -> Result<Start, AgentError> {
    let env: BTreeMap<_, _> =
        convert::env(request.env.iter().map(|(name, value)| (name.clone(), value.clone())))?;
    let mut start = match (request.command.as_str(), request.args.split_first()) {
        ("", Some((cmd, args))) => Start::new(cmd.clone(), args.iter().cloned()),
        (command, None) if !command.is_empty() => Start::shell(command),
        _ => {
            let reason = "either a command or args are needed, not both".to_owned();
            return Err(AgentError::InvalidArgument { field: "command", reason });
        }
    };
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    start.envs = env;
    start.cwd = given(&request.cwd);
    start.user = given(&request.user);
    if !request.stdin.is_empty() {
        start.stdin = Stdin::Bytes(request.stdin.clone().into());
    }
    start.timeout = (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms));
    Ok(start)
}

fn translate(event: ProcessEvent) -> Option<v1::ExecEvent> {
    use v1::{__buffa::oneof::exec_event::Event, exec_event::Exited};
    let event = match event {
        ProcessEvent::Stdout(bytes) => Event::Stdout(bytes.into()),
        ProcessEvent::Stderr(bytes) => Event::Stderr(bytes.into()),
        ProcessEvent::Ended(end) => {
            let signal = if end.exited { String::new() } else { end.status };
            Exited { code: end.exit_code, signal, ..Default::default() }.into()
        }
        ProcessEvent::Started { .. } | ProcessEvent::Keepalive => return None,
    };
    Some(v1::ExecEvent { event: Some(event), ..Default::default() })
}

fn started(pid: u32) -> v1::ExecEvent {
    let event = v1::exec_event::Started { pid, ..Default::default() };
    v1::ExecEvent { event: Some(event.into()), ..Default::default() }
}

fn broken(error: EnvdError) -> ConnectError {
    let code = match &error {
        EnvdError::Timeout { .. } => ErrorCode::DeadlineExceeded,
        EnvdError::Refused { code, .. } if code == "deadline_exceeded" => {
            ErrorCode::DeadlineExceeded
        }
        EnvdError::Unreachable { .. } => ErrorCode::SandboxGone,
        _ => ErrorCode::GuestUnresponsive,
    };
    to_rpc(code, error.to_string())
}

/// Unpacks a code archive in a guest.
pub(super) async fn extract(
    agent: &Agent,
    request: v1::ExtractArchiveRequest,
) -> Result<(), AgentError> {
    let sandbox = convert::sandbox_id(&request.sandbox_id)?;
    let guest = agent.running(sandbox).await?;
    let token = agent.sandbox(sandbox)?.record().access_token;
    let envd = guest.envd(&token).with_deadline(EXTRACT_MAX);
    let user = Some(request.user.as_str()).filter(|user| !user.is_empty());
    let extracted = envd.extract_archive(&request.path, user, request.tar_gz.into()).await;
    extracted.map_err(|source| match source {
        EnvdError::Refused { status: 400, message, .. } => {
            AgentError::MalformedArchive { reason: message }
        }
        error => {
            AgentError::Guest { sandbox, step: "extract the archive", source: Box::new(error) }
        }
    })
}
