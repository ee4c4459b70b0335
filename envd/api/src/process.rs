//! Starting and following processes in the guest, in host terms.

use std::{collections::BTreeMap, fmt, pin::Pin, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};

use crate::{
    error::EnvdError,
    proto::process::{self as wire, __buffa::oneof},
    transport::AnswerBody,
};

/// What to run, and how.
#[derive(Clone, Default)]
pub struct Start {
    /// Program: a path, or a name looked up in the process's `PATH`.
    pub cmd: String,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// Environment on top of the sandbox's.
    pub envs: BTreeMap<String, String>,
    /// Working directory; the user's home when absent.
    pub cwd: Option<String>,
    /// Unix account; the sandbox's default user when absent.
    pub user: Option<String>,
    /// Standard input.
    pub stdin: Stdin,
    /// A name to find the process by later.
    pub tag: Option<String>,
    /// The guest kills the process when this much time has passed.
    pub timeout: Option<Duration>,
}

/// Where a process's standard input comes from.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Stdin {
    /// Nowhere: it reads an end of file.
    #[default]
    Null,
    /// From later [`send_stdin`](crate::EnvdClient::send_stdin) calls.
    Open,
    /// From these bytes, then an end of file.
    Bytes(Bytes),
}

impl fmt::Debug for Stdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Open => f.write_str("Open"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
        }
    }
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start")
            .field("cmd", &self.cmd)
            .field("args", &self.args.len())
            .field("envs", &self.envs.keys().collect::<Vec<_>>())
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .field("stdin", &self.stdin)
            .field("tag", &self.tag)
            .field("timeout", &self.timeout)
            .finish()
    }
}

impl Start {
    /// Runs `cmd` with `args`.
    pub fn new<A: Into<String>>(cmd: impl Into<String>, args: impl IntoIterator<Item = A>) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { cmd: cmd.into(), args, ..Self::default() }
    }

    /// Runs a line of shell the way E2B's clients do: `/bin/bash -l -c LINE`.
    pub fn shell(line: impl Into<String>) -> Self {
        Self::new("/bin/bash", ["-l".to_owned(), "-c".to_owned(), line.into()])
    }

    pub(crate) fn to_wire(&self) -> wire::StartRequest {
        let config = wire::ProcessConfig {
            cmd: self.cmd.clone(),
            args: self.args.clone(),
            envs: self.envs.clone().into_iter().collect(),
            cwd: self.cwd.clone(),
            ..Default::default()
        };
        wire::StartRequest {
            process: Some(config).into(),
            tag: self.tag.clone(),
            stdin: Some(self.stdin != Stdin::Null),
            ..Default::default()
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Exit code; -1 when a signal ended it.
    pub exit_code: i32,
    /// Whether it ended by itself.
    pub exited: bool,
    /// `exit status 0`, `signal: killed`, ...
    pub status: String,
}

/// Something that happened to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEvent {
    /// It runs; always the first event.
    Started {
        /// Its id in the guest.
        pid: u32,
    },
    /// It wrote to its standard output.
    Stdout(Bytes),
    /// It wrote to its standard error.
    Stderr(Bytes),
    /// Nothing happened for a while.
    Keepalive,
    /// It ended; always the last event.
    Ended(End),
}

impl ProcessEvent {
    /// Reads a guest's event; `None` for one that this version doesn't know.
    fn from_wire(event: wire::ProcessEvent) -> Option<Self> {
        use oneof::process_event::{Event, data_event::Output};
        Some(match event.event? {
            Event::Start(start) => Self::Started { pid: start.pid },
            Event::Data(data) => match data.output? {
                Output::Stdout(bytes) => Self::Stdout(bytes.into()),
                Output::Stderr(bytes) => Self::Stderr(bytes.into()),
                Output::Pty(_) => return None,
            },
            Event::End(end) => Self::Ended(End {
                exit_code: end.exit_code,
                exited: end.exited,
                status: end.status,
            }),
            Event::Keepalive(_) => Self::Keepalive,
        })
    }
}

/// What a finished process wrote and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Standard output, as far as the limit allowed.
    pub stdout: Vec<u8>,
    /// Standard error, as far as the limit allowed.
    pub stderr: Vec<u8>,
    /// Whether something was left out.
    pub truncated: bool,
    /// How it ended.
    pub end: End,
}

/// The events of one process; dropping it doesn't end the process.
pub struct ProcessStream {
    pid: u32,
    events: Pin<Box<dyn Stream<Item = Result<ProcessEvent, EnvdError>> + Send>>,
}

impl fmt::Debug for ProcessStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessStream").field("pid", &self.pid).finish_non_exhaustive()
    }
}

type WireStream = connectrpc::client::ServerStream<AnswerBody, wire::StartResponseView<'static>>;

impl ProcessStream {
    /// Waits for the first event, which must be the start.
    pub(crate) async fn open(
        call: &'static str,
        waited: Duration,
        wire: WireStream,
    ) -> Result<Self, EnvdError> {
        let mut events = Box::pin(stream::unfold(Some(wire), move |wire| async move {
            let mut wire = wire?;
            loop {
                match wire.message().await {
                    Ok(None) => return None,
                    Ok(Some(message)) => {
                        let event = message.to_owned_message().event.into_option();
                        if let Some(event) = event.and_then(ProcessEvent::from_wire) {
                            return Some((Ok(event), Some(wire)));
                        }
                    }
                    Err(error) => {
                        return Some((Err(EnvdError::from_connect(call, waited, error)), None));
                    }
                }
            }
        }));
        match events.next().await {
            Some(Ok(ProcessEvent::Started { pid })) => Ok(Self { pid, events }),
            Some(Ok(_)) => Err(EnvdError::malformed(call, "the first event is not the start")),
            Some(Err(error)) => Err(error),
            None => Err(EnvdError::malformed(call, "the stream ended without an event")),
        }
    }

    /// The process's id in the guest.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Collects everything until the end, keeping at most `limit` bytes of each output.
    ///
    /// # Errors
    ///
    /// Whatever ended the stream before the process's end was seen.
    pub async fn output(mut self, limit: usize) -> Result<Output, EnvdError> {
        let (mut stdout, mut stderr, mut truncated) = (Vec::new(), Vec::new(), false);
        while let Some(event) = self.next().await {
            match event? {
                ProcessEvent::Stdout(bytes) => truncated |= keep(&mut stdout, &bytes, limit),
                ProcessEvent::Stderr(bytes) => truncated |= keep(&mut stderr, &bytes, limit),
                ProcessEvent::Ended(end) => return Ok(Output { stdout, stderr, truncated, end }),
                ProcessEvent::Started { .. } | ProcessEvent::Keepalive => {}
            }
        }
        Err(EnvdError::malformed("follow a process", "the stream ended without the end event"))
    }
}

/// Appends what fits and says whether something didn't.
fn keep(to: &mut Vec<u8>, bytes: &[u8], limit: usize) -> bool {
    let room = limit.saturating_sub(to.len()).min(bytes.len());
    to.extend_from_slice(&bytes[..room]);
    room < bytes.len()
}

impl Stream for ProcessStream {
    type Item = Result<ProcessEvent, EnvdError>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(cx)
    }
}

/// A process that was started through the guest daemon and still runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its id in the guest.
    pub pid: u32,
    /// The name its starter gave it.
    pub tag: Option<String>,
    /// Its program.
    pub cmd: String,
    /// Its arguments.
    pub args: Vec<String>,
}

impl Running {
    pub(crate) fn from_wire(info: wire::ProcessInfo) -> Self {
        let config = info.config.into_option().unwrap_or_default();
        Self { pid: info.pid, tag: info.tag, cmd: config.cmd, args: config.args }
    }
}

/// A signal that the guest daemon delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Asks the process to end.
    Term,
    /// Ends it.
    Kill,
}

impl Signal {
    pub(crate) const fn to_wire(self) -> wire::Signal {
        match self {
            Self::Term => wire::Signal::SIGNAL_SIGTERM,
            Self::Kill => wire::Signal::SIGNAL_SIGKILL,
        }
    }
}
