//! How much was read from where, and how long it took.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of the histogram's buckets in microseconds; a last bucket takes the rest.
pub const BUCKET_BOUNDS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 5_000_000, 20_000_000,
];

/// Where blocks came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A layer of this host.
    Local,
    /// The cache of what was brought from the object store before.
    Cache,
    /// The object store.
    Remote,
}

/// Counters of one origin.
#[derive(Debug, Default)]
pub struct OriginStats {
    requests: AtomicU64,
    bytes: AtomicU64,
    micros: AtomicU64,
    buckets: [AtomicU64; BUCKET_BOUNDS_US.len() + 1],
}

impl OriginStats {
    pub(crate) fn record(&self, bytes: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKET_BOUNDS_US.partition_point(|bound| *bound < micros);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// Successful reads.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Stored bytes read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Time of all successful reads together.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }

    /// How many reads took how long: as many as [`BUCKET_BOUNDS_US`] has bounds, and one for the
    /// rest. Not cumulative.
    #[must_use]
    pub fn buckets(&self) -> [u64; BUCKET_BOUNDS_US.len() + 1] {
        std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed))
    }
}

/// What the sources of one process did. Each number is exact, all of them together no snapshot.
#[derive(Debug, Default)]
pub struct SourceStats {
    local: OriginStats,
    cache: OriginStats,
    remote: OriginStats,
    retries: AtomicU64,
    failures: AtomicU64,
    healed: AtomicU64,
}

impl SourceStats {
    /// The counters of one origin.
    #[must_use]
    pub fn origin(&self, origin: Origin) -> &OriginStats {
        match origin {
            Origin::Local => &self.local,
            Origin::Cache => &self.cache,
            Origin::Remote => &self.remote,
        }
    }

    /// Requests to the object store that were made again.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Calls that failed in the end: the object store's, after all attempts, and local reads.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Cached reads that turned out damaged and were fetched again.
    #[must_use]
    pub fn healed(&self) -> u64 {
        self.healed.load(Ordering::Relaxed)
    }

    pub(crate) fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_healed(&self) {
        self.healed.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_read_is_counted_once_in_the_bucket_of_its_time() {
        let stats = SourceStats::default();
        let remote = stats.origin(Origin::Remote);
        remote.record(10, Duration::from_micros(50));
        remote.record(20, Duration::from_micros(51));
        remote.record(30, Duration::from_secs(100));
        let buckets = remote.buckets();
        assert_eq!((buckets[0], buckets[1], buckets[16]), (1, 1, 1));
        assert_eq!(buckets.iter().sum::<u64>(), 3);
        assert_eq!((remote.requests(), remote.bytes()), (3, 60));
        assert_eq!(stats.origin(Origin::Local).requests(), 0);
    }
}
