//! The agent's side of the pager's socket.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use pool_model::{Prefetch, SnapshotId};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::{
    io::unix::AsyncFd,
    sync::Mutex,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    protocol::{Attach, Call, MESSAGE_BYTES_MAX, Outcome, RefusalCode, Reply, Request, Stats},
    sys, wire,
};

/// Pause between two attempts to reach a pager that is just starting.
const RETRY: Duration = Duration::from_millis(5);

/// Why a call to the pager brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum PagerError {
    /// Nobody listens on the socket.
    #[error("no pager answers on {} within {waited:?}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// How long it was tried.
        waited: Duration,
        /// What the last attempt said.
        #[source]
        source: io::Error,
    },
    /// The deadline of one call passed. What was asked for may still happen.
    #[error("the pager did not answer {call} within {waited:?}")]
    Deadline {
        /// The call.
        call: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The pager died or closed the connection.
    #[error("the pager is gone during {call}")]
    Gone {
        /// The call.
        call: &'static str,
    },
    /// The pager said no.
    #[error("the pager refused {call}: {message}")]
    Refused {
        /// The call.
        call: &'static str,
        /// The kind of refusal.
        code: RefusalCode,
        /// The reason in words.
        message: String,
    },
    /// The socket failed, or what came over it is no reply.
    #[error("talking to the pager failed during {call}")]
    Io {
        /// The call.
        call: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A connection to the pager. Calls are answered one after the other.
///
/// # Cancel safety
///
/// A call that is dropped or runs into its deadline may or may not have been carried out; the
/// client stays usable, since a late reply is recognised and thrown away. `base`, `attach`,
/// `detach`, `drop_base` and `record` may be repeated.
#[derive(Debug)]
pub struct PagerClient {
    line: Mutex<Line>,
    /// A second connection that carries nothing: it becomes readable when the pager is gone.
    watch: AsyncFd<OwnedFd>,
    deadline: Duration,
}

#[derive(Debug)]
struct Line {
    socket: AsyncFd<OwnedFd>,
    seq: u64,
    buffer: Box<[u8]>,
}

impl PagerClient {
    /// Connects, trying again while the pager isn't there yet. `deadline` holds for this and
    /// for each later call.
    ///
    /// # Errors
    ///
    /// [`PagerError::Unreachable`] after `deadline`.
    pub async fn connect(socket: &Path, deadline: Duration) -> Result<Self, PagerError> {
        let until = Instant::now() + deadline;
        loop {
            match dial(socket).and_then(|line| Ok((line, dial(socket)?))) {
                Ok((line, watch)) => {
                    let buffer = vec![0; MESSAGE_BYTES_MAX].into_boxed_slice();
                    let line = Line { socket: line, seq: 0, buffer };
                    return Ok(Self { line: Mutex::new(line), watch, deadline });
                }
                Err(source) if Instant::now() + RETRY >= until => {
                    let socket = socket.to_owned();
                    return Err(PagerError::Unreachable { socket, waited: deadline, source });
                }
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    /// The snapshot's base memory, made on the first call: a memfd that can only be read. What
    /// `prefetch` says is filled from then on, while this returns; the first such wish counts.
    ///
    /// # Errors
    ///
    /// [`PagerError`]; `Refused` if the snapshot in `snapshot_dir` can't be used, its memory isn't
    /// `memory_bytes` long or a limit is reached.
    pub async fn base(
        &self,
        snapshot: SnapshotId,
        snapshot_dir: &Path,
        memory_bytes: u64,
        prefetch: Prefetch,
    ) -> Result<OwnedFd, PagerError> {
        let snapshot_dir = snapshot_dir.to_owned();
        let call = Call::Base { snapshot, snapshot_dir, memory_bytes, prefetch };
        match self.call(call).await? {
            (Outcome::Done, Some(fd)) => Ok(fd),
            (other, _) => Err(unexpected("base", &other)),
        }
    }

    /// Has the pager answer a clone's faults from now on, also those it is waiting on already.
    ///
    /// A pager that doesn't know the base (its predecessor died) takes it over from the process.
    /// After a restart attach all living clones before asking for a base.
    ///
    /// # Errors
    ///
    /// [`PagerError`]. The process's faults are then not answered: kill it.
    pub async fn attach(&self, attach: Attach) -> Result<(), PagerError> {
        self.done(Call::Attach(attach)).await
    }

    /// Ends a clone's session. A process that still lives is killed: its next fault would wait
    /// for ever. Unknown pids are fine.
    ///
    /// # Errors
    ///
    /// [`PagerError`] if the pager can't be asked.
    pub async fn detach(&self, pid: i32) -> Result<(), PagerError> {
        self.done(Call::Detach { pid }).await
    }

    /// Lets go of a base. Its memory is freed when its last clone is gone.
    ///
    /// # Errors
    ///
    /// [`PagerError`] if the pager can't be asked.
    pub async fn drop_base(&self, snapshot: SnapshotId) -> Result<(), PagerError> {
        self.done(Call::DropBase { snapshot }).await
    }

    /// Says that a clone has given its first response: what it has touched until now is its
    /// snapshot's working set. The pager decides whether to look.
    ///
    /// # Errors
    ///
    /// [`PagerError`]; `Refused` if no such clone is attached, or it is dead.
    pub async fn record(&self, pid: i32) -> Result<(), PagerError> {
        self.done(Call::Record { pid }).await
    }

    /// The counters of everything the pager serves.
    ///
    /// # Errors
    ///
    /// [`PagerError`] if the pager can't be asked.
    pub async fn stats(&self) -> Result<Stats, PagerError> {
        let mut all = Stats::default();
        loop {
            let (skip_bases, skip_clones) = (all.bases.len(), all.clones.len());
            match self.call(Call::Stats { skip_bases, skip_clones }).await? {
                (Outcome::Stats { stats, more }, _) => {
                    let empty = stats.bases.is_empty() && stats.clones.is_empty();
                    all.bases.extend(stats.bases);
                    all.clones.extend(stats.clones);
                    all.totals = stats.totals;
                    if !more || empty {
                        return Ok(all);
                    }
                }
                (other, _) => return Err(unexpected("stats", &other)),
            }
        }
    }

    /// Resolves when the pager has died or closed the connection. Cancel-safe.
    pub async fn closed(&self) {
        // Nothing is ever sent on this connection: readable means closed, and so does an error.
        let _ = self.watch.readable().await;
    }

    async fn done(&self, call: Call) -> Result<(), PagerError> {
        let name = call.name();
        match self.call(call).await? {
            (Outcome::Done, _) => Ok(()),
            (other, _) => Err(unexpected(name, &other)),
        }
    }

    async fn call(&self, call: Call) -> Result<(Outcome, Option<OwnedFd>), PagerError> {
        let name = call.name();
        let until = Instant::now() + self.deadline;
        let asked = async { self.line.lock().await.ask(call).await };
        match timeout_at(until, asked).await {
            Err(_) => Err(PagerError::Deadline { call: name, waited: self.deadline }),
            Ok(Ok((Outcome::Refused { code, message }, _))) => {
                Err(PagerError::Refused { call: name, code, message })
            }
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(match source.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::NotConnected => PagerError::Gone { call: name },
                _ => PagerError::Io { call: name, source },
            }),
        }
    }
}

impl Line {
    /// Sends a request and waits for its reply, past replies to calls that were given up.
    async fn ask(&mut self, call: Call) -> io::Result<(Outcome, Option<OwnedFd>)> {
        self.seq += 1;
        let request = serde_json::to_vec(&Request { seq: self.seq, call })?;
        if request.len() > MESSAGE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "request over the limit"));
        }
        loop {
            let mut ready = self.socket.writable().await?;
            if let Ok(sent) = ready.try_io(|socket| wire::send(socket, &request, None)) {
                sent?;
                break;
            }
        }
        loop {
            let mut ready = self.socket.readable().await?;
            let buffer = &mut self.buffer;
            let Ok(received) = ready.try_io(|socket| wire::receive(socket, buffer)) else {
                continue;
            };
            let (len, fd) = received?;
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let reply: Reply = serde_json::from_slice(&self.buffer[..len])?;
            if reply.seq == self.seq {
                return Ok((reply.outcome, fd));
            }
        }
    }
}

fn dial(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    sys::watch(socket)
}

fn unexpected(call: &'static str, outcome: &Outcome) -> PagerError {
    let reason = format!("unexpected reply {outcome:?}");
    PagerError::Io { call, source: io::Error::new(io::ErrorKind::InvalidData, reason) }
}
