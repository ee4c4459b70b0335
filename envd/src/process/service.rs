//! `process.Process`, the Connect service.

use std::{path::PathBuf, sync::Arc, time::Duration};

use connectrpc::{
    CompressionRegistry, ConnectError, ConnectRpcService, InboundStream, RequestContext, Response,
    Router, ServiceRequest, ServiceResult, ServiceStream,
};
use envd_api::proto::process::{
    self as wire,
    __buffa::oneof::{process_input, process_selector, stream_input_request},
};
use futures::StreamExt as _;
use tokio::{
    io::AsyncWriteExt as _,
    time::{Instant, timeout_at},
};

use super::{
    spawn::{Launch, SpawnError, spawn},
    stream::{Pace, events},
    table::{PROCESSES_MAX, Running, Stdin},
};
use crate::{
    access::named_user,
    accounts::{LookUpUserError, User},
    files::BadPath,
    guest::Guest,
    http::chain,
};

/// How long one piece of input may wait for a process to read, when the call has no deadline.
const INPUT_DEADLINE: Duration = Duration::from_secs(60);

/// The service, ready to answer one request.
pub(crate) fn service(guest: &Arc<Guest>) -> ConnectRpcService {
    let router = Router::new().add_service(Arc::new(ProcessService { guest: Arc::clone(guest) }));
    // No compression: streams are small pieces, and the CPU is the guest's.
    ConnectRpcService::new(router).with_compression(CompressionRegistry::new())
}

#[derive(Debug)]
struct ProcessService {
    guest: Arc<Guest>,
}

fn no_user(error: &LookUpUserError) -> ConnectError {
    match error {
        LookUpUserError::Unknown { .. } => ConnectError::unauthenticated(error.to_string()),
        LookUpUserError::Unreadable { .. } => ConnectError::internal(chain(error)),
    }
}

fn not_started(error: &SpawnError) -> ConnectError {
    if error.is_callers() {
        ConnectError::invalid_argument(chain(error))
    } else {
        tracing::error!("process did not start: {}", chain(error));
        ConnectError::internal(chain(error))
    }
}

impl ProcessService {
    /// Where a process starts: what the call says, else the default, else the home.
    fn directory(&self, cwd: Option<&str>, user: &User) -> Result<PathBuf, ConnectError> {
        let resolved = self.guest.resolve(cwd.unwrap_or_default(), user);
        resolved.map_err(|bad: BadPath| ConnectError::invalid_argument(bad.to_string()))
    }

    /// The process that a call is about, running or lately ended.
    fn known(
        &self,
        selector: Option<&wire::ProcessSelector>,
    ) -> Result<Arc<Running>, ConnectError> {
        use process_selector::Selector;
        let (found, name) = match selector.and_then(|selector| selector.selector.as_ref()) {
            Some(Selector::Pid(pid)) => {
                (self.guest.processes.by_pid(*pid), format!("process with pid {pid}"))
            }
            Some(Selector::Tag(tag)) => {
                (self.guest.processes.by_tag(tag), format!("process with tag {tag}"))
            }
            None => return Err(ConnectError::invalid_argument("no process is selected")),
        };
        found.ok_or_else(|| ConnectError::not_found(format!("{name} not found")))
    }

    /// The process that a call is about, if it still runs.
    fn running(
        &self,
        selector: Option<&wire::ProcessSelector>,
    ) -> Result<Arc<Running>, ConnectError> {
        let process = self.known(selector)?;
        if process.runs() {
            return Ok(process);
        }
        Err(ConnectError::not_found(format!("process with pid {} has ended", process.pid)))
    }

    async fn feed(
        &self,
        process: &Running,
        input: Option<wire::ProcessInput>,
        context: &RequestContext,
    ) -> Result<(), ConnectError> {
        let bytes = match input.and_then(|input| input.input) {
            Some(process_input::Input::Stdin(bytes)) => bytes,
            Some(process_input::Input::Pty(_)) => {
                return Err(ConnectError::internal("process has no PTY"));
            }
            None => return Err(ConnectError::invalid_argument("no input is given")),
        };
        let deadline =
            context.deadline().map_or_else(|| Instant::now() + INPUT_DEADLINE, Instant::from_std);
        let written = timeout_at(deadline, async {
            match &mut *process.stdin.lock().await {
                Stdin::Open(stdin) => stdin.write_all(&bytes).await.map_err(|error| {
                    ConnectError::internal(format!("process does not read its stdin: {error}"))
                }),
                Stdin::Closed => Err(ConnectError::internal("stdin is closed")),
                Stdin::Never => Err(ConnectError::internal("stdin is not enabled")),
            }
        });
        written.await.unwrap_or_else(|_| {
            Err(ConnectError::deadline_exceeded("process does not read its stdin"))
        })
    }

    async fn launch(
        &self,
        context: &RequestContext,
        request: wire::StartRequest,
    ) -> Result<
        impl futures::Stream<Item = Result<wire::ProcessEvent, ConnectError>> + use<>,
        ConnectError,
    > {
        if request.pty.is_set() {
            return Err(ConnectError::unimplemented("PTY is not supported yet"));
        }
        let config = request
            .process
            .into_option()
            .ok_or_else(|| ConnectError::invalid_argument("no process is given"))?;
        let named = named_user(context.headers());
        let user = self.guest.user(named.as_deref()).map_err(|error| no_user(&error))?;
        let pace = Pace::of(context);
        let launch = Launch {
            cmd: config.cmd.clone(),
            args: config.args.clone(),
            env: self.guest.env(&user, config.envs.clone()),
            cwd: self.directory(config.cwd.as_deref(), &user)?,
            user,
            stdin: request.stdin.unwrap_or(true),
        };
        let guest = Arc::clone(&self.guest);
        // A task of its own: a caller that hangs up must not leave a child that nobody watches.
        let started = tokio::spawn(async move {
            let permit = guest.lifecycle.may_start().await;
            let _permit = permit.ok_or_else(|| ConnectError::unavailable("sandbox is quiesced"))?;
            if guest.processes.running().len() >= PROCESSES_MAX {
                let text = format!("{PROCESSES_MAX} processes run already");
                return Err(ConnectError::resource_exhausted(text));
            }
            let child = spawn(launch, &guest.cgroup).map_err(|error| not_started(&error))?;
            let adopted = guest.processes.adopt(child, config, request.tag, pace.deadline);
            adopted.map_err(|error| ConnectError::internal(format!("process is lost: {error}")))
        });
        let (process, queue) =
            started.await.map_err(|_| ConnectError::internal("internal error"))??;
        tracing::debug!(process.pid = process.pid, "started");
        Ok(events(process, queue, pace))
    }
}

// Plain types say more than the trait's opaque ones, and nobody else calls these methods.
#[allow(refining_impl_trait)]
impl wire::Process for ProcessService {
    async fn list(
        &self,
        _context: RequestContext,
        _request: ServiceRequest<'_, wire::ListRequest>,
    ) -> ServiceResult<wire::ListResponse> {
        let processes = self.guest.processes.running();
        let processes = processes.iter().map(|process| process.info()).collect();
        Response::ok(wire::ListResponse { processes, ..Default::default() })
    }

    async fn connect(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, wire::ConnectRequest>,
    ) -> ServiceResult<ServiceStream<wire::ConnectResponse>> {
        let request = request.to_owned_message();
        let process = self.known(request.process.as_option())?;
        let queue = process.fanout.subscribe();
        let queue = queue.map_err(|e| ConnectError::resource_exhausted(e.to_string()))?;
        let events = events(process, queue, Pace::of(&context));
        Response::ok(Box::pin(events.map(|event| {
            event.map(|event| wire::ConnectResponse {
                event: Some(event).into(),
                ..Default::default()
            })
        })))
    }

    async fn start(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, wire::StartRequest>,
    ) -> ServiceResult<ServiceStream<wire::StartResponse>> {
        let events = self.launch(&context, request.to_owned_message()).await?;
        Response::ok(Box::pin(events.map(|event| {
            event.map(|event| wire::StartResponse {
                event: Some(event).into(),
                ..Default::default()
            })
        })))
    }

    async fn update(
        &self,
        _context: RequestContext,
        request: ServiceRequest<'_, wire::UpdateRequest>,
    ) -> ServiceResult<wire::UpdateResponse> {
        self.running(request.to_owned_message().process.as_option())?;
        Err(ConnectError::internal("process is not a PTY"))
    }

    async fn stream_input(
        &self,
        context: RequestContext,
        mut requests: InboundStream<wire::StreamInputRequest>,
    ) -> ServiceResult<wire::StreamInputResponse> {
        use stream_input_request::Event;
        let mut process = None;
        while let Some(message) = requests.next().await {
            match (message?.to_owned_message().event, &process) {
                (Some(Event::Start(start)), None) => {
                    process = Some(self.running(start.process.as_option())?);
                }
                (Some(Event::Data(data)), Some(process)) => {
                    self.feed(process, data.input.into_option(), &context).await?;
                }
                (Some(Event::Start(_)), Some(_)) => {
                    return Err(ConnectError::invalid_argument("the process was named already"));
                }
                (Some(Event::Data(_)), None) => {
                    return Err(ConnectError::invalid_argument("the first message is no start"));
                }
                // Keepalives, and whatever a later version may send.
                (Some(Event::Keepalive(_)) | None, _) => {}
            }
        }
        Response::ok(wire::StreamInputResponse::default())
    }

    async fn send_input(
        &self,
        context: RequestContext,
        request: ServiceRequest<'_, wire::SendInputRequest>,
    ) -> ServiceResult<wire::SendInputResponse> {
        let request = request.to_owned_message();
        let process = self.running(request.process.as_option())?;
        self.feed(&process, request.input.into_option(), &context).await?;
        Response::ok(wire::SendInputResponse::default())
    }

    async fn send_signal(
        &self,
        _context: RequestContext,
        request: ServiceRequest<'_, wire::SendSignalRequest>,
    ) -> ServiceResult<wire::SendSignalResponse> {
        let request = request.to_owned_message();
        let process = self.running(request.process.as_option())?;
        let signal = match request.signal.as_known() {
            Some(wire::Signal::SIGNAL_SIGTERM) => libc::SIGTERM,
            Some(wire::Signal::SIGNAL_SIGKILL) => libc::SIGKILL,
            _ => return Err(ConnectError::unimplemented("unknown signal")),
        };
        match process.signal(signal) {
            // The process itself is gone, and its children no longer hold up its end.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => {
                return Err(ConnectError::internal(format!("signal was not sent: {error}")));
            }
            Ok(()) => {}
        }
        Response::ok(wire::SendSignalResponse::default())
    }

    async fn close_stdin(
        &self,
        _context: RequestContext,
        request: ServiceRequest<'_, wire::CloseStdinRequest>,
    ) -> ServiceResult<wire::CloseStdinResponse> {
        let request = request.to_owned_message();
        let process = self.running(request.process.as_option())?;
        let mut stdin = process.stdin.lock().await;
        if matches!(*stdin, Stdin::Open(_)) {
            *stdin = Stdin::Closed;
        }
        Response::ok(wire::CloseStdinResponse::default())
    }
}
