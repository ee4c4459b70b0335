//! A client of QEMU's control protocol (QMP: JSON lines over a Unix socket).
//!
//! ```text
//! QEMU --greeting--> us --qmp_capabilities--> {return} --commands with ids--> replies, events
//! ```
//!
//! One task owns the socket; callers send it commands and wait for their own reply.
//!
//! # Invariants
//!
//! - QEMU may be in a guest's hands: lines are limited, unknown ids and odd shapes are ignored.
//! - A reply that comes after its caller's deadline is dropped.
//! - When the socket closes, every waiting caller gets [`QmpError::Closed`].
//!
//! # Limits
//!
//! Lines of 256 KiB, 16 commands queued, 32 unanswered, 64 events kept for a slow listener.

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Interest},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{broadcast, mpsc, oneshot},
    time::timeout,
};

/// Longest line taken from QEMU, bytes.
const LINE_MAX: u64 = 256 << 10;
/// Commands that may wait for the owner task.
const COMMANDS_MAX: usize = 16;
/// Commands sent and not answered; more are refused.
const UNANSWERED_MAX: usize = 32;
/// Events kept for a listener that is slow.
const EVENTS_MAX: usize = 64;

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QmpError {
    /// The socket is closed: the VMM is dead or has hung up.
    #[error("the control socket is closed")]
    Closed,
    /// No answer in time.
    #[error("no answer to {command} within {waited:?}")]
    Deadline { command: &'static str, waited: Duration },
    /// QEMU's own refusal.
    #[error("{command} was refused: {reason}")]
    Refused { command: &'static str, reason: String },
    /// The socket failed.
    #[error("the control socket failed")]
    Io(#[source] io::Error),
    /// Not what the protocol allows.
    #[error("{0}")]
    Protocol(&'static str),
}

/// Something that QEMU says unasked.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Event {
    /// Its name, e.g. `MIGRATION`.
    #[serde(rename = "event")]
    pub(crate) name: String,
    /// What it says, by name.
    #[serde(default)]
    pub(crate) data: Value,
}

/// A connection whose capabilities are negotiated. Closed when dropped.
#[derive(Debug)]
pub(crate) struct Qmp {
    command_tx: mpsc::Sender<Command>,
    event_tx: broadcast::Sender<Event>,
}

/// Where a command's answer goes.
type ReplyTx = oneshot::Sender<Result<Value, QmpError>>;

#[derive(Debug)]
struct Command {
    name: &'static str,
    arguments: Value,
    fd: Option<OwnedFd>,
    reply_tx: ReplyTx,
}

/// One line from QEMU, as far as it concerns us.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Event(Event),
    Return {
        #[serde(rename = "return")]
        value: Value,
        id: Option<u64>,
    },
    Error {
        error: Refusal,
        id: Option<u64>,
    },
}

#[derive(Debug, Deserialize)]
struct Refusal {
    desc: String,
}

impl Qmp {
    /// Connects to the socket at `path` (of any length) and negotiates, all within `max`.
    pub(crate) async fn connect(path: &Path, max: Duration) -> Result<Self, QmpError> {
        let late = QmpError::Deadline { command: "connect", waited: max };
        timeout(max, async {
            let stream = super::socket::connect(path).await.map_err(QmpError::Io)?;
            Self::negotiate(stream, max).await
        })
        .await
        .unwrap_or(Err(late))
    }

    async fn negotiate(stream: UnixStream, max: Duration) -> Result<Self, QmpError> {
        let (read_half, write_half) = stream.into_split();
        let mut lines = Lines(BufReader::new(read_half));
        let greeting = lines.next().await?;
        let greeting = serde_json::from_slice::<Value>(&greeting).ok();
        if greeting.is_none_or(|greeting| greeting.get("QMP").is_none()) {
            return Err(QmpError::Protocol("no greeting"));
        }
        let (command_tx, command_rx) = mpsc::channel(COMMANDS_MAX);
        let (event_tx, _) = broadcast::channel(EVENTS_MAX);
        let owner = Owner {
            write_half,
            command_rx,
            event_tx: event_tx.clone(),
            waiting: HashMap::new(),
            next_id: 0,
        };
        tokio::spawn(owner.run(lines)); // ends with the last `Qmp` or with the socket
        let qmp = Self { command_tx, event_tx };
        qmp.execute("qmp_capabilities", json!({}), max).await?;
        Ok(qmp)
    }

    /// Executes a command.
    pub(crate) async fn execute(
        &self,
        command: &'static str,
        arguments: Value,
        max: Duration,
    ) -> Result<Value, QmpError> {
        self.send(command, arguments, None, max).await
    }

    /// Hands a descriptor over under `name`, for later commands to use.
    pub(crate) async fn getfd(
        &self,
        name: &'static str,
        fd: OwnedFd,
        max: Duration,
    ) -> Result<(), QmpError> {
        self.send("getfd", json!({ "fdname": name }), Some(fd), max).await.map(drop)
    }

    /// Events from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.event_tx.subscribe()
    }

    /// Whether the socket is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.command_tx.is_closed()
    }

    async fn send(
        &self,
        name: &'static str,
        arguments: Value,
        fd: Option<OwnedFd>,
        max: Duration,
    ) -> Result<Value, QmpError> {
        let (reply_tx, reply_rx) = oneshot::channel();
        let command = Command { name, arguments, fd, reply_tx };
        let answered = timeout(max, async {
            self.command_tx.send(command).await.map_err(|_| QmpError::Closed)?;
            reply_rx.await.map_err(|_| QmpError::Closed)?
        });
        answered.await.unwrap_or(Err(QmpError::Deadline { command: name, waited: max }))
    }
}

/// The task that owns the socket.
struct Owner {
    write_half: OwnedWriteHalf,
    command_rx: mpsc::Receiver<Command>,
    event_tx: broadcast::Sender<Event>,
    waiting: HashMap<u64, (&'static str, ReplyTx)>,
    next_id: u64,
}

impl Owner {
    /// Ends when the socket does or when nobody can send commands any more.
    ///
    /// Lines are read by a task of their own, since a half-read line would not survive a
    /// `select!`, and reach this one through a short queue.
    async fn run(mut self, mut lines: Lines) {
        let (line_tx, mut line_rx) = mpsc::channel(1);
        let reader = async move {
            while let Ok(line) = lines.next().await {
                if line_tx.send(line).await.is_err() {
                    return;
                }
            }
        };
        let serve = async move {
            loop {
                tokio::select! {
                    biased; // answers first: they free room for commands
                    line = line_rx.recv() => match line {
                        Some(line) => self.handle_line(&line),
                        None => return,
                    },
                    command = self.command_rx.recv() => match command {
                        Some(command) => if self.handle_command(command).await.is_err() { return },
                        None => return,
                    },
                }
            }
        };
        // At the socket's end the reader drops its queue; `serve` empties it and then ends too.
        let reader = async move {
            reader.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = serve => {}
            () = reader => {}
        }
    }

    fn handle_line(&mut self, line: &[u8]) {
        match serde_json::from_slice::<Line>(line) {
            Ok(Line::Event(event)) => {
                tracing::trace!(event = event.name, "qmp");
                let _ = self.event_tx.send(event); // nobody may be listening
            }
            Ok(Line::Return { value, id }) => self.answer(id, |_| Ok(value)),
            Ok(Line::Error { error, id }) => self.answer(id, |command| {
                Err(QmpError::Refused { command, reason: error.desc.chars().take(500).collect() })
            }),
            Err(error) => tracing::warn!(%error, "a vmm sent a line that is not qmp"),
        }
    }

    fn answer(
        &mut self,
        id: Option<u64>,
        result: impl FnOnce(&'static str) -> Result<Value, QmpError>,
    ) {
        if let Some((command, reply_tx)) = id.and_then(|id| self.waiting.remove(&id)) {
            let _ = reply_tx.send(result(command)); // the caller may have given up
        }
    }

    async fn handle_command(&mut self, command: Command) -> io::Result<()> {
        self.waiting.retain(|_, (_, reply_tx)| !reply_tx.is_closed());
        if self.waiting.len() >= UNANSWERED_MAX {
            let busy = QmpError::Protocol("too many unanswered commands");
            let _ = command.reply_tx.send(Err(busy));
            return Ok(());
        }
        let id = self.next_id;
        self.next_id += 1;
        let mut text = json!({ "execute": command.name, "arguments": command.arguments, "id": id })
            .to_string();
        text.push('\n');
        self.waiting.insert(id, (command.name, command.reply_tx));
        self.write(text.as_bytes(), command.fd).await
    }

    /// Writes all of `text`; `fd` travels with its first byte.
    async fn write(&mut self, text: &[u8], fd: Option<OwnedFd>) -> io::Result<()> {
        let stream: &UnixStream = self.write_half.as_ref();
        let mut sent = 0;
        while sent < text.len() {
            let rights = fd.as_ref().filter(|_| sent == 0).map(|fd| [fd.as_raw_fd()]);
            let control: Vec<_> =
                rights.iter().map(|fds| ControlMessage::ScmRights(fds.as_slice())).collect();
            let bytes = [IoSlice::new(&text[sent..])];
            sent += stream
                .async_io(Interest::WRITABLE, || {
                    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                    sendmsg::<()>(stream.as_raw_fd(), &bytes, &control, flags, None)
                        .map_err(io::Error::from)
                })
                .await?;
        }
        Ok(())
    }
}

/// The lines that QEMU sends.
struct Lines(BufReader<OwnedReadHalf>);

impl Lines {
    /// The next line; an error if there is none or if it is too long.
    async fn next(&mut self) -> Result<Vec<u8>, QmpError> {
        let mut line = Vec::new();
        let mut limited = (&mut self.0).take(LINE_MAX);
        limited.read_until(b'\n', &mut line).await.map_err(QmpError::Io)?;
        if line.is_empty() {
            return Err(QmpError::Closed);
        }
        if line.last() != Some(&b'\n') {
            return Err(QmpError::Protocol("a line is too long or cut off"));
        }
        Ok(line)
    }
}
