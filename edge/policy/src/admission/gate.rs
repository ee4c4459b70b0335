//! Who of those who wait is next? The places and the queue of one function, team or host.

use std::{collections::BTreeMap, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{Gates, Place, Scope};

/// Bounds of what a refused caller is told to wait.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The share that a new service time has in the average, as a divisor.
const AVERAGE_OVER: u32 = 8;

/// Places and queue. Pure: the lock is the shard's.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    limit: u32,
    running: u32,
    next: u64,
    // By number, so that anyone can leave at small cost however many wait.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
    service: Option<Duration>,
}

impl Entry {
    pub(crate) fn load(&self) -> (u32, usize) {
        (self.running, self.waiting.len())
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }

    /// Sets the limit (0: none) and lets in whom it has place for now.
    pub(crate) fn set_limit(&mut self, limit: u32) {
        if self.limit != limit {
            self.limit = limit;
            self.grant();
        }
    }

    /// Takes a place, if one is free and nobody waits for it.
    pub(crate) fn try_take(&mut self) -> bool {
        let free = self.waiting.is_empty() && self.has_place();
        self.running += u32::from(free);
        free
    }

    /// Joins the queue; `None` if it is full.
    pub(crate) fn queue(&mut self, max: u32) -> Option<(u64, oneshot::Receiver<()>)> {
        if self.waiting.len() >= usize::try_from(max).unwrap_or(usize::MAX) {
            return None;
        }
        let (granted, signal) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, granted);
        Some((number, signal))
    }

    /// A request ended after `served`, or gave its place back unused.
    pub(crate) fn leave(&mut self, served: Option<Duration>) {
        self.running = self.running.saturating_sub(1);
        if let Some(served) = served {
            let rest = AVERAGE_OVER - 1;
            let average = self.service.map_or(served, |old| (old * rest + served) / AVERAGE_OVER);
            self.service = Some(average);
        }
        self.grant();
    }

    /// Leaves the queue, or gives the place back if it was granted meanwhile.
    pub(crate) fn abandon(&mut self, number: u64) {
        if self.waiting.remove(&number).is_none() {
            self.leave(None);
        }
    }

    /// When the queue as it is should be through.
    pub(crate) fn retry_after(&self) -> Duration {
        let places = self.limit.max(1);
        let turns = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX).div_ceil(places).max(1);
        let service = self.service.unwrap_or(RETRY_MIN);
        service.saturating_mul(turns).clamp(RETRY_MIN, RETRY_MAX)
    }

    fn has_place(&self) -> bool {
        self.limit == 0 || self.running < self.limit
    }

    fn grant(&mut self) {
        while self.has_place() {
            let Some((_, granted)) = self.waiting.pop_first() else { return };
            // A ticket leaves the queue before its receiver goes, so this reaches somebody.
            self.running += u32::from(granted.send(()).is_ok());
        }
    }
}

/// One who waits; dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Ticket {
    gates: Gates,
    scope: Scope,
    number: u64,
    signal: oneshot::Receiver<()>,
    done: bool,
}

impl Ticket {
    pub(crate) fn new(
        gates: Gates,
        scope: Scope,
        number: u64,
        signal: oneshot::Receiver<()>,
    ) -> Self {
        Self { gates, scope, number, signal, done: false }
    }

    /// Waits until the place is granted. Cancel-safe.
    pub(crate) async fn granted(&mut self) {
        // The sender is only dropped by `abandon`, which only this ticket's drop calls.
        let _ = (&mut self.signal).await;
    }

    pub(crate) fn into_place(mut self) -> Place {
        self.done = true;
        let since = Instant::now();
        Place { gates: self.gates.clone(), scope: self.scope, since, until: None }
    }

    pub(crate) fn retry_after(&self) -> Duration {
        let shard = self.gates.0.lock(&self.scope);
        shard.get(&self.scope).map_or(RETRY_MIN, Entry::retry_after)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.done {
            self.gates.change(self.scope, |entry| entry.abandon(self.number));
        }
    }
}
