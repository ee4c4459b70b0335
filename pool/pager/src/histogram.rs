//! How long faults take: counters in powers of two of a microsecond.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Buckets: up to 1 µs, 2 µs, 4 µs, … 2^24 µs (16.8 s), and everything longer.
pub const LATENCY_BUCKETS: usize = 26;

/// A distribution of times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// How many took at most 2^i µs and longer than the bucket before; the last has no bound.
    pub buckets: [u64; LATENCY_BUCKETS],
    /// Their sum in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// The longest time of bucket `index` in microseconds; `None` for the last.
    #[must_use]
    pub fn bound_us(index: usize) -> Option<u64> {
        (index + 1 < LATENCY_BUCKETS).then(|| 1 << index)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The bound in microseconds of the bucket that the `share` of the times (0 to 1) ends in: at
    /// most twice what it really is. 0 if there are none, the last bound if it is beyond all.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        reason = "counts below 2^52 are exact, and beyond it nobody can tell"
    )]
    pub fn quantile_us(&self, share: f64) -> u64 {
        let wanted = self.count() as f64 * share;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= wanted {
                return Self::bound_us(index).unwrap_or(1 << (LATENCY_BUCKETS - 2));
            }
        }
        0
    }
}

/// A [`Histogram`] that all sessions write to.
#[derive(Debug, Default)]
pub(crate) struct LatencyCounters {
    buckets: [AtomicU64; LATENCY_BUCKETS],
    sum_us: AtomicU64,
}

impl LatencyCounters {
    /// Counts one. Allocates nothing.
    pub(crate) fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // The exponent of the power of two at or above it.
        let exponent = u64::BITS - time_ceiling(time, micros).saturating_sub(1).leading_zeros();
        let index = usize::try_from(exponent).unwrap_or(usize::MAX).min(LATENCY_BUCKETS - 1);
        self.buckets[index].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Histogram {
        Histogram {
            buckets: std::array::from_fn(|index| self.buckets[index].load(Ordering::Relaxed)),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

/// Microseconds rounded up: 1.2 µs is longer than 1 µs.
fn time_ceiling(time: Duration, micros: u64) -> u64 {
    micros.saturating_add(u64::from(!time.subsec_nanos().is_multiple_of(1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_in_its_own_bucket_and_a_nanosecond_more_in_the_next() {
        for index in 0..LATENCY_BUCKETS - 1 {
            let bound = Duration::from_micros(Histogram::bound_us(index).unwrap());
            let counters = LatencyCounters::default();
            counters.record(bound);
            counters.record(bound + Duration::from_nanos(1));
            let found = counters.snapshot();
            assert_eq!((found.buckets[index], found.buckets[index + 1]), (1, 1), "{bound:?}");
        }
        assert_eq!(Histogram::bound_us(LATENCY_BUCKETS - 1), None);
    }

    #[test]
    fn extremes_are_counted_too() {
        let counters = LatencyCounters::default();
        counters.record(Duration::ZERO);
        counters.record(Duration::MAX);
        let found = counters.snapshot();
        assert_eq!((found.buckets[0], found.buckets[LATENCY_BUCKETS - 1]), (1, 1));
        assert_eq!(found.count(), 2);
    }

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        assert_eq!(Histogram::default().quantile_us(0.5), 0);
        let counters = LatencyCounters::default();
        (0..98).for_each(|_| counters.record(Duration::from_micros(30)));
        (0..2).for_each(|_| counters.record(Duration::from_millis(5)));
        let found = counters.snapshot();
        assert_eq!((found.quantile_us(0.5), found.quantile_us(0.99)), (32, 8192));
        assert_eq!(found.sum_us, 98 * 30 + 10_000);
    }
}
