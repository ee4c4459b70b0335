//! Network namespaces: names under `/run/netns`, and threads that work inside one.
//!
//! # Invariants
//!
//! - No thread of an async runtime ever changes its namespace: [`on_thread`] makes a thread that
//!   ends with its work, [`Workers`] own threads that do nothing else.
//! - A name is made by exclusive creation of its file, so two makers cannot share one.
//!
//! # Limits
//!
//! [`WORKERS`] threads, [`QUEUE`] jobs waiting at each; more is refused, not queued.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};
use tokio::sync::oneshot;

/// Where `ip netns` and everybody else looks for named namespaces.
const NAMES: &str = "/run/netns";
/// File system type of an open namespace (`NSFS_MAGIC` of `linux/magic.h`).
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);
/// Threads that open sockets inside namespaces; each job takes microseconds.
const WORKERS: usize = 2;
/// Jobs that may wait at one worker.
const QUEUE: usize = 1024;

/// Moves the calling thread into a namespace. Only for threads of this module.
pub(crate) fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setns(netns, CloneFlags::CLONE_NEWNET)?)
}

/// The file that names a namespace.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(NAMES).join(name)
}

/// Makes the directory of names, shared with other mount namespaces, as `ip netns add` does.
pub(crate) fn prepare_names() -> io::Result<()> {
    const NONE: Option<&str> = None;
    fs::create_dir_all(NAMES)?;
    let share = || mount(NONE, NAMES, NONE, MsFlags::MS_SHARED | MsFlags::MS_REC, NONE);
    match share() {
        Err(Errno::EINVAL) => {
            mount(Some(NAMES), NAMES, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
            Ok(share()?)
        }
        other => Ok(other?),
    }
}

/// Moves the calling thread into a new namespace and names that.
///
/// # Errors
///
/// `AlreadyExists` if the name is taken. On any other failure the name's file may remain.
pub(crate) fn create(name: &str) -> io::Result<OwnedFd> {
    const NONE: Option<&str> = None;
    let path = path(name);
    OpenOptions::new().write(true).create_new(true).mode(0o000).open(&path)?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    mount(Some("/proc/thread-self/ns/net"), &path, NONE, MsFlags::MS_BIND, NONE)?;
    open(&path)
}

/// Opens a namespace.
///
/// # Errors
///
/// `NotFound` if there is no such file; `InvalidData` if it is a plain file, which is what remains
/// of an interrupted [`create`].
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let file = File::open(path)?;
    if fstatfs(&file)?.filesystem_type() != NSFS_MAGIC {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(file.into())
}

/// Removes a name, whole or half-made; none there is fine. The namespace itself ends with its last
/// process and descriptor.
pub(crate) fn remove(name: &str) -> io::Result<()> {
    let path = path(name);
    loop {
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) => {} // maybe mounted over: once more
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(error) => return Err(error.into()),
        }
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// All names there are.
pub(crate) fn names() -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(NAMES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Writes a kernel setting of the calling thread's namespace; one that this kernel lacks is fine.
pub(crate) fn set_sysctl(name: &str, value: &str) -> io::Result<()> {
    match fs::write(Path::new("/proc/sys/net").join(name), value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Runs `work` on a thread of its own, which may change its namespace, and waits for it.
///
/// # Cancel safety
///
/// `work` runs to its end in any case. If nobody waits for its result any more, `orphan` gets it.
pub(crate) async fn on_thread<T, W, O>(work: W, orphan: O) -> io::Result<T>
where
    T: Send + 'static,
    W: FnOnce() -> T + Send + 'static,
    O: FnOnce(T) + Send + 'static,
{
    let (done, result) = oneshot::channel();
    thread::Builder::new().name("slot".into()).spawn(move || {
        if let Err(unclaimed) = done.send(work()) {
            orphan(unclaimed);
        }
    })?;
    result.await.map_err(|_| io::Error::other("the slot thread died"))
}

/// Runs `work` inside a namespace, on a thread of its own, blocking the caller. For work of a few
/// system calls.
pub(crate) fn inside<T: Send>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().name("slot".into());
        let handle = worker.spawn_scoped(scope, || enter(netns).and_then(|()| work()))?;
        handle.join().map_err(|_| io::Error::other("the slot thread died"))?
    })
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that run short jobs inside namespaces.
#[derive(Debug)]
pub(crate) struct Workers {
    threads: Vec<Worker>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Worker {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads.
    pub(crate) fn start() -> io::Result<Self> {
        let worker = || {
            let (jobs, queue) = sync_channel::<Job>(QUEUE);
            let thread = thread::Builder::new().name("slot-socket".into()).spawn(move || {
                for job in queue {
                    job();
                }
            })?;
            Ok(Worker { jobs: Some(jobs), thread: Some(thread) })
        };
        let threads = (0..WORKERS).map(|_| worker()).collect::<io::Result<_>>()?;
        Ok(Self { threads, next: AtomicUsize::new(0) })
    }

    /// Runs `work` inside `netns`. It must not block: others wait behind it.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the queue is full; else what `work` answers.
    pub(crate) async fn run<T, W>(&self, netns: Arc<OwnedFd>, work: W) -> io::Result<T>
    where
        T: Send + 'static,
        W: FnOnce() -> io::Result<T> + Send + 'static,
    {
        let (done, result) = oneshot::channel();
        let job = Box::new(move || {
            // A caller that went away needs no answer.
            let _ = done.send(enter(netns.as_fd()).and_then(|()| work()));
        });
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        let jobs = self.threads[turn].jobs.as_ref();
        let sent = jobs.map(|jobs| jobs.try_send(job));
        match sent {
            Some(Ok(())) => {}
            Some(Err(TrySendError::Full(_))) => return Err(io::ErrorKind::WouldBlock.into()),
            Some(Err(TrySendError::Disconnected(_))) | None => {
                return Err(io::Error::other("the slot thread died"));
            }
        }
        result.await.map_err(|_| io::Error::other("the slot thread died"))?
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.threads {
            worker.jobs = None;
        }
        for worker in &mut self.threads {
            if let Some(thread) = worker.thread.take() {
                // It ends after the jobs that wait, each of microseconds.
                let _ = thread.join();
            }
        }
    }
}
