//! Whether two runs differ, and how sure that is.
//!
//! ```text
//! a, b --> unlike?  every reason why they can't be compared
//!      --> rows     per part and figure: both values, the change, its 95 % interval
//!      --> text, JSON
//! ```
//!
//! # Invariants
//!
//! - Unlike runs are refused, unless somebody insists; then the reasons stay in the result.
//! - No change is told without an interval, or the words that there are too few samples for one.
//! - The same two reports always give the same result: chance has a fixed seed.
//!
//! # Limits
//!
//! 1,000 resamples per interval. A percentile needs 10 samples beyond it, a part [`SAMPLES_MIN`].

mod bootstrap;
mod chance;
mod likeness;
mod result;
mod rows;
#[cfg(test)]
mod tests;

use loadtest_model::RunReport;

pub use likeness::{SAMPLES_MIN, Unlike};
pub use result::{Change, Comparison, Method, Row, Side, Unit, Verdict};

/// Compares `b` with `a`, the one before.
///
/// # Errors
///
/// [`Unlike`] with every reason if the runs were not made alike: then a difference would not be
/// the target's.
pub fn compare(a: &RunReport, b: &RunReport) -> Result<Comparison, Unlike> {
    let reasons = likeness::differences(a, b);
    if reasons.is_empty() { Ok(result::build(a, b, reasons)) } else { Err(Unlike { reasons }) }
}

/// Compares `b` with `a` whatever they are; what is unlike is in [`Comparison::unlike`].
#[must_use]
pub fn compare_anyway(a: &RunReport, b: &RunReport) -> Comparison {
    result::build(a, b, likeness::differences(a, b))
}
