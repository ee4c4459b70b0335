//! What a pool counted, and how long things took.

use std::time::Duration;

/// Samples kept for percentiles: the most recent ones, 8 KiB per series.
const SAMPLES: usize = 1024;

/// A pool at one moment. Counters start at the pool's creation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Ready to be leased.
    pub warm: u32,
    /// Being restored.
    pub restoring: u32,
    /// Lent out.
    pub leased: u32,
    /// Being destroyed.
    pub reaping: u32,
    /// Leases served by a sandbox that was warm when they came.
    pub hits: u64,
    /// Leases that waited for a restore and got one.
    pub misses: u64,
    /// Leases refused.
    pub refused: u64,
    /// Restores that ended well.
    pub restored: u64,
    /// Restores that failed.
    pub failed: u64,
    /// Warm sandboxes reaped by the idle TTL.
    pub reaped_idle: u64,
    /// Leases cut at their limit.
    pub reaped_lease: u64,
    /// Wait from asking to having, median and 99th percentile of the recent ones.
    pub lease_wait: Percentiles,
    /// Restore time, likewise.
    pub restore: Percentiles,
    /// Why the last restore failed; empty after one that did not.
    pub last_error: String,
}

/// Two percentiles of a series; zero when it is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Median.
    pub p50: Duration,
    /// 99th percentile.
    pub p99: Duration,
}

/// The most recent samples of a series.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    samples: Vec<Duration>,
    next: usize,
}

impl Recent {
    pub(crate) fn add(&mut self, sample: Duration) {
        if self.samples.len() < SAMPLES {
            self.samples.push(sample);
        } else {
            self.samples[self.next] = sample;
        }
        self.next = (self.next + 1) % SAMPLES;
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        let at = |percent: usize| {
            sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        };
        Percentiles {
            p50: at(50).copied().unwrap_or_default(),
            p99: at(99).copied().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_recent_samples() {
        let mut recent = Recent::default();
        assert_eq!(recent.percentiles(), Percentiles::default());
        for ms in 1..=100 {
            recent.add(Duration::from_millis(ms));
        }
        assert_eq!(recent.percentiles().p50, Duration::from_millis(51));
        assert_eq!(recent.percentiles().p99, Duration::from_millis(100));
        for _ in 0..SAMPLES {
            recent.add(Duration::from_millis(7));
        }
        assert_eq!(recent.percentiles().p99, Duration::from_millis(7));
    }
}
