//! Loads of plans.

use super::{Checked, MAX_IN_FLIGHT, bad, within};
use crate::{BadPlan, Load, arrival::MAX_MS};

pub(super) fn check(at: &str, load: &Load) -> Checked {
    match load {
        Load::Open { arrivals, duration_ms, max_in_flight } => {
            arrivals.check().map_err(|error| BadPlan::Value {
                at: format!("{at}.arrivals.{}", error.at),
                reason: error.reason,
            })?;
            within(format!("{at}.duration_ms"), *duration_ms, 1..=MAX_MS)?;
            within(format!("{at}.max_in_flight"), *max_in_flight, 1..=MAX_IN_FLIGHT)
        }
        Load::Closed { concurrency, duration_ms, requests } => {
            within(format!("{at}.concurrency"), *concurrency, 1..=MAX_IN_FLIGHT)?;
            match (duration_ms, requests) {
                (Some(ms), None) => within(format!("{at}.duration_ms"), *ms, 1..=MAX_MS),
                (None, Some(count)) => {
                    within(format!("{at}.requests"), *count, 1..=1_000_000_000_000)
                }
                (None, None) => bad(at, "no end", "duration_ms or requests"),
                (Some(_), Some(_)) => bad(at, "two ends", "one of duration_ms and requests"),
            }
        }
        Load::Staggered { count, delay_ms } => {
            within(format!("{at}.count"), *count, 1..=MAX_IN_FLIGHT)?;
            within(format!("{at}.delay_ms"), *delay_ms, 0..=MAX_MS / u64::from(*count))
        }
    }
}
