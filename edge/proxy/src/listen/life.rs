//! What all connections share for their life and death.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use edge_policy::{ConnectionGuard, Connections};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::cut::Cut;
use crate::config::Limits;

/// Tokens, places and the tasks that are waited for.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle {
    /// Finish: no new requests.
    pub(crate) drain: CancellationToken,
    /// Stop at once.
    pub(crate) cut: CancellationToken,
    /// Whether connections are accepted; requests on open ones go on if not.
    accepting: Arc<watch::Sender<bool>>,
    pub(crate) tasks: TaskTracker,
    permits: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
    by_address: Arc<Connections>,
    max: usize,
}

/// One of the allowed connections; gives its place back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    _address: ConnectionGuard,
    open: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no place for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// There are as many as may be.
    Full,
    /// Its address has as many as it may have.
    Address,
}

impl Lifecycle {
    pub(crate) fn new(limits: &Limits) -> Self {
        let per_address = u32::try_from(limits.max_connections_per_address).unwrap_or(u32::MAX);
        Self {
            drain: CancellationToken::new(),
            cut: CancellationToken::new(),
            accepting: Arc::new(watch::Sender::new(true)),
            tasks: TaskTracker::new(),
            permits: Arc::new(Semaphore::new(limits.max_connections)),
            open: Arc::new(AtomicUsize::new(0)),
            by_address: Arc::new(Connections::new(per_address)),
            max: limits.max_connections,
        }
    }

    /// Has listeners accept connections, or not for now.
    pub(crate) fn accept(&self, accepting: bool) {
        self.accepting.send_replace(accepting);
    }

    /// Ready while connections are not to be accepted, after the drain began in any case.
    pub(crate) async fn paused(&self) {
        self.until(false).await;
    }

    /// Ready once connections are to be accepted; false if that will not be, for the drain began.
    pub(crate) async fn resumed(&self) -> bool {
        self.until(true).await;
        !self.drain.is_cancelled()
    }

    async fn until(&self, accepting: bool) {
        let mut seen = self.accepting.subscribe();
        tokio::select! {
            () = self.drain.cancelled() => {}
            // It has a sender as long as this lives.
            _ = seen.wait_for(|now| *now == accepting) => {}
        }
    }

    /// A place for one more connection of `address`, if there is one.
    pub(crate) fn place(&self, address: std::net::IpAddr) -> Result<Place, NoPlace> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| NoPlace::Full)?;
        let address = self.by_address.try_open(address).ok_or(NoPlace::Address)?;
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Place { _permit: permit, _address: address, open: Arc::clone(&self.open) })
    }

    /// Whether more than this share of the places is taken, percent.
    pub(crate) fn is_busier_than(&self, percent: u8) -> bool {
        self.open() * 100 > self.max * usize::from(percent)
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Runs a connection: waited for while draining, cut at the end.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(Cut::new(self.cut.clone(), work));
    }
}
