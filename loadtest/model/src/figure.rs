//! The figures of a part, by name.

use crate::{Disturbance, Part, RunReport, Summary};

/// What names a figure, for messages.
pub(crate) const EXPECTED: &str = "rate, error_share, planned, sent, succeeded, failed, \
    recovery_ms, outage_ms, lost, check.<name>.passed, check.<name>.failed, extra.<name>, or \
    <timing>. and one of p50_ms, p90_ms, p95_ms, p99_ms, p999_ms, min_ms, max_ms, mean_ms";

/// A figure of a part; none if there is no such figure, or nothing to take it from.
///
/// | name | meaning |
/// |---|---|
/// | `rate` | good answers per second |
/// | `error_share` | requests that failed, of those that were sent |
/// | `planned`, `sent`, `succeeded`, `failed` | requests |
/// | `check.<name>.passed`, `.failed` | answers |
/// | `extra.<name>` | what only this kind of scenario has to say |
/// | `recovery_ms`, `outage_ms` | of the disturbance in the part that cost most |
/// | `lost` | by all disturbances in the part |
/// | `<timing>.p50_ms` … | of a timing: `latency.p99_ms`, `server.route.max_ms` |
#[must_use]
#[allow(clippy::cast_precision_loss)] // no run has 2^52 requests
pub fn figure(report: &RunReport, part: &Part, name: &str) -> Option<f64> {
    let found = match name {
        "rate" => (part.duration_s > 0.0).then(|| part.rate()),
        "error_share" => (part.sent > 0).then(|| part.failed() as f64 / part.sent as f64),
        "planned" => Some(part.planned as f64),
        "sent" => Some(part.sent as f64),
        "succeeded" => Some(part.succeeded as f64),
        "failed" => Some(part.failed() as f64),
        "recovery_ms" => worst(report, part, |disturbance| disturbance.recovery_ms),
        "outage_ms" => worst(report, part, |disturbance| Some(disturbance.outage_ms)),
        "lost" => {
            let lost = of_all(report, part, |disturbance| Some(disturbance.lost as f64));
            lost.map(|lost| lost.iter().sum())
        }
        _ => named(part, name),
    };
    found.filter(|found| found.is_finite())
}

fn named(part: &Part, name: &str) -> Option<f64> {
    if let Some(extra) = name.strip_prefix("extra.") {
        return part.extra.get(extra).copied();
    }
    let (owner, last) = name.rsplit_once('.')?;
    if let Some(check) = owner.strip_prefix("check.") {
        let outcome = part.checks.get(check)?;
        let count = match last {
            "passed" => outcome.passed,
            "failed" => outcome.failed,
            _ => return None,
        };
        #[allow(clippy::cast_precision_loss)] // as above
        return Some(count as f64);
    }
    let timing = part.timings.get(owner)?;
    if timing.is_empty() { None } else { statistic(&timing.summary(), last) }
}

fn statistic(summary: &Summary, name: &str) -> Option<f64> {
    Some(match name {
        "p50_ms" => summary.p50_ms,
        "p90_ms" => summary.p90_ms,
        "p95_ms" => summary.p95_ms,
        "p99_ms" => summary.p99_ms,
        "p999_ms" => summary.p999_ms,
        "min_ms" => summary.min_ms,
        "max_ms" => summary.max_ms,
        "mean_ms" => summary.mean_ms,
        _ => return None,
    })
}

/// One value per disturbance of a part. None if it had none, if one could not be done or if one
/// has no such value: a fault that wasn't injected was not survived.
fn of_all(
    report: &RunReport,
    part: &Part,
    value: impl Fn(&Disturbance) -> Option<f64>,
) -> Option<Vec<f64>> {
    let id = part.id();
    let of_part = report.disturbances.iter().filter(|disturbance| disturbance.part == id);
    let values: Option<Vec<f64>> = of_part
        .map(|disturbance| disturbance.failed.is_none().then(|| value(disturbance)).flatten())
        .collect();
    values.filter(|values| !values.is_empty())
}

fn worst(
    report: &RunReport,
    part: &Part,
    value: impl Fn(&Disturbance) -> Option<f64>,
) -> Option<f64> {
    of_all(report, part, value)?.into_iter().max_by(f64::total_cmp)
}

/// Whether a name can be one of a figure.
pub(crate) fn exists(name: &str) -> bool {
    const PLAIN: [&str; 9] = [
        "rate",
        "error_share",
        "planned",
        "sent",
        "succeeded",
        "failed",
        "recovery_ms",
        "outage_ms",
        "lost",
    ];
    if PLAIN.contains(&name) {
        return true;
    }
    if let Some(extra) = name.strip_prefix("extra.") {
        return !extra.is_empty();
    }
    let Some((owner, last)) = name.rsplit_once('.') else { return false };
    match owner.strip_prefix("check.") {
        Some(check) => !check.is_empty() && matches!(last, "passed" | "failed"),
        None => {
            !owner.is_empty() && owner != "check" && statistic(&Summary::default(), last).is_some()
        }
    }
}
