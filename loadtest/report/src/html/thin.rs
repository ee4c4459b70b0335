//! Fewer points than were measured, without losing the worst of them.

use loadtest_model::{PoolSample, Tick};

/// At most `most` ticks in order; each stands for as many as were joined.
///
/// Counts and lengths are added, the slowest tail stays, and the median is the mean of the medians
/// that there were.
pub(super) fn thin_ticks(ticks: &[Tick], most: usize) -> Vec<Tick> {
    let mut ticks: Vec<Tick> = ticks
        .iter()
        .filter(|tick| tick.at_s.is_finite() && tick.length_s.is_finite())
        .copied()
        .collect();
    ticks.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    let group = ticks.len().div_ceil(most.max(1)).max(1);
    ticks.chunks(group).map(join).collect()
}

fn join(ticks: &[Tick]) -> Tick {
    let mut joined = Tick::default();
    let (mut medians, mut weight) = (0.0, 0.0);
    for (at, tick) in ticks.iter().enumerate() {
        if at == 0 {
            joined.at_s = tick.at_s;
        }
        joined.length_s += tick.length_s;
        joined.planned += tick.planned;
        joined.succeeded += tick.succeeded;
        joined.failed += tick.failed;
        joined.p99_ms = joined.p99_ms.max(tick.p99_ms);
        joined.in_flight = joined.in_flight.max(tick.in_flight);
        if tick.p50_ms > 0.0 {
            medians += tick.p50_ms;
            weight += 1.0;
        }
    }
    joined.p50_ms = if weight > 0.0 { medians / weight } else { 0.0 };
    joined
}

/// At most `most` samples in order; of those that are joined, the one with the fewest warm stays.
pub(super) fn thin_pool(samples: &[PoolSample], most: usize) -> Vec<PoolSample> {
    let mut samples: Vec<PoolSample> =
        samples.iter().filter(|sample| sample.at_s.is_finite()).copied().collect();
    samples.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    let group = samples.len().div_ceil(most.max(1)).max(1);
    samples
        .chunks(group)
        .filter_map(|group| group.iter().min_by_key(|sample| sample.warm).copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_ticks_keep_their_counts_and_their_worst() {
        let tick = |at: u32| Tick {
            at_s: f64::from(at),
            length_s: 1.0,
            planned: 3,
            succeeded: 2,
            failed: 1,
            p50_ms: 4.0,
            p99_ms: if at == 517 { 900.0 } else { 9.0 },
            in_flight: 1,
        };
        let ticks: Vec<Tick> = (0..1003).map(tick).collect();
        let thin = thin_ticks(&ticks, 200);
        assert!(thin.len() <= 200, "{}", thin.len());
        assert_eq!(thin.iter().map(|tick| tick.planned).sum::<u64>(), 3009);
        assert!(thin.iter().any(|tick| tick.p99_ms >= 900.0));
        assert!(thin.iter().all(|tick| (tick.p50_ms - 4.0).abs() < 1e-9));
        assert_eq!(thin_ticks(&ticks[..50], 200), ticks[..50]);
        assert_eq!(thin_ticks(&[], 200), []);
    }

    #[test]
    fn an_empty_pool_is_not_thinned_away() {
        let sample = |at: u32| PoolSample {
            at_s: f64::from(at),
            warm: u32::from(at != 5),
            ..PoolSample::default()
        };
        let samples: Vec<_> = (0..1000).map(sample).collect();
        let thin = thin_pool(&samples, 100);
        assert!(thin.len() <= 100 && thin.iter().any(|sample| sample.warm == 0));
    }
}
