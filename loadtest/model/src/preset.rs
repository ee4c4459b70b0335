//! Ready-made scenarios: those that others publish figures of, and our own.
//!
//! # Scale
//!
//! 1.0 is as published. Rates and counts (of requests, sandboxes, functions, connections) are
//! multiplied by it and are at least 1; durations, delays, sizes and messages stay, so that a
//! hundredth of the load can be put on a small machine for as long. Published budgets are only
//! about the published load: at another scale there are none.

mod ours;
mod published;

use crate::{Budgets, Load, Plan, Protocol, Scenario, Share, TargetPlan, Work};

/// Largest scale.
const MAX_SCALE: f64 = 1000.0;

/// A plan but for its target.
#[derive(Debug, Clone, PartialEq)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What to do, one after the other.
    pub scenarios: Vec<Scenario>,
    /// Over which protocols.
    pub protocols: Vec<Protocol>,
    /// See [`Plan::rounds`].
    pub rounds: u32,
    /// See [`Plan::warmup_ms`].
    pub warmup_ms: u64,
    /// What it has to keep; may be empty.
    pub budgets: Budgets,
    /// Where its shape was published, and what of it is different here.
    pub published: &'static str,
}

/// Why there is no such preset.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BadPreset {
    /// None has this name.
    #[error("`{name}` is no preset; expected one of {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// It can't be scaled so.
    #[error("a scale of {0}; expected a number above 0 and at most {MAX_SCALE}")]
    Scale(f64),
}

/// What a preset is made from.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    scale: f64,
    function: &'a str,
}

impl Asked<'_> {
    fn rate(self, published: f64) -> f64 {
        (published * self.scale).max(1.0)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped before
    fn count(self, published: u32) -> u32 {
        (f64::from(published) * self.scale).round().clamp(1.0, f64::from(u32::MAX)) as u32
    }

    /// An invocation of the function. Only those that we know are taken to repeat nonces.
    fn invoke(self) -> Work {
        let mut work = Work::invoke(self.function);
        if let Work::Invoke { nonce, .. } = &mut work {
            *nonce = matches!(self.function, "hello" | "echo");
        }
        work
    }

    /// What was published, if this is it.
    fn budgets(self, published: impl IntoIterator<Item = crate::Budget>) -> Budgets {
        let as_published = (self.scale - 1.0).abs() < f64::EPSILON;
        let all = if as_published { published.into_iter().collect() } else { Vec::new() };
        Budgets { all }
    }
}

/// Names of all presets, and what they do, in a line each.
#[must_use]
pub const fn all() -> &'static [(&'static str, &'static str)] {
    &[
        ("knative-dataplane-probe", "1000 requests per second for 5 minutes"),
        ("knative-load-test", "from zero to 1000, 2000, 3000 requests per second, 2 minutes each"),
        ("knative-scale-from-zero-1", "one function that has run empty, called once"),
        ("knative-scale-from-zero-5", "5 functions that have run empty, called at once"),
        ("knative-scale-from-zero-25", "25 functions that have run empty, called at once"),
        ("knative-scale-from-zero-100", "100 functions that have run empty, called at once"),
        ("computesdk-sequential", "100 sandboxes to their first command, one after the other"),
        ("computesdk-staggered", "100 sandboxes to their first command, one every 200 ms"),
        ("computesdk-burst", "100 sandboxes to their first command, all at once"),
        ("wrenn-bench", "every kind of load, on a small machine"),
        ("smoke", "everything once, to see that it works"),
    ]
}

/// A preset by its name. `function` is what gets invoked (`hello`, if nothing else is deployed).
///
/// # Errors
///
/// [`BadPreset`] if there is none of that name, or it can't be scaled so.
pub fn preset(name: &str, scale: f64, function: &str) -> Result<Preset, BadPreset> {
    if !(scale > 0.0 && scale <= MAX_SCALE) {
        return Err(BadPreset::Scale(scale));
    }
    let asked = Asked { scale, function };
    let unknown = || BadPreset::Unknown {
        name: name.chars().take(80).collect(),
        known: all().iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
    };
    let &(name, about) = all().iter().find(|(known, _)| *known == name).ok_or_else(unknown)?;
    let mut preset = match name {
        "knative-dataplane-probe" => published::dataplane_probe(asked),
        "knative-load-test" => published::load_test(asked),
        "knative-scale-from-zero-1" => published::scale_from_zero(asked, 1, 50.0, 50.0),
        "knative-scale-from-zero-5" => published::scale_from_zero(asked, 5, 50.0, 50.0),
        "knative-scale-from-zero-25" => published::scale_from_zero(asked, 25, 2e3, 5e3),
        "knative-scale-from-zero-100" => published::scale_from_zero(asked, 100, 25e3, 25e3),
        "computesdk-sequential" => published::sequential(asked),
        "computesdk-staggered" => published::staggered(asked, 200),
        "computesdk-burst" => published::staggered(asked, 0),
        "wrenn-bench" => ours::bench(asked),
        "smoke" => ours::smoke(asked),
        _ => return Err(unknown()),
    };
    (preset.name, preset.about) = (name, about);
    Ok(preset)
}

impl Preset {
    /// Over HTTP/1.1, once, without warm-up.
    fn of(scenarios: Vec<Scenario>, budgets: Budgets, published: &'static str) -> Self {
        Self {
            name: "",
            about: "",
            scenarios,
            protocols: vec![Protocol::H1],
            rounds: 1,
            warmup_ms: 0,
            budgets,
            published,
        }
    }

    /// The same, with another command in its lifecycles.
    #[must_use]
    pub fn with_command(mut self, other: &str) -> Self {
        self.scenarios.iter_mut().for_each(|scenario| set_command(&mut scenario.work, other));
        self
    }

    /// The plan of it for a target. Its budgets are apart from it.
    #[must_use]
    pub fn plan(&self, target: TargetPlan) -> Plan {
        Plan {
            name: self.name.to_owned(),
            target,
            protocols: self.protocols.clone(),
            rounds: self.rounds,
            seed: 1,
            workers: 1,
            warmup_ms: self.warmup_ms,
            scenarios: self.scenarios.clone(),
            chaos: Vec::new(),
            slow_proxies: Vec::new(),
        }
    }
}

fn set_command(work: &mut Work, other: &str) {
    match work {
        Work::Lifecycle { command, .. } => other.clone_into(command),
        Work::Mix { of } => of.iter_mut().for_each(|Share { work, .. }| set_command(work, other)),
        _ => {}
    }
}

fn scenario(name: &str, work: Work, load: Option<Load>, timeout_ms: u64) -> Scenario {
    Scenario { timeout_ms, ..Scenario::new(name, work, load) }
}
