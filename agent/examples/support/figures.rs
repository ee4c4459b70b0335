//! How do figures become a table? Medians, percentiles, and units that people read.

use std::time::Duration;

/// The sample that so many percent of the others do not exceed; zero without samples.
pub(crate) fn percentile(samples: &[Duration], percent: usize) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

/// The middle one of some counts; 0 without any.
pub(crate) fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// `p50 / p99` in milliseconds.
pub(crate) fn p50_p99(samples: &[Duration]) -> String {
    format!("{} / {}", ms(percentile(samples, 50)), ms(percentile(samples, 99)))
}

/// Milliseconds, with a decimal only where it says something.
pub(crate) fn ms(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    if millis < 10.0 { format!("{millis:.1}") } else { format!("{millis:.0}") }
}

/// Mebibytes with one decimal.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1}", float(bytes) / f64::from(1 << 20))
}

/// How often `part` contains `whole`; 0 if that is nothing.
pub(crate) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { float(part) / float(whole) }
}

/// A count, for arithmetic that is printed with a few digits.
#[allow(clippy::cast_precision_loss, reason = "printed with a few digits")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
