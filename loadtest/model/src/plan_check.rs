//! Whether a plan can be done: every value, before anything is sent.
//!
//! Places are written as TOML would be indexed, from 0: `scenario[2].load.arrivals.rate_per_s`.

mod chaos;
mod load;
mod target;
mod work;

use std::{collections::BTreeSet, fmt, ops::RangeInclusive};

use crate::{BadPlan, Plan, Scenario, TargetPlan, Work, arrival::MAX_MS};

/// Most scenarios of a plan.
const MAX_SCENARIOS: u64 = 1000;
/// Longest timeout, milliseconds: an hour.
const MAX_TIMEOUT_MS: u64 = 3_600_000;
/// Most bytes of a body: a GiB.
const MAX_BODY_BYTES: u64 = 1 << 30;
/// Most requests under way at a time: each needs a socket, and files per process end at 2^20.
const MAX_IN_FLIGHT: u64 = 20_000;
/// Most characters of a name.
const MAX_NAME: usize = 64;

type Checked = Result<(), BadPlan>;

impl Plan {
    /// Checks every value.
    ///
    /// # Errors
    ///
    /// [`BadPlan`] naming the first place that is wrong, what stands there and what is expected.
    pub fn check(&self) -> Result<(), BadPlan> {
        let length = self.name.chars().count();
        if !(1..=200).contains(&length) || self.name.chars().any(char::is_control) {
            return bad_text("name", &self.name, "1 to 200 characters of one line");
        }
        target::check(&self.target)?;
        let protocols = &self.protocols;
        if protocols.is_empty() {
            return bad("protocols", "none", "at least one of h1, h2 and h3");
        }
        for (index, protocol) in protocols.iter().enumerate() {
            if protocols[..index].contains(protocol) {
                return bad(format!("protocols[{index}]"), protocol.short(), "each only once");
            }
        }
        within("rounds", self.rounds, 1..=100)?;
        within("workers", self.workers, 1..=64)?;
        within("warmup_ms", self.warmup_ms, 0..=MAX_MS)?;
        within("scenario", self.scenarios.len(), 1..=MAX_SCENARIOS)?;
        unique("scenario", self.scenarios.iter().map(|scenario| scenario.name.as_str()))?;
        for (index, scenario) in self.scenarios.iter().enumerate() {
            scenario_check(&format!("scenario[{index}]"), scenario, &self.target)?;
        }
        chaos::check(self)
    }
}

fn scenario_check(at: &str, scenario: &Scenario, target: &TargetPlan) -> Checked {
    within(format!("{at}.timeout_ms"), scenario.timeout_ms, 1..=MAX_TIMEOUT_MS)?;
    let streams = scenario.streams_per_connection;
    within(format!("{at}.streams_per_connection"), streams, 1..=1000)?;
    work::check(&format!("{at}.work"), &scenario.work, target)?;
    let paces_itself = matches!(scenario.work, Work::Pool { .. } | Work::ScaleFromZero { .. });
    let kind = scenario.work.kind();
    match &scenario.load {
        Some(_) if paces_itself => {
            bad(format!("{at}.load"), "a load", &format!("none, as {kind} paces itself"))
        }
        None if !paces_itself => {
            bad(format!("{at}.load"), "none", &format!("a load, as {kind} has no pace of its own"))
        }
        Some(load) => load::check(&format!("{at}.load"), load),
        None => Ok(()),
    }
}

/// Names of one kind: each a name, and none twice.
fn unique<'a>(at: &str, names: impl Iterator<Item = &'a str>) -> Checked {
    let mut seen = BTreeSet::new();
    for (index, name) in names.enumerate() {
        let at = format!("{at}[{index}].name");
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
            return bad_text(at, name, "1 to 64 letters, digits, `-`, `_` and `.`");
        }
        if !seen.insert(name) {
            return bad_text(at, name, "a name that no other has");
        }
    }
    Ok(())
}

/// A count or a size.
fn within(
    at: impl Into<String>,
    value: impl TryInto<u64> + fmt::Display + Copy,
    bounds: RangeInclusive<u64>,
) -> Checked {
    if value.try_into().is_ok_and(|value| bounds.contains(&value)) {
        return Ok(());
    }
    bad(at, value, &format!("{} to {}", bounds.start(), bounds.end()))
}

fn bad(at: impl Into<String>, value: impl fmt::Display, expected: &str) -> Checked {
    Err(BadPlan::Value { at: at.into(), reason: format!("{value}; expected {expected}") })
}

/// Quotes a text, and not more of it than one can read.
fn bad_text(at: impl Into<String>, text: &str, expected: &str) -> Checked {
    let shown: String = text.chars().take(80).collect();
    bad(at, format!("{shown:?}"), expected)
}

/// Whether a text is an HTTP token (RFC 9110, 5.6.2).
fn is_token(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(allowed)
}
