//! Follows a command that an agent runs.

use std::time::Duration;

use agent_api::v1::{self, __buffa::oneof::exec_event::Event};
use connectrpc::{
    ServerStream,
    client::{ClientTransport, HttpClient},
};
use edge_api::{Chunk, ExecEvent, ExecRequest};
use pool_model::{SandboxId, TeamId};

use crate::{ApiError, Control, agent, validate};

/// Longest that a command without a timeout of its own is followed.
const FOLLOW_MAX: Duration = Duration::from_secs(24 * 3600);
/// What the agent gets on top of the command's own timeout, which is enforced in the guest.
const GRACE: Duration = Duration::from_secs(15);
/// A command's timeout if the caller names none.
const TIMEOUT_MS: u64 = 60_000;

/// Events of one command. Dropping it ends the call, and with it the command.
pub(crate) struct ExecStream {
    stream: ServerStream<<HttpClient as ClientTransport>::ResponseBody, v1::ExecEventView<'static>>,
}

impl ExecStream {
    pub(crate) fn new(
        stream: ServerStream<
            <HttpClient as ClientTransport>::ResponseBody,
            v1::ExecEventView<'static>,
        >,
    ) -> Self {
        Self { stream }
    }

    /// The next event, `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<ExecEvent>, ApiError> {
        loop {
            let Some(message) = self.stream.message().await.map_err(agent::failed)? else {
                return Ok(None);
            };
            let message: v1::ExecEvent = message.to_owned_message();
            return Ok(Some(match message.event {
                Some(Event::Started(started)) => ExecEvent::Start { pid: started.pid },
                Some(Event::Stdout(bytes)) => ExecEvent::Stdout(Chunk::from_bytes(&bytes)),
                Some(Event::Stderr(bytes)) => ExecEvent::Stderr(Chunk::from_bytes(&bytes)),
                Some(Event::Exited(exited)) => ExecEvent::Exit {
                    code: exited.code,
                    signal: Some(exited.signal).filter(|signal| !signal.is_empty()),
                },
                None => continue, // an event of a newer agent
            }));
        }
    }
}

impl Control {
    /// Starts a command in a team's capsule. The first event is there already when this returns, so
    /// that what can't start is an error and not a stream.
    pub(crate) async fn exec(
        &self,
        team: TeamId,
        id: SandboxId,
        request: ExecRequest,
    ) -> Result<(ExecEvent, ExecStream), ApiError> {
        validate::exec(&request)?;
        self.owned_capsule(team, id).await?;
        let timeout_ms =
            request.timeout_ms.unwrap_or(if request.background { 0 } else { TIMEOUT_MS });
        let deadline = match timeout_ms {
            0 => FOLLOW_MAX,
            ms => Duration::from_millis(ms).min(FOLLOW_MAX) + GRACE,
        };
        let request = v1::ExecRequest {
            sandbox_id: id.to_string(),
            command: request.cmd.unwrap_or_default(),
            args: request.args.unwrap_or_default(),
            env: request.env.into_iter().collect(),
            cwd: request.cwd.unwrap_or_default(),
            user: request.user.unwrap_or_default(),
            stdin: request.stdin.unwrap_or_default().into_bytes(),
            timeout_ms,
            background: request.background,
            ..Default::default()
        };
        let mut stream = self.agent().exec(request, deadline).await?;
        match stream.next().await? {
            Some(first) => Ok((first, stream)),
            None => Err(ApiError::internal("the agent ended the stream before its first event")),
        }
    }
}
