//! What a pool looked like over the last hour: one sample per ten seconds.

use std::collections::VecDeque;

/// Milliseconds between two samples.
pub(crate) const INTERVAL_MS: u64 = 10_000;
/// Samples kept: an hour.
pub(crate) const SAMPLES_MAX: usize = 360;

/// A pool at the end of one interval, and what was counted within it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// The interval's end, milliseconds since 1970.
    pub at_ms: i64,
    /// Ready to be leased.
    pub warm: u32,
    /// Being restored.
    pub restoring: u32,
    /// Lent out.
    pub leased: u32,
    /// Warm ones wanted.
    pub target: u32,
    /// Leases served at once, within the interval.
    pub hits: u64,
    /// Leases that waited, within the interval.
    pub misses: u64,
    /// Leases refused, within the interval.
    pub refused: u64,
}

/// The samples of the last hour. Needs no timer: a pool changes only when its task runs, so what
/// was missed since then looked like the last moment before.
#[derive(Debug, Default)]
pub(crate) struct Series {
    samples: VecDeque<Sample>,
    /// Whole intervals that have been sampled, since the pool's start.
    sampled: u64,
    /// Counters at the last sample.
    counted: (u64, u64, u64),
}

impl Series {
    /// Whether an interval has ended that is not sampled yet.
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        now_ms / INTERVAL_MS > self.sampled
    }

    /// Samples every interval that ended by `now_ms` after the pool's start, which is `unix_ms` on
    /// the wall. `state` is how things stood until now, with counters since the start.
    pub(crate) fn roll(&mut self, now_ms: u64, unix_ms: i64, state: Sample) {
        let ended = now_ms / INTERVAL_MS;
        let kept = ended.saturating_sub(SAMPLES_MAX as u64);
        let (hits, misses, refused) = self.counted;
        // What was counted since the last sample was counted within the first interval missed.
        let mut within = Sample {
            hits: state.hits - hits,
            misses: state.misses - misses,
            refused: state.refused - refused,
            ..state
        };
        if self.sampled < ended {
            self.counted = (state.hits, state.misses, state.refused);
        }
        for interval in self.sampled.max(kept)..ended {
            let ago = now_ms - (interval + 1) * INTERVAL_MS;
            within.at_ms = unix_ms.saturating_sub_unsigned(ago);
            if self.samples.len() == SAMPLES_MAX {
                self.samples.pop_front();
            }
            self.samples.push_back(within);
            within = Sample { hits: 0, misses: 0, refused: 0, ..within };
        }
        self.sampled = self.sampled.max(ended);
    }

    /// Oldest first.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.samples.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(warm: u32, hits: u64) -> Sample {
        Sample { warm, hits, ..Sample::default() }
    }

    #[test]
    fn quiet_intervals_repeat_the_state_and_count_nothing() {
        let mut series = Series::default();
        assert!(!series.is_due(9_999));
        series.roll(9_999, 1_000_009_999, state(2, 5));
        assert_eq!(series.samples(), []);
        series.roll(31_000, 1_000_031_000, state(2, 7));
        series.roll(31_500, 1_000_031_500, state(9, 9));
        let samples = series.samples();
        assert_eq!(samples.len(), 3);
        assert_eq!(samples.iter().map(|s| s.hits).collect::<Vec<_>>(), [7, 0, 0]);
        assert_eq!(samples[0].at_ms, 1_000_010_000);
        assert_eq!(samples[2].at_ms, 1_000_030_000);
        series.roll(40_000, 1_000_040_000, state(1, 9));
        assert_eq!(series.samples()[3], Sample { at_ms: 1_000_040_000, ..state(1, 2) });
    }

    #[test]
    fn an_hour_is_kept() {
        let mut series = Series::default();
        series.roll(10 * 3_600_000, 0, state(1, 3));
        assert_eq!(series.samples().len(), SAMPLES_MAX);
        assert_eq!(series.samples()[SAMPLES_MAX - 1].at_ms, 0);
        assert_eq!(series.samples()[0].at_ms, -3_590_000);
    }
}
