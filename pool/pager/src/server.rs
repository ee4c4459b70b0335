//! The socket the agent talks to.
//!
//! # Invariants
//!
//! - Only the user the pager runs as may connect: by the socket's mode and by its credentials.
//! - One pager per socket: a lock on the pid file is held for the life of the process.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io::{self, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use pool_remote::LayerSource;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, poll},
    io::Errno,
    net::{
        AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with,
        sockopt::socket_peercred,
    },
};

use crate::{
    limits::Limits,
    pager::Pager,
    protocol::{MESSAGE_BYTES_MAX, Outcome, RefusalCode, Reply, Request},
    refusal::Refusal,
    wire,
};

/// Most client connections at a time; a client has two.
const CONNECTIONS_MAX: usize = 64;

/// Why the pager can't start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another pager serves this directory.
    #[error("another pager holds {}", pid_file.display())]
    Running {
        /// Its pid file.
        pid_file: PathBuf,
    },
    /// The system refused.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A pager that listens and serves when it is run.
#[derive(Debug)]
pub struct Server {
    listener: OwnedFd,
    pager: Arc<Pager>,
    stop: Arc<OwnedFd>,
    /// Holds the lock.
    _pid_file: File,
}

/// Stops a running server from another thread.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<OwnedFd>);

impl Stopper {
    /// Makes [`Server::run`] return. Guests are left as they are, for a successor.
    pub fn stop(&self) {
        // An eventfd refuses a write only when its counter is full: then it is stopped already.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

impl Server {
    /// Takes the lock, writes the pid and listens on `socket`. Snapshots' memory comes from
    /// `source`, whose runtime must be another thread's than the one that runs the server.
    ///
    /// # Errors
    ///
    /// [`BindError`].
    pub fn bind(
        socket: &Path,
        pid_file: &Path,
        limits: Limits,
        source: LayerSource,
    ) -> Result<Self, BindError> {
        let lock = lock_pid_file(pid_file)?;
        let failed = |step| move |source| BindError::Io { step, path: socket.to_owned(), source };
        match fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("replace")(error));
            }
            _ => {}
        }
        let listener = listen(socket).map_err(failed("listen on"))?;
        let pager = Pager::new(limits, source).map_err(failed("serve"))?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|error| failed("serve")(error.into()))?;
        Ok(Self { listener, pager: Arc::new(pager), stop: Arc::new(stop), _pid_file: lock })
    }

    /// What stops it.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Serves until stopped.
    ///
    /// # Errors
    ///
    /// What accepting or polling says; sessions are stopped then, too.
    pub fn run(self) -> io::Result<()> {
        let mut connections = Vec::new();
        let outcome = self.accept_until_stopped(&mut connections);
        for connection in connections {
            connection.close();
        }
        self.pager.stop();
        outcome
    }

    fn accept_until_stopped(&self, connections: &mut Vec<Connection>) -> io::Result<()> {
        loop {
            let mut fds = [
                PollFd::new(&self.listener, PollFlags::IN),
                PollFd::new(&*self.stop, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [listener, stop] = fds.map(|fd| fd.revents());
            if !stop.is_empty() {
                return Ok(());
            }
            for gone in connections.extract_if(.., |connection| connection.has_ended()) {
                gone.close();
            }
            if listener.is_empty() {
                continue;
            }
            let socket = match accept_with(&self.listener, SocketFlags::CLOEXEC) {
                Ok(socket) => socket,
                Err(Errno::INTR | Errno::CONNABORTED | Errno::AGAIN) => continue,
                Err(error) => return Err(error.into()),
            };
            match self.admit(socket, connections.len()) {
                Ok(connection) => connections.push(connection),
                Err(error) => tracing::warn!(%error, "connection refused"),
            }
        }
    }

    fn admit(&self, socket: OwnedFd, open: usize) -> io::Result<Connection> {
        let peer = socket_peercred(&socket)?;
        if peer.uid != rustix::process::geteuid() {
            return Err(io::Error::other(format!("user {} may not connect", peer.uid.as_raw())));
        }
        if open >= CONNECTIONS_MAX {
            return Err(io::Error::other(format!("{CONNECTIONS_MAX} connections are open")));
        }
        let socket = Arc::new(socket);
        let ended = Arc::new(AtomicBool::new(false));
        let (pager, its_socket, its_end) =
            (Arc::clone(&self.pager), Arc::clone(&socket), Arc::clone(&ended));
        let thread =
            std::thread::Builder::new().name("connection".to_owned()).spawn(move || {
                if let Err(error) = converse(&pager, &its_socket) {
                    tracing::warn!(%error, "connection ended");
                }
                let _ = rustix::net::shutdown(&its_socket, Shutdown::Both); // it may be gone already
                its_end.store(true, Ordering::Release);
            })?;
        Ok(Connection { socket, ended, thread })
    }
}

#[derive(Debug)]
struct Connection {
    socket: Arc<OwnedFd>,
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Connection {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn close(self) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both); // it may be gone already
        let _ = self.thread.join();
    }
}

/// Answers requests until the client hangs up.
fn converse(pager: &Pager, socket: &OwnedFd) -> io::Result<()> {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let (len, fd) = match wire::receive(socket, &mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        };
        drop(fd); // clients have none to send
        if len == 0 {
            return Ok(());
        }
        let (seq, answer) = match serde_json::from_slice::<Request>(&buffer[..len]) {
            Ok(request) => {
                let call = request.call.name();
                let answer = pager.carry_out(request.call);
                if let Err(refusal) = &answer {
                    tracing::warn!(call, reason = %refusal, "call refused");
                }
                (request.seq, answer)
            }
            Err(error) => {
                (0, Err(Refusal::new(RefusalCode::BadRequest, format!("no request: {error}"))))
            }
        };
        let (outcome, fd): (Outcome, Option<OwnedFd>) =
            answer.unwrap_or_else(|refusal| (refusal.into_outcome(), None));
        let reply = serde_json::to_vec(&Reply { seq, outcome })?;
        match wire::send(socket, &reply, fd.as_ref().map(AsFd::as_fd)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            sent => sent?,
        }
    }
}

fn listen(path: &Path) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // The mode is set between bind and listen: before that nobody can connect.
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

fn lock_pid_file(path: &Path) -> Result<File, BindError> {
    let failed = |step| move |source| BindError::Io { step, path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed("make the directory of"))?;
    }
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(failed("open"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(BindError::Running { pid_file: path.to_owned() });
        }
        Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
    }
    file.set_len(0).map_err(failed("empty"))?;
    writeln!(file, "{}", std::process::id()).map_err(failed("write"))?;
    Ok(file)
}
