//! What is worth saying of a part beyond what every part says.

use std::collections::BTreeMap;

use loadtest_model::{Arrivals, Histogram, Load, Part, Scenario, computesdk_score};

/// A run this long shows whether it drifts, seconds.
const SOAK_S: f64 = 60.0;

/// Adds figures that follow from what was measured.
pub(super) fn add(part: &mut Part, scenario: &Scenario, rounds: u32) {
    match &scenario.load {
        Some(Load::Open { arrivals: Arrivals::Steps { levels }, .. }) => {
            for (index, level) in levels.iter().enumerate() {
                let Some(latency) = part.segments.get(index).filter(|one| !one.is_empty()) else {
                    continue;
                };
                let name = |figure: &str| format!("level{}.{figure}", index + 1);
                part.extra.insert(name("asked_per_s"), level.rate_per_s);
                part.extra.insert(name("p50_ms"), latency.quantile_ms(0.5));
                part.extra.insert(name("p99_ms"), latency.quantile_ms(0.99));
            }
        }
        Some(Load::Staggered { .. }) => {
            let wall_clock_ms = part.duration_s * 1e3 / f64::from(rounds);
            part.extra.insert("wall_clock_ms".to_owned(), wall_clock_ms);
        }
        _ => {}
    }
    if let Some(interactive) = part.timings.get("step.interactive") {
        #[allow(clippy::cast_precision_loss)]
        let share = part.succeeded as f64 / part.sent.max(1) as f64;
        let score = computesdk_score(interactive, share);
        part.extra.insert("computesdk_score".to_owned(), score);
    }
    if part.duration_s >= SOAK_S {
        drift(&part.segments, &mut part.extra);
    }
}

/// How the median of the last quarter differs from the first's, in percent of the first's.
fn drift(segments: &[Histogram], extra: &mut BTreeMap<String, f64>) {
    let quarter = segments.len() / 4;
    if quarter == 0 {
        return;
    }
    let median = |of: &[Histogram]| {
        let mut all = Histogram::default();
        of.iter().for_each(|one| all.merge(one));
        all.quantile_ms(0.5)
    };
    let (first, last) =
        (median(&segments[..quarter]), median(&segments[segments.len() - quarter..]));
    if first > 0.0 {
        extra.insert("drift_p50_percent".to_owned(), (last / first - 1.0) * 100.0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn drift_compares_the_last_quarter_with_the_first() {
        let segments: Vec<_> = (0..20_u64)
            .map(|index| {
                let mut histogram = Histogram::default();
                histogram.record(Duration::from_millis(if index < 10 { 100 } else { 150 }));
                histogram
            })
            .collect();
        let mut extra = BTreeMap::new();
        drift(&segments, &mut extra);
        assert!((extra["drift_p50_percent"] - 50.0).abs() < 0.5, "{extra:?}");
        drift(&[], &mut extra);
    }
}
