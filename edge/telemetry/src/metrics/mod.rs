//! The edge's metrics: counted per worker, added up when they are asked for.
//!
//! `prometheus-client` keeps names, help and text format; what a request touches are plain atomics of
//! its own worker, so that no two threads write to one cache line.

mod guard;
mod labels;
mod scrape;
mod shard;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use prometheus_client::{encoding::text, registry::Registry};

pub(crate) use self::shard::Shard;
use self::{guard::Open, scrape::Scrape};
pub use self::{
    guard::{ConnectionGuard, TunnelGuard},
    labels::{HandshakeFailure, Limit, Refused, UpstreamError},
};
use crate::record::Protocol;

/// What others know and is asked for when metrics are: name without prefix, help, value.
pub type Gauges = Box<dyn Fn() -> Vec<(&'static str, &'static str, i64)> + Send + Sync>;
/// The same for numbers that only grow; names without prefix and without `_total`.
pub type Counters = Box<dyn Fn() -> Vec<(&'static str, &'static str, u64)> + Send + Sync>;

/// The same for limits that are counted where they are met.
pub type Limits = Box<dyn Fn() -> Vec<(Limit, u64)> + Send + Sync>;

/// All counts of the process.
pub struct Metrics {
    shards: Vec<Arc<Shard>>,
    connections: [Open; Protocol::ALL.len()],
    tunnels: Open,
    limits: [AtomicU64; Limit::ALL.len()],
    /// Full ones, resumed ones.
    handshakes: [AtomicU64; 2],
    handshake_failures: [AtomicU64; HandshakeFailure::ALL.len()],
    gauges: Mutex<Vec<Gauges>>,
    counters: Mutex<Vec<Counters>>,
    limit_sources: Mutex<Vec<Limits>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

impl Metrics {
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..workers.max(1)).map(|_| Arc::default()).collect(),
            connections: Default::default(),
            tunnels: Open::default(),
            limits: [const { AtomicU64::new(0) }; Limit::ALL.len()],
            handshakes: Default::default(),
            handshake_failures: Default::default(),
            gauges: Mutex::default(),
            counters: Mutex::default(),
            limit_sources: Mutex::default(),
        })
    }

    pub(crate) fn shard(&self, worker: usize) -> Arc<Shard> {
        Arc::clone(&self.shards[worker % self.shards.len()])
    }

    /// A limit was met.
    pub fn count_limit(&self, limit: Limit) {
        self.limits[limit as usize].fetch_add(1, Relaxed);
    }

    /// A TLS handshake ended well.
    pub fn count_handshake(&self, resumed: bool) {
        self.handshakes[usize::from(resumed)].fetch_add(1, Relaxed);
    }

    /// A TLS handshake failed.
    pub fn count_handshake_failure(&self, reason: HandshakeFailure) {
        self.handshake_failures[reason as usize].fetch_add(1, Relaxed);
    }

    /// Counts a connection as open until the guard is dropped.
    pub fn connection(self: &Arc<Self>, protocol: Protocol) -> ConnectionGuard {
        ConnectionGuard::new(self, protocol)
    }

    /// Counts a tunnel as open until the guard is dropped.
    pub fn tunnel(self: &Arc<Self>) -> TunnelGuard {
        TunnelGuard::new(self)
    }

    /// Adds numbers that are known elsewhere. A name that is taken already is left out of the text,
    /// which would be void otherwise.
    pub fn add_gauges(&self, gauges: Gauges) {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner).push(gauges);
    }

    /// Adds numbers that are known elsewhere and only grow. A name that is taken already is left out.
    pub fn add_counters(&self, counters: Counters) {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).push(counters);
    }

    /// Adds counts of limits that are kept elsewhere.
    pub fn add_limits(&self, limits: Limits) {
        self.limit_sources.lock().unwrap_or_else(PoisonError::into_inner).push(limits);
    }

    /// How often each limit was met, here and elsewhere.
    fn limit_counts(&self) -> Vec<(&'static str, u64)> {
        let mut counts: Vec<u64> = self.limits.iter().map(|count| count.load(Relaxed)).collect();
        let sources = self.limit_sources.lock().unwrap_or_else(PoisonError::into_inner);
        for (limit, count) in sources.iter().flat_map(|source| source()) {
            counts[limit as usize] += count;
        }
        drop(sources);
        Limit::ALL.iter().map(|limit| limit.as_str()).zip(counts).collect()
    }

    /// The text that Prometheus scrapes (OpenMetrics 1.0).
    #[must_use]
    pub fn encode(self: &Arc<Self>) -> String {
        let mut registry = Registry::with_prefix("wrenn_edge");
        registry.register_collector(Box::new(Scrape(Arc::clone(self))));
        let mut text = String::with_capacity(16 * 1024);
        if text::encode(&mut text, &registry).is_err() {
            text.clear(); // writing to a string does not fail
        }
        text
    }

    fn sum(&self, of: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.shards.iter().map(|shard| of(shard).load(Relaxed)).sum()
    }
}
