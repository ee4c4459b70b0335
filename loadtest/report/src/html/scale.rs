//! From values to places on an axis, and the ticks that people can read.

/// How values are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spread {
    Linear,
    Log,
}

/// One axis.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    spread: Spread,
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    /// Where ticks are.
    pub(super) ticks: Vec<f64>,
}

/// Smallest value that a logarithmic axis shows: a nanosecond, in milliseconds.
const LOG_MIN: f64 = 1e-6;

impl Scale {
    /// From 0 to at least `most`, with ticks at round values.
    pub(super) fn linear(most: f64, start: f64, end: f64) -> Self {
        let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
        let step = nice(most / 4.0);
        let steps = (most / step - 1e-9).ceil().max(1.0);
        let ticks = (0..=crate::figure::index(steps)).map(|at| at as f64 * step).collect();
        Self { spread: Spread::Linear, from: 0.0, to: steps * step, start, end, ticks }
    }

    /// From 0 to `most` and no further: for bars, whose axis may end anywhere.
    pub(super) fn tight(most: f64, start: f64, end: f64) -> Self {
        let mut scale = Self::linear(most, start, end);
        if most.is_finite() && most > 0.0 {
            scale.to = most;
        }
        scale.ticks.retain(|tick| *tick <= scale.to);
        scale
    }

    /// From 0 to `most` seconds, with ticks that clocks have.
    pub(super) fn seconds(most: f64, start: f64, end: f64) -> Self {
        const STEPS: [f64; 15] = [
            0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
            3600.0,
        ];
        let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
        let fits = |step: &f64| most / step <= 6.5;
        let step = STEPS.into_iter().find(fits).unwrap_or_else(|| nice(most / 5.0));
        let last = crate::figure::index(most / step + 1e-9);
        let ticks = (0..=last).map(|at| at as f64 * step).collect();
        Self { spread: Spread::Linear, from: 0.0, to: most, start, end, ticks }
    }

    /// Between two positive values, logarithmic, widened to round ones.
    pub(super) fn log(least: f64, most: f64, start: f64, end: f64) -> Self {
        let least = if least.is_finite() { least.max(LOG_MIN) } else { LOG_MIN };
        let most = if most.is_finite() { most.max(least * 1.01) } else { least * 10.0 };
        let all: Vec<f64> = (-6..=9)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
            .collect();
        let from = all.iter().copied().rfind(|tick| *tick <= least * 1.001).unwrap_or(LOG_MIN);
        let to = all.iter().copied().find(|tick| *tick >= most * 0.999).unwrap_or(most);
        let to = if to > from { to } else { from * 10.0 };
        let every = if to / from > 150.0 { 3 } else { 1 };
        let inside = |tick: &f64| *tick >= from * 0.999 && *tick <= to * 1.001;
        let mut ticks: Vec<f64> = all.into_iter().step_by(every).filter(inside).collect();
        while ticks.len() > 7 {
            ticks = ticks.into_iter().step_by(2).collect();
        }
        Self { spread: Spread::Log, from, to, start, end, ticks }
    }

    /// From 0 to `most` with the given ticks.
    pub(super) fn with_ticks(most: f64, ticks: Vec<f64>, start: f64, end: f64) -> Self {
        let to = if most.is_finite() && most > 0.0 { most } else { 1.0 };
        Self { spread: Spread::Linear, from: 0.0, to, start, end, ticks }
    }

    /// Where a value is; what is off the axis is at its end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = match self.spread {
            Spread::Linear => (value - self.from) / (self.to - self.from),
            Spread::Log => (value.max(LOG_MIN) / self.from).ln() / (self.to / self.from).ln(),
        };
        let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
        self.start + share * (self.end - self.start)
    }

    /// The largest value on it.
    pub(super) fn most(&self) -> f64 {
        self.to
    }
}

/// The next of 1, 2, 5, 10 … that is at least as large.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * power >= value * 0.999);
    digit.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(Scale::linear(173.0, 0.0, 1.0).ticks, [0.0, 50.0, 100.0, 150.0, 200.0]);
        assert_eq!(Scale::seconds(60.0, 0.0, 1.0).ticks, [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        assert_eq!(Scale::log(1.2, 48.0, 0.0, 1.0).ticks, [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
        assert_eq!(Scale::log(0.9, 4000.0, 0.0, 1.0).ticks, [1.0, 10.0, 100.0, 1000.0]);
    }

    proptest! {
        #[test]
        fn every_place_is_on_the_axis(a in any::<f64>(), b in any::<f64>(), value in any::<f64>()) {
            let scales = [
                Scale::linear(a, 10.0, 90.0),
                Scale::tight(a, 10.0, 90.0),
                Scale::seconds(a, 10.0, 90.0),
                Scale::log(a, b, 10.0, 90.0),
                Scale::with_ticks(a, Vec::new(), 10.0, 90.0),
            ];
            for scale in scales {
                prop_assert!((10.0..=90.0).contains(&scale.at(value)), "{scale:?} {value}");
                prop_assert!(scale.ticks.len() <= 9, "{scale:?}");
            }
        }
    }
}
