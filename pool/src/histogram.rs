//! How long things took, all of them: counts in fixed buckets that can be added up across hosts.

use std::time::Duration;

/// Bounds: powers of two from 64 us to 67 s.
pub const BOUNDS: usize = 21;
/// Exponent of the first bound: 2^6 = 64 us.
const FIRST: u32 = 6;

/// Counts per bucket; bucket `i` holds what took at most `upper_us(i)`, the last one all above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// One more than there are bounds.
    pub counts: [u64; BOUNDS + 1],
    /// How many there are.
    pub count: u64,
    /// All of them together, microseconds.
    pub sum_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BOUNDS + 1], count: 0, sum_us: 0 }
    }
}

impl Histogram {
    /// The upper bounds of all buckets but the last, microseconds, rising.
    #[must_use]
    pub fn upper_us() -> [u64; BOUNDS] {
        let mut exponent = FIRST;
        [(); BOUNDS].map(|()| {
            let bound = 1 << exponent;
            exponent += 1;
            bound
        })
    }

    /// Counts one.
    pub fn add(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // Rounded up to a power of two, its exponent says which bucket.
        let exponent = us.max(1).checked_next_power_of_two().map_or(u64::BITS, u64::trailing_zeros);
        let bucket = (exponent.max(FIRST) - FIRST) as usize;
        self.counts[bucket.min(BOUNDS)] += 1;
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// Their mean; zero when there are none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_micros(self.sum_us.checked_div(self.count).unwrap_or_default())
    }

    /// What `percent` (0 to 100) of them took at most, on a straight line within the bucket. What
    /// lies above all bounds counts as twice the last one; zero when there are none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "buckets are coarser than a float")]
    pub fn percentile(&self, percent: f64) -> Duration {
        let rank = self.count as f64 * percent.clamp(0.0, 100.0) / 100.0;
        let mut below = 0u64;
        let mut lower = 0u64;
        for (index, count) in self.counts.iter().enumerate() {
            let upper = 1u64 << (FIRST as usize + index);
            if *count > 0 && rank <= (below + count) as f64 {
                let share = ((rank - below as f64) / *count as f64).max(0.0);
                let us = lower as f64 + share * (upper - lower) as f64;
                return Duration::from_secs_f64(us / 1e6);
            }
            (below, lower) = (below + count, upper);
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_are_inclusive_and_what_is_above_them_is_counted() {
        let bounds = Histogram::upper_us();
        assert_eq!((bounds[0], bounds[BOUNDS - 1]), (64, 67_108_864));
        let mut histogram = Histogram::default();
        for us in [0, 64, 65, 67_108_864, 67_108_865, u64::MAX] {
            histogram.add(Duration::from_micros(us));
        }
        let at = |bucket: usize| histogram.counts[bucket];
        assert_eq!((at(0), at(1), at(BOUNDS - 1), at(BOUNDS)), (2, 1, 1, 2));
    }

    proptest! {
        #[test]
        fn percentiles_lie_in_the_bucket_of_the_exact_one(
            samples in prop::collection::vec(0u64..100_000_000, 1..200),
            percent in 1f64..100.0,
        ) {
            let mut histogram = Histogram::default();
            for us in &samples { histogram.add(Duration::from_micros(*us)); }
            let mut sorted = samples;
            sorted.sort_unstable();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "small and positive")]
            let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
            let exact = sorted[rank.max(1) - 1].max(1);
            let found = histogram.percentile(percent).as_secs_f64() * 1e6;
            let upper = exact.next_power_of_two().max(64);
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let (low, high) = (if upper == 64 { 0.0 } else { upper as f64 / 2.0 }, upper as f64);
            prop_assert!(found >= low - 0.5 && found <= high + 0.5, "{} {} {}", low, found, high);
        }

        #[test]
        fn merging_is_counting_both(left in prop::collection::vec(any::<u32>(), 0..50), right in prop::collection::vec(any::<u32>(), 0..50)) {
            let of = |samples: &[u32]| {
                let mut histogram = Histogram::default();
                for us in samples { histogram.add(Duration::from_micros(u64::from(*us))); }
                histogram
            };
            let mut merged = of(&left);
            merged.merge(&of(&right));
            prop_assert_eq!(merged, of(&[left, right].concat()));
        }
    }
}
