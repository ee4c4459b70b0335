//! How do packets reach older generations of this edge that still serve their last connections?
//!
//! An elder listens on one Unix datagram socket per worker. Here each of those has a bounded queue and a task that
//! sends from it, since the kernel's own queue is short (`net.unix.max_dgram_qlen`, often 10 messages).

use std::io;
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::UnixDatagram;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// Most old generations that can be served at once.
pub const ELDERS_MAX: usize = 8;
/// Messages that wait for one worker of an elder.
const QUEUE: usize = 256;
/// How long one message may wait for room in the elder's socket; then it is lost, as on any full link.
const SEND_WAIT: Duration = Duration::from_millis(500);
/// How often an idle lane looks whether its elder still lives.
const PROBE: Duration = Duration::from_secs(5);

/// An older generation that still drains, and where its packets are to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elder {
    /// Its generation, as its connection ids carry it.
    pub generation: u16,
    /// Its Unix datagram sockets, by worker.
    pub sockets: Vec<PathBuf>,
}

/// Why an elder was not taken on.
#[derive(Debug, thiserror::Error)]
pub enum ElderError {
    /// There are [`ELDERS_MAX`] already.
    #[error("{ELDERS_MAX} old generations drain already")]
    TooMany,
    /// This generation is ours, or was added before.
    #[error("generation {0} is known already")]
    Known(u16),
    /// Its socket does not answer: the process is gone.
    #[error("cannot reach the old generation at {path}")]
    Unreachable {
        /// The socket's path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Called outside a tokio runtime, which has to run the sending tasks.
    #[error("no runtime to send from")]
    NoRuntime,
}

impl ElderError {
    /// Whether its process has ended: it has no connection whose packets could be missed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if is_gone(source))
    }
}

/// Elders that were not taken on, all for the same cause.
#[derive(Debug)]
pub struct Refused {
    /// Why the first of them was not.
    pub error: ElderError,
    /// Their generations.
    pub generations: Vec<u16>,
}

impl Refused {
    /// Puts a refusal to those of its cause.
    pub(crate) fn note(refused: &mut Vec<Self>, error: ElderError, generation: u16) {
        let cause = std::mem::discriminant(&error);
        match refused.iter_mut().find(|known| std::mem::discriminant(&known.error) == cause) {
            Some(known) => known.generations.push(generation),
            None => refused.push(Self { error, generations: vec![generation] }),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Elders(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    list: RwLock<Vec<Served>>,
    /// Length of the list, so that a process without elders never locks.
    len: AtomicUsize,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Served {
    elder: Elder,
    lanes: Vec<mpsc::Sender<Vec<u8>>>,
    /// They end with the entry.
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Elders {
    pub(crate) fn add(&self, elder: Elder) -> Result<(), ElderError> {
        let runtime = Handle::try_current().map_err(|_| ElderError::NoRuntime)?;
        let mut sockets = Vec::new();
        for path in &elder.sockets {
            let socket = connect(path)
                .and_then(UnixDatagram::from_std)
                .map_err(|source| ElderError::Unreachable { path: path.clone(), source })?;
            sockets.push((socket, path.clone()));
        }
        let mut list = self.0.list.write().unwrap_or_else(PoisonError::into_inner);
        if list.iter().any(|served| served.elder.generation == elder.generation) {
            return Err(ElderError::Known(elder.generation));
        }
        if list.len() >= ELDERS_MAX {
            return Err(ElderError::TooMany);
        }
        let (mut lanes, mut tasks) = (Vec::new(), Vec::new());
        for (socket, path) in sockets {
            let (lane, queue) = mpsc::channel(QUEUE);
            let inner = Arc::downgrade(&self.0);
            let task = pump(queue, socket, path, elder.generation, inner);
            tasks.push(AbortOnDropHandle::new(runtime.spawn(task)));
            lanes.push(lane);
        }
        list.push(Served { elder, lanes, _tasks: tasks });
        self.0.len.store(list.len(), Ordering::Release);
        Ok(())
    }

    /// Those that still live: one that has ended stays in the list until an idle lane looks.
    pub(crate) fn living(&self) -> Vec<Elder> {
        let list = self.0.list.read().unwrap_or_else(PoisonError::into_inner);
        let lives = |elder: &Elder| {
            !elder.sockets.iter().any(|path| connect(path).is_err_and(|error| is_gone(&error)))
        };
        list.iter().map(|served| &served.elder).filter(|elder| lives(elder)).cloned().collect()
    }

    pub(crate) fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Whether `worker` of `generation` can be sent to.
    pub(crate) fn knows(&self, generation: u16, worker: u8) -> bool {
        self.lane(generation, worker).is_some()
    }

    /// Queues `message`; false if the queue is full or the elder is gone.
    pub(crate) fn send(&self, generation: u16, worker: u8, message: Vec<u8>) -> bool {
        self.lane(generation, worker).is_some_and(|lane| lane.try_send(message).is_ok())
    }

    fn lane(&self, generation: u16, worker: u8) -> Option<mpsc::Sender<Vec<u8>>> {
        if self.0.len.load(Ordering::Acquire) == 0 {
            return None;
        }
        let list = self.0.list.read().unwrap_or_else(PoisonError::into_inner);
        let served = list.iter().find(|served| served.elder.generation == generation)?;
        served.lanes.get(usize::from(worker)).cloned()
    }
}

impl Inner {
    fn remove(&self, generation: u16) {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        list.retain(|served| served.elder.generation != generation);
        self.len.store(list.len(), Ordering::Release);
    }
}

fn connect(path: &Path) -> io::Result<StdDatagram> {
    let socket = StdDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

/// Sends what is queued until the elder or the queue is gone. Owned by the entry in the list.
async fn pump(
    mut queue: mpsc::Receiver<Vec<u8>>,
    socket: UnixDatagram,
    path: PathBuf,
    generation: u16,
    elders: Weak<Inner>,
) {
    loop {
        match timeout(PROBE, queue.recv()).await {
            Ok(None) => return,
            Ok(Some(message)) => match timeout(SEND_WAIT, socket.send(&message)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) if is_gone(&error) => break,
                Ok(Err(_)) | Err(_) => {
                    if let Some(elders) = elders.upgrade() {
                        elders.lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            },
            Err(_) if connect(&path).is_err() => break,
            Err(_) => {}
        }
    }
    tracing::debug!(generation, "an old generation is gone");
    if let Some(elders) = elders.upgrade() {
        elders.remove(generation);
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected, NotFound};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionRefused | ConnectionReset | NotConnected | NotFound
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elder(directory: &Path, generation: u16) -> (Elder, StdDatagram) {
        let path = directory.join(format!("{generation}.sock"));
        let socket = StdDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (Elder { generation, sockets: vec![path] }, socket)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_burst_longer_than_the_kernels_queue_arrives_whole() {
        let directory = tempfile::tempdir().unwrap();
        let (elder, socket) = elder(directory.path(), 3);
        let elders = Elders::default();
        elders.add(elder).unwrap();
        for n in 0..100_u8 {
            assert!(elders.send(3, 0, vec![n]));
        }
        let received = tokio::task::spawn_blocking(move || {
            let mut buf = [0; 8];
            (0..100).map(|_| socket.recv(&mut buf).map(|_| buf[0]).unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(received.await.unwrap(), (0..100).collect::<Vec<_>>());
        assert_eq!(elders.lost(), 0);
    }

    #[tokio::test]
    async fn an_elder_that_is_gone_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let (elder, socket) = elder(directory.path(), 3);
        let elders = Elders::default();
        elders.add(elder.clone()).unwrap();
        assert!(elders.knows(3, 0) && !elders.knows(3, 1) && !elders.knows(4, 0));
        assert_eq!(elders.living(), std::slice::from_ref(&elder));
        drop(socket);
        assert_eq!(elders.living(), [], "a successor does not hear of it");
        elders.send(3, 0, vec![1]);
        let forgotten = timeout(Duration::from_secs(10), async {
            while elders.knows(3, 0) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        forgotten.await.unwrap();
        assert!(matches!(elders.add(elder), Err(ElderError::Unreachable { .. })));
    }

    #[tokio::test]
    async fn nine_elders_or_the_same_twice_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let elders = Elders::default();
        let mut kept = Vec::new();
        for generation in 0..8 {
            let (elder, socket) = elder(directory.path(), generation);
            kept.push(socket);
            elders.add(elder).unwrap();
        }
        assert!(matches!(elders.add(elders.living()[2].clone()), Err(ElderError::Known(2))));
        let (ninth, _socket) = elder(directory.path(), 9);
        assert!(matches!(elders.add(ninth), Err(ElderError::TooMany)));
    }

    #[tokio::test]
    async fn a_queue_nobody_empties_fills_up_and_refuses() {
        let directory = tempfile::tempdir().unwrap();
        let (elder, _socket) = elder(directory.path(), 3);
        let elders = Elders::default();
        elders.add(elder).unwrap();
        // The task does not run while this one does not wait.
        let taken = (0..QUEUE * 2).filter(|_| elders.send(3, 0, vec![0])).count();
        assert_eq!(taken, QUEUE);
    }
}
