//! How long is the pause before the next attempt?

use std::time::Duration;

use rand::Rng as _;

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// The pause after the attempt of this number (the first is 1): `first`, doubled for every one
/// before it, at most 5 minutes, of which the upper half is left to chance, so that what failed
/// together does not come again together.
pub(crate) fn pause(first: Duration, attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1).min(31);
    let whole = first.saturating_mul(1 << doublings).min(PAUSE_MAX);
    whole.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// What a `Retry-After` asks for, within bounds.
pub(crate) fn at_least(pause: Duration, asked: Option<Duration>) -> Duration {
    asked.map_or(pause, |asked| pause.max(asked.min(PAUSE_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes_and_are_left_to_chance_by_half() {
        let second = Duration::from_secs(1);
        for (attempt, whole) in [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (u32::MAX, 300)] {
            for _ in 0..100 {
                let pause = pause(second, attempt).as_secs_f64();
                assert!(pause <= f64::from(whole) && pause >= f64::from(whole) / 2.0, "{pause}");
            }
        }
        assert_eq!(pause(Duration::ZERO, 5), Duration::ZERO);
        let spread: std::collections::HashSet<_> = (0..20).map(|_| pause(second, 1)).collect();
        assert!(spread.len() > 1);
        assert_eq!(at_least(second, Some(second * 2)), second * 2);
        assert_eq!(at_least(second, Some(Duration::ZERO)), second);
        assert_eq!(at_least(second, Some(second * 10_000)), PAUSE_MAX);
    }
}
