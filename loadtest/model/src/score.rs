//! Scores that others publish, so that ours can stand beside them.

use crate::Histogram;

/// What scores nothing, milliseconds.
const CEILING_MS: f64 = 10_000.0;

/// The composite score of [ComputeSDK's benchmarks](https://github.com/computesdk/benchmarks)
/// (METHODOLOGY.md, "Composite Score"): 0 to 100, more is better.
///
/// Of the times that succeeded, the shortest and the longest 5 % are left out. Median (0.60), 95th
/// (0.25) and 99th percentile (0.15) of the rest each score 100 at 0 s down to 0 at 10 s, and all
/// of it is multiplied by the share of runs that succeeded. 0 if none did.
#[must_use]
pub fn computesdk_score(successes: &Histogram, success_share: f64) -> f64 {
    let trim = successes.len() / 20;
    let kept = successes.len() - 2 * trim;
    if kept == 0 {
        return 0.0;
    }
    let at = |index| ms_at(successes, trim + index);
    let median = f64::midpoint(at((kept - 1) / 2), at(kept / 2));
    let percentile = |percent: u64| at((kept * percent).div_ceil(100) - 1);
    let score = |ms: f64| (100.0 * (1.0 - ms / CEILING_MS)).max(0.0);
    let timing = 0.60 * score(median) + 0.25 * score(percentile(95)) + 0.15 * score(percentile(99));
    timing * success_share.clamp(0.0, 1.0)
}

/// The time that so many are shorter than, milliseconds.
#[allow(clippy::cast_precision_loss)] // a histogram's longest is far below 2^52 ns
fn ms_at(times: &Histogram, index: u64) -> f64 {
    let mut passed = 0;
    let found = times.counts().find(|(_, count)| {
        passed += count;
        passed > index
    });
    found.map_or(0.0, |(nanoseconds, _)| nanoseconds as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn times(all: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        all.into_iter().for_each(|ms| histogram.record(Duration::from_millis(ms)));
        histogram
    }

    /// Computed by hand; times are kept to a thousandth.
    #[track_caller]
    fn assert_score(times: &Histogram, share: f64, expected: f64) {
        let found = computesdk_score(times, share);
        assert!((found - expected).abs() < 0.05, "{found}, not {expected}");
    }

    #[test]
    fn equal_times_score_their_distance_from_the_ceiling() {
        assert_score(&times([200; 100]), 1.0, 98.0);
        assert_score(&times([4000; 100]), 1.0, 60.0);
        assert_score(&times([4000]), 1.0, 60.0);
        assert_score(&times([12_000; 10]), 1.0, 0.0);
    }

    #[test]
    fn percentiles_are_of_what_is_left() {
        // 100 ms to 10 s: 600 ms to 9.5 s are left, 90 of them. Median (5000 + 5100) / 2 = 5050,
        // 95th the 86th = 9100, 99th the 90th = 9500: 0.6 * 49.5 + 0.25 * 9 + 0.15 * 5.
        assert_score(&times((1..=100).map(|n| n * 100)), 1.0, 32.7);
        // Of 10 nothing is left out: median 1050, 95th and 99th the longest, 6000.
        let ten = [100, 1000, 1000, 1000, 1000, 1100, 1100, 1100, 1100, 6000];
        assert_score(&times(ten), 1.0, 0.6 * 89.5 + 0.4 * 40.0);
        // Of 20 the two at the ends are.
        let ends = [1, 9999].into_iter().chain([1000; 18]);
        assert_score(&times(ends), 1.0, 90.0);
    }

    #[test]
    fn failures_cost_their_share() {
        assert_score(&times([200; 50]), 0.5, 49.0);
        assert_score(&Histogram::default(), 0.0, 0.0);
    }
}
