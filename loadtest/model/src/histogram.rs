//! Durations, counted by size.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Most that is told apart, nanoseconds: two hours. Longer counts as that.
const MAX_NS: u64 = 7_200_000_000_000;
/// Least that is told apart, nanoseconds: finer than the clock is read.
const LEAST_NS: u64 = 64;
/// Digits of a value that are kept: 3 mean an error of at most 0.1 %.
const DIGITS: u8 = 3;

/// Durations of whatever was done many times. Its size depends on the longest of them (8 KiB, and
/// 4 KiB for each doubling over 131 µs), not on how many there are.
///
/// In JSON it is a list of `[nanoseconds, count]`, ascending, one per size that occurred; reading
/// that back loses nothing.
#[derive(Clone)]
pub struct Histogram(hdrhistogram::Histogram<u32>);

impl Default for Histogram {
    fn default() -> Self {
        let histogram = hdrhistogram::Histogram::new_with_bounds(LEAST_NS, 2 * LEAST_NS, DIGITS);
        let mut histogram = histogram.expect("the bounds are constants that it takes");
        histogram.auto(true);
        Self(histogram)
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Histogram").field(&self.summary()).finish()
    }
}

impl PartialEq for Histogram {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, value: Duration) {
        self.record_n(u64::try_from(value.as_nanos()).unwrap_or(MAX_NS), 1);
    }

    /// Counts some of one size, nanoseconds.
    pub fn record_n(&mut self, nanoseconds: u64, count: u64) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        // It grows as far as it has to, so nothing can be refused.
        let _ = self.0.record_n(nanoseconds.clamp(1, MAX_NS), count);
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        // It grows as far as it has to, so nothing can be refused.
        let _ = self.0.add(&other.0);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// How many were counted.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest duration that at least the share `quantile` (0 to 1) of them don't exceed,
    /// milliseconds. 0 if there are none.
    #[must_use]
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { ms(self.0.value_at_quantile(quantile)) }
    }

    /// Sizes and counts, ascending, nanoseconds.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0
            .iter_recorded()
            .map(|found| (found.value_iterated_to(), u64::from(found.count_at_value())))
    }

    /// The usual figures.
    #[must_use]
    pub fn summary(&self) -> Summary {
        if self.0.is_empty() {
            return Summary::default();
        }
        Summary {
            count: self.0.len(),
            min_ms: ms(self.0.min()),
            mean_ms: self.0.mean() / 1e6,
            stddev_ms: self.0.stdev() / 1e6,
            p50_ms: self.quantile_ms(0.5),
            p90_ms: self.quantile_ms(0.9),
            p95_ms: self.quantile_ms(0.95),
            p99_ms: self.quantile_ms(0.99),
            p999_ms: self.quantile_ms(0.999),
            max_ms: ms(self.0.max()),
        }
    }
}

/// What is said of a set of durations, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// The shortest.
    pub min_ms: f64,
    /// Their mean.
    pub mean_ms: f64,
    /// Their standard deviation.
    pub stddev_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 95th percentile.
    pub p95_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

#[allow(clippy::cast_precision_loss)] // 2 h are 7.2e12 ns, far below 2^52
fn ms(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.counts())
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut histogram = Self::default();
        for (nanoseconds, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            if nanoseconds > MAX_NS + MAX_NS / 500 {
                return Err(de::Error::custom(format!(
                    "a duration of {nanoseconds} ns; expected at most {MAX_NS}"
                )));
            }
            histogram.record_n(nanoseconds, count);
        }
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn json_loses_nothing(values in prop::collection::vec(0_u64..MAX_NS * 2, 0..200)) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record(Duration::from_nanos(*value)));
            let json = serde_json::to_string(&histogram).unwrap();
            let back: Histogram = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&back, &histogram);
            prop_assert_eq!(back.summary().count, values.len() as u64);
        }

        #[test]
        fn quantiles_are_within_a_thousandth(mut values in prop::collection::vec(1_u64..MAX_NS, 1..200)) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record(Duration::from_nanos(*value)));
            values.sort_unstable();
            let exact = ms(values[(values.len() - 1) / 2]);
            let told = histogram.quantile_ms(0.5);
            let least = ms(LEAST_NS);
            prop_assert!((told - exact).abs() <= exact * 1.1e-3 + least, "{told} for {exact}");
        }
    }

    #[test]
    fn durations_out_of_bounds_are_refused_by_their_size() {
        let error = serde_json::from_str::<Histogram>("[[99999999999999,1]]").unwrap_err();
        assert!(error.to_string().contains("99999999999999 ns"), "{error}");
    }

    #[test]
    fn nothing_counted_has_figures_of_nothing() {
        assert_eq!(Histogram::default().summary(), Summary::default());
    }
}
