//! All processes that were started here, and what watches over each.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use envd_api::proto::process::{ProcessConfig, ProcessInfo};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, ChildStdin},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    fanout::{Chunk, Fanout},
    status::End,
    stream::until,
};
use crate::sys;

/// Most processes that run at a time.
pub(crate) const PROCESSES_MAX: usize = 1024;

/// Most ends that are kept.
const ENDS_MAX: usize = 1024;

/// How long an end can still be asked for. E2B's figure.
const END_KEPT: Duration = Duration::from_secs(30);

/// Most bytes of one chunk of output. E2B's figure.
const CHUNK_BYTES: usize = 32 << 10;

/// How long what is left in the pipes may take after a process was ended by a signal: its children
/// may hold the pipes for ever, but what it wrote itself is there at once.
const DRAIN: Duration = Duration::from_millis(100);

/// A standard input.
#[derive(Debug)]
pub(crate) enum Stdin {
    /// It reads an end of file from the start.
    Never,
    /// It can be fed.
    Open(ChildStdin),
    /// It was closed.
    Closed,
}

/// One process, from its start to 30 s after its end.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: u32,
    pub(crate) tag: Option<String>,
    pub(crate) config: ProcessConfig,
    pub(crate) fanout: Fanout,
    pub(crate) stdin: tokio::sync::Mutex<Stdin>,
    pidfd: OwnedFd,
    sequence: u64,
    signalled: CancellationToken,
}

impl Running {
    /// Sends a signal to the process itself.
    pub(crate) fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        let sent = sys::pidfd_signal(&self.pidfd, signal);
        // Also when it has ended and its children still hold the pipes: that ends the waiting.
        self.signalled.cancel();
        sent
    }

    /// Whether its end is still to come.
    pub(crate) fn runs(&self) -> bool {
        self.fanout.end().is_none()
    }

    pub(crate) fn info(&self) -> ProcessInfo {
        ProcessInfo {
            config: Some(self.config.clone()).into(),
            pid: self.pid,
            tag: self.tag.clone(),
            ..Default::default()
        }
    }
}

/// All processes that run or ended lately.
#[derive(Debug, Clone, Default)]
pub(crate) struct Processes {
    known: Arc<Mutex<BTreeMap<u32, Arc<Running>>>>,
    sequence: Arc<AtomicU64>,
    tasks: TaskTracker,
}

impl Processes {
    fn known(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Running>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process with this id, running or lately ended.
    pub(crate) fn by_pid(&self, pid: u32) -> Option<Arc<Running>> {
        self.known().get(&pid).cloned()
    }

    /// The latest process with this name; one that runs comes before one that ended.
    pub(crate) fn by_tag(&self, tag: &str) -> Option<Arc<Running>> {
        let known = self.known();
        let named = known.values().filter(|process| process.tag.as_deref() == Some(tag));
        named.max_by_key(|process| (process.runs(), process.sequence)).cloned()
    }

    /// Those that run, in order of their start.
    pub(crate) fn running(&self) -> Vec<Arc<Running>> {
        let known = self.known();
        let mut running: Vec<_> =
            known.values().filter(|process| process.runs()).cloned().collect();
        running.sort_by_key(|process| process.sequence);
        running
    }

    /// Takes a child in, and watches over it until its end was kept long enough.
    ///
    /// The queue gets its output from the first byte on.
    pub(crate) fn adopt(
        &self,
        mut child: Child,
        config: ProcessConfig,
        tag: Option<String>,
        deadline: Option<Instant>,
    ) -> io::Result<(Arc<Running>, mpsc::Receiver<Chunk>)> {
        let pid = child.id().ok_or(io::ErrorKind::NotFound)?;
        let process = Arc::new(Running {
            pid,
            tag,
            config,
            fanout: Fanout::new(),
            stdin: tokio::sync::Mutex::new(child.stdin.take().map_or(Stdin::Never, Stdin::Open)),
            pidfd: sys::pidfd_open(pid)?,
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            signalled: CancellationToken::new(),
        });
        let queue = process.fanout.subscribe().map_err(io::Error::other)?;
        // An ended process may have had the same id; its end is lost a little early then.
        self.known().insert(pid, Arc::clone(&process));
        let (table, watched) = (self.clone(), Arc::clone(&process));
        self.tasks.spawn(async move {
            supervise(&watched, child, deadline).await;
            table.forget_later(&watched).await;
        });
        Ok((process, queue))
    }

    async fn forget_later(&self, process: &Arc<Running>) {
        let ends = self.known().values().filter(|process| !process.runs()).count();
        if ends <= ENDS_MAX {
            sleep(END_KEPT).await;
        }
        let mut known = self.known();
        if known.get(&process.pid).is_some_and(|current| Arc::ptr_eq(current, process)) {
            known.remove(&process.pid);
        }
    }
}

/// Pumps a process's output until its end, which it stores.
async fn supervise(process: &Arc<Running>, mut child: Child, deadline: Option<Instant>) {
    let mut pumps = JoinSet::new();
    if let Some(stdout) = child.stdout.take() {
        pumps.spawn(pump(Arc::clone(process), stdout, Chunk::Stdout));
    }
    if let Some(stderr) = child.stderr.take() {
        pumps.spawn(pump(Arc::clone(process), stderr, Chunk::Stderr));
    }
    let status = tokio::select! {
        status = child.wait() => status,
        () = until(deadline) => {
            kill_group(process);
            child.wait().await
        }
    };
    // Children of the process may hold its pipes on: then it ends when they do, when it is
    // signalled, or when its time is over.
    let hurried = tokio::select! {
        biased;
        () = drain(&mut pumps) => false,
        () = process.signalled.cancelled() => true,
        () = until(deadline) => true,
    };
    if hurried {
        let _ = timeout(DRAIN, drain(&mut pumps)).await;
    }
    pumps.shutdown().await;
    // Who writes right now sees a broken pipe instead.
    if let Ok(mut stdin) = process.stdin.try_lock() {
        *stdin = Stdin::Closed;
    }
    let end = status.map_or_else(
        |error| End { exit_code: -1, exited: false, status: format!("wait failed: {error}") },
        End::of,
    );
    process.fanout.close(end);
}

async fn drain(pumps: &mut JoinSet<()>) {
    while pumps.join_next().await.is_some() {}
}

/// Ends a process whose time is over, together with what it started in its session's first group.
fn kill_group(process: &Running) {
    let group = i32::try_from(process.pid).map(nix::unistd::Pid::from_raw);
    // It leads its group since before exec, and is not reaped yet, so the id is still its own.
    if let Ok(group) = group
        && let Err(error) = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL)
    {
        tracing::warn!("process {} can't be killed at its timeout: {error}", process.pid);
    }
}

/// Reads one pipe to its end.
async fn pump(
    process: Arc<Running>,
    mut pipe: impl AsyncRead + Unpin,
    chunk: impl Fn(Bytes) -> Chunk,
) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) => return,
            Ok(n) => process.fanout.send(chunk(Bytes::copy_from_slice(&buffer[..n]))).await,
            Err(error) => {
                tracing::debug!("output of process {} broke: {error}", process.pid);
                return;
            }
        }
    }
}
