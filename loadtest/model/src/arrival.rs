//! Times of open-loop arrivals.
//!
//! ```text
//! Arrivals, seed --> Schedule --> 0 s, 0.013 s, 0.021 s ...   every n-th of them is one worker's
//! ```
//!
//! # Invariants
//!
//! - Times never go back, and don't depend on a clock: each counts from the begin, none from the
//!   one before, so what is late doesn't move the rest.
//! - The same arrivals and seed give the same times, however many workers share them.
//! - Nothing here ends a run: streams go on until the plan's duration does, unless they are a file
//!   or end in silence.

mod process;
mod trace;

use std::time::Duration;

use process::Process;
pub use trace::{BadTrace, parse_trace};

use crate::{Arrivals, Level};

/// Most arrivals per second.
pub(crate) const MAX_RATE: f64 = 1e6;
/// Longest stretch of anything, milliseconds: a day.
pub(crate) const MAX_MS: u64 = 86_400_000;
/// Most levels of steps.
const MAX_LEVELS: usize = 1000;

/// The times of arrivals since the begin, ascending.
#[derive(Debug, Clone)]
pub struct Schedule {
    process: Process,
    asked: Asked,
    /// Other workers' arrivals before the next own one.
    skip: usize,
    /// Each n-th arrival is one's own.
    stride: usize,
}

/// What is asked per second at a moment.
#[derive(Debug, Clone)]
enum Asked {
    Unknown,
    Always(f64),
    Levels(Vec<Level>),
}

/// Why arrivals can't be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {reason}")]
pub struct BadArrivals {
    /// Where the value stands, in [`Arrivals`].
    pub at: String,
    /// What is wrong, and what was expected.
    pub reason: String,
}

impl Schedule {
    /// Plans arrivals. `trace` is what [`parse_trace`] read from the file of
    /// [`Arrivals::Replay`]; the others take no notice of it.
    ///
    /// # Errors
    ///
    /// [`BadArrivals`] naming the first value that can't be.
    pub fn new(arrivals: &Arrivals, seed: u64, trace: &[Duration]) -> Result<Self, BadArrivals> {
        arrivals.check()?;
        if matches!(arrivals, Arrivals::Replay { .. }) {
            if trace.is_empty() {
                return Err(bad("file", "no times; expected at least one"));
            }
            if let Some(after) = trace.windows(2).position(|two| two[1] < two[0]) {
                let reason = "earlier than the one before; expected ascending times";
                return Err(bad(format!("file[{}]", after + 1), reason));
            }
        }
        let asked = match arrivals {
            Arrivals::Constant { rate_per_s }
            | Arrivals::Poisson { rate_per_s }
            | Arrivals::Bursty { rate_per_s, .. } => Asked::Always(*rate_per_s),
            Arrivals::Steps { levels } => Asked::Levels(levels.clone()),
            Arrivals::Replay { .. } => Asked::Unknown,
        };
        Ok(Self { process: Process::new(arrivals, seed, trace), asked, skip: 0, stride: 1 })
    }

    /// The share of worker `index` (from 0) of `count`: each takes every `count`-th arrival, all
    /// together take every one once. Going past the others' costs tens of nanoseconds each.
    #[must_use]
    pub fn worker(self, index: usize, count: usize) -> Self {
        let skip = self.skip + index * self.stride;
        Self { skip, stride: self.stride * count.max(1), ..self }
    }

    /// What all workers together are asked for per second at a moment, to be shown: on average, if
    /// chance has a say. None if only a file knows.
    #[must_use]
    pub fn rate_at(&self, at: Duration) -> Option<f64> {
        match &self.asked {
            Asked::Unknown => None,
            Asked::Always(rate) => Some(*rate),
            Asked::Levels(levels) => {
                let mut end = Duration::ZERO;
                let current = levels.iter().find(|level| {
                    end += Duration::from_millis(level.for_ms);
                    at < end
                });
                current.or(levels.last()).map(|level| level.rate_per_s)
            }
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        for _ in 0..self.skip {
            self.process.next()?;
        }
        self.skip = self.stride - 1;
        self.process.next()
    }
}

impl Arrivals {
    /// Checks every value.
    ///
    /// # Errors
    ///
    /// [`BadArrivals`] naming the first that can't be.
    pub fn check(&self) -> Result<(), BadArrivals> {
        match self {
            Self::Constant { rate_per_s } | Self::Poisson { rate_per_s } => {
                above_zero("rate_per_s", *rate_per_s, MAX_RATE)
            }
            Self::Bursty { rate_per_s, factor, burst_ms, share } => {
                above_zero("rate_per_s", *rate_per_s, MAX_RATE)?;
                if !(*factor > 1.0 && *factor <= 1000.0) {
                    let reason = format!("{factor}; expected a number above 1 and at most 1000");
                    return Err(bad("factor", reason));
                }
                length("burst_ms", *burst_ms)?;
                if !(*share > 0.0 && *share < 1.0) {
                    return Err(bad("share", format!("{share}; expected between 0 and 1")));
                }
                // More would need a quiet rate below zero. The slack is for factors like 10/3.
                if factor * share > 1.0 + 1e-9 {
                    let reason = format!("{share}; expected at most 1 / factor, {}", 1.0 / factor);
                    return Err(bad("share", reason));
                }
                Ok(())
            }
            Self::Steps { levels } => check_levels(levels),
            Self::Replay { file, speed } => {
                if file.as_os_str().is_empty() {
                    return Err(bad("file", "empty; expected the name of a file"));
                }
                above_zero("speed", *speed, 1e6)
            }
        }
    }
}

fn check_levels(levels: &[Level]) -> Result<(), BadArrivals> {
    if !(1..=MAX_LEVELS).contains(&levels.len()) {
        return Err(bad("levels", format!("{}; expected 1 to {MAX_LEVELS}", levels.len())));
    }
    for (index, level) in levels.iter().enumerate() {
        let rate = level.rate_per_s;
        if !(0.0..=MAX_RATE).contains(&rate) {
            let reason = format!("{rate}; expected a number from 0 to {MAX_RATE}");
            return Err(bad(format!("levels[{index}].rate_per_s"), reason));
        }
        length(&format!("levels[{index}].for_ms"), level.for_ms)?;
    }
    if levels.iter().all(|level| level.rate_per_s == 0.0) {
        return Err(bad("levels", "all silent; expected a rate above 0 in one of them"));
    }
    Ok(())
}

fn above_zero(at: &str, value: f64, most: f64) -> Result<(), BadArrivals> {
    if value > 0.0 && value <= most {
        return Ok(());
    }
    Err(bad(at, format!("{value}; expected a number above 0 and at most {most}")))
}

fn length(at: &str, ms: u64) -> Result<(), BadArrivals> {
    if (1..=MAX_MS).contains(&ms) {
        return Ok(());
    }
    Err(bad(at, format!("{ms}; expected 1 to {MAX_MS}")))
}

fn bad(at: impl Into<String>, reason: impl Into<String>) -> BadArrivals {
    BadArrivals { at: at.into(), reason: reason.into() }
}
