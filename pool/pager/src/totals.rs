//! What all clones together cost: the counters that sessions and fillers write to.

use std::sync::atomic::{AtomicU64, Ordering};

use pool_remote::Origin;

use crate::{histogram::LatencyCounters, protocol::Totals};

/// Counters of the whole process. Each is exact, all of them together no snapshot.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) faults: AtomicU64,
    pub(crate) latency: LatencyCounters,
    pub(crate) damaged: AtomicU64,
    pub(crate) killed: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    local: AtomicU64,
    cache: AtomicU64,
    remote: AtomicU64,
}

impl Counters {
    /// Counts stored bytes that were read.
    pub(crate) fn read(&self, origin: Origin, bytes: usize) {
        let counter = match origin {
            Origin::Local => &self.local,
            Origin::Cache => &self.cache,
            Origin::Remote => &self.remote,
        };
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn totals(&self) -> Totals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            faults: get(&self.faults),
            latency: self.latency.snapshot(),
            bytes_local: get(&self.local),
            bytes_cache: get(&self.cache),
            bytes_remote: get(&self.remote),
            damaged: get(&self.damaged),
            killed: get(&self.killed),
            faults_in_flight: get(&self.in_flight),
        }
    }
}
