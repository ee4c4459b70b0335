//! When is a certificate renewed, and how long is a failure waited out?

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::x509::Facts;

/// When to renew by the dates alone: at two thirds of the lifetime, less up to a twentieth of it so
/// that not all come at once. `jitter` is from 0 to 1.
pub(crate) fn renew_at(facts: &Facts, jitter: f64) -> Timestamp {
    let life = facts.not_after.duration_since(facts.not_before);
    let part = life.mul_f64(2.0 / 3.0 - jitter / 20.0);
    facts.not_before.checked_add(part).unwrap_or(facts.not_before)
}

/// A moment in the window that the authority suggests (RFC 9773 section 4.2), in seconds since
/// 1970; a window that makes no sense has its start chosen.
pub(crate) fn in_window((start, end): (i64, i64), jitter: f64) -> Option<Timestamp> {
    let start = Timestamp::from_second(start).ok()?;
    let end = Timestamp::from_second(end).ok()?;
    let length = end.duration_since(start).max(SignedDuration::ZERO);
    start.checked_add(length.mul_f64(jitter)).ok()
}

/// The wait after `failures` failures in a row (at least 1): doubled each time, less up to a tenth.
pub(crate) fn backoff(failures: u32, (min, max): (Duration, Duration), jitter: f64) -> Duration {
    let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
    min.saturating_mul(factor).min(max).mul_f64(1.0 - jitter / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_at_two_thirds_or_a_little_before() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let facts = Facts {
            names: vec![],
            not_before: time("2026-01-01T00:00:00Z"),
            not_after: time("2026-03-02T00:00:00Z"), // 60 days
            serial: vec![],
            authority_key: None,
        };
        assert_eq!(renew_at(&facts, 0.0), time("2026-02-10T00:00:00Z"));
        assert_eq!(renew_at(&facts, 1.0).as_second(), time("2026-02-07T00:00:00Z").as_second());
    }

    #[test]
    fn window_is_used_from_end_to_end() {
        let second = |jitter| in_window((1000, 2000), jitter).unwrap().as_second();
        assert_eq!([second(0.0), second(0.5), second(1.0)], [1000, 1500, 2000]);
        assert_eq!(in_window((2000, 1000), 0.5).unwrap().as_second(), 2000);
        assert_eq!(in_window((i64::MAX, 0), 0.5), None);
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let limits = (Duration::from_secs(60), Duration::from_secs(12 * 3600));
        let wait = |failures| backoff(failures, limits, 0.0).as_secs();
        assert_eq!(
            [wait(1), wait(2), wait(3), wait(10), wait(11), wait(99)],
            [60, 120, 240, 30720, 43200, 43200]
        );
        assert!(backoff(99, limits, 1.0) < limits.1);
    }
}
