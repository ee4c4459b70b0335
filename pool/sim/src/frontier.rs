//! At equal memory, who lets fewer callers wait?

use std::time::Duration;

use pool::sizing::Sizing;

use crate::{
    engine::{Setup, run},
    knative::Knative,
    outcome::Outcome,
    policy::{Family, PolicyKind},
    trace::Trace,
};

/// Differences in hit rate below this are chance: a twentieth of a percent.
pub(crate) const CHANCE: f64 = 0.0005;

/// Idle time that a hit is worth, swept for ours, seconds: about as far apart in memory.
const PATIENCES: [f64; 14] =
    [0.04, 0.08, 0.15, 0.3, 0.7, 1.6, 4.0, 10.0, 30.0, 100.0, 600.0, 2400.0, 10_000.0, 40_000.0];

/// Halvings of the step between two patiences.
const HALVINGS: u32 = 10;

/// Longest idle time above the minimum for ours, seconds; the pools' own default, ten minutes.
const IDLE_TTL: f64 = 600.0;

/// Numbers swept for a fixed size.
const FIXED: [u32; 13] = [0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 26, 34];

/// Target utilisations swept for Knative; 0.7 is its default.
const UTILISATIONS: [f64; 9] = [3.0, 2.0, 1.4, 1.0, 0.85, 0.7, 0.5, 0.35, 0.2];

/// One policy's result on a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Which policy.
    pub policy: PolicyKind,
    /// What came of it.
    pub outcome: Outcome,
}

impl Point {
    /// Sandbox-seconds warm or restoring.
    fn memory(&self) -> f64 {
        self.outcome.sandbox_seconds
    }

    /// Whether it has its family's usual setting: ours the pools' default price and no minimum,
    /// Knative its default, a fixed size the pools' default maximum, or 1 for each of many.
    #[must_use]
    pub fn is_usual(&self, trace: &Trace) -> bool {
        match self.policy {
            PolicyKind::Ours(sizing, patience) => {
                sizing.min_warm == 0 && patience.as_secs_f64() == IDLE_TTL
            }
            PolicyKind::Fixed(count) => count == if trace.functions > 10 { 1 } else { 8 },
            PolicyKind::Knative(rule) => rule.utilisation == 0.7 && rule.min_scale == 0,
        }
    }
}

/// How ours compares with one baseline's point.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The baseline's knob.
    pub label: String,
    /// Its family.
    pub family: Family,
    /// Its mean number of sandboxes, and hit rate.
    pub memory: f64,
    /// The baseline's hit rate.
    pub theirs: f64,
    /// Ours at the same or less memory.
    pub ours: f64,
}

/// What a trace's comparisons come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Never worse, and better by more than chance somewhere.
    Won,
    /// Never apart by more than chance.
    Equal,
    /// Worse somewhere by more than chance.
    Lost,
}

/// Runs every knob of `family` over the trace.
#[must_use]
pub fn sweep(setup: &Setup, family: Family, trace: &Trace, seed: u64) -> Vec<Point> {
    let policies: Vec<PolicyKind> = match family {
        Family::Ours => our_knobs(setup, trace),
        Family::Fixed => {
            let most = if trace.functions > 10 { 2 } else { u32::MAX };
            FIXED.iter().filter(|&&n| n <= most).map(|&n| PolicyKind::Fixed(n)).collect()
        }
        Family::Knative => {
            let occupied = (setup.refill + setup.service).as_secs_f64();
            let rule = |utilisation, min_scale| Knative { utilisation, min_scale, occupied };
            let by_utilisation = UTILISATIONS.iter().map(|&u| rule(u, 0));
            by_utilisation.chain([rule(0.7, 1), rule(0.35, 2)]).map(PolicyKind::Knative).collect()
        }
    };
    let point = |policy| Point { outcome: run(setup, &policy, trace, seed), policy };
    policies.into_iter().map(point).collect()
}

/// Adds points to `ours` where it is not clearly ahead of one of `theirs`, so that what decides is
/// the policy and not the line between two of its points: halves the step between the two
/// patiences around that memory, at most `HALVINGS` times.
pub fn refine(setup: &Setup, ours: &mut Vec<Point>, theirs: &[Point], trace: &Trace, seed: u64) {
    let sort = |ours: &mut Vec<Point>| ours.sort_by(|a, b| a.memory().total_cmp(&b.memory()));
    sort(ours);
    for point in theirs {
        for halving in 0..HALVINGS {
            let reached = interpolate(ours, point.memory()).unwrap_or(0.0);
            let lead = reached - point.outcome.hit_rate();
            if lead > 10.0 * CHANCE || (halving >= 2 && lead > -0.1 * CHANCE) {
                break;
            }
            let Some(patience) = between(ours, point.memory()) else { break };
            let policy = self::ours(setup, patience);
            ours.push(Point { outcome: run(setup, &policy, trace, seed), policy });
            sort(ours);
        }
    }
}

/// The patience half-way between the highest that needs no more than `memory` and the lowest that
/// needs more; `None` where there are no two, or they hardly differ.
fn between(ours: &[Point], memory: f64) -> Option<f64> {
    let plain = |point: &Point| match point.policy {
        PolicyKind::Ours(sizing, patience) if sizing.min_warm == 0 => Some(patience.as_secs_f64()),
        _ => None,
    };
    let (below, above): (Vec<&Point>, Vec<&Point>) =
        ours.iter().partition(|point| point.memory() <= memory);
    let low = below.into_iter().filter_map(plain).reduce(f64::max)?;
    let high = above.into_iter().filter_map(plain).reduce(f64::min)?;
    ((high / low).ln() > 0.002).then(|| (low * high).sqrt())
}

/// Every patience; over many functions, most of them not yet seen, minimums too.
fn our_knobs(setup: &Setup, trace: &Trace) -> Vec<PolicyKind> {
    let mut knobs: Vec<PolicyKind> = PATIENCES.iter().map(|&p| ours(setup, p)).collect();
    if trace.functions > 10 {
        for (min_warm, patience) in [(1, 0.08), (1, 600.0), (2, 0.08), (2, 600.0)] {
            if let PolicyKind::Ours(sizing, patience) = ours(setup, patience) {
                knobs.push(PolicyKind::Ours(Sizing { min_warm, ..sizing }, patience));
            }
        }
    }
    knobs
}

fn ours(setup: &Setup, patience: f64) -> PolicyKind {
    let sizing = Sizing {
        min_warm: 0,
        max_warm: 1000,
        burst: 0,
        idle_ttl: Duration::from_secs_f64(IDLE_TTL.max(patience)),
        refill_concurrency: setup.refill_concurrency,
    };
    PolicyKind::Ours(sizing, Duration::from_secs_f64(patience))
}

/// The hit rate that `ours` reaches with at most `memory` sandbox-seconds: their upper concave
/// hull, since a pool can spend part of its time at any two points; `None` below the first.
///
/// That a hull is compared with the baselines' points favours nobody: it is above all of them
/// exactly when it is above the baselines' own hull.
#[must_use]
pub fn interpolate(ours: &[Point], memory: f64) -> Option<f64> {
    let mut points: Vec<(f64, f64)> =
        ours.iter().map(|p| (p.memory(), p.outcome.hit_rate())).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut hull: Vec<(f64, f64)> = Vec::new();
    for point in points {
        if hull.last().is_some_and(|last| point.1 <= last.1) {
            continue;
        }
        while let [.., before, last] = hull[..] {
            let flat = (last.1 - before.1) * (point.0 - before.0);
            if flat > (point.1 - before.1) * (last.0 - before.0) {
                break;
            }
            hull.pop();
        }
        hull.push(point);
    }
    let last = hull.iter().rfind(|point| point.0 <= memory)?;
    let next = hull.iter().find(|point| point.0 > memory);
    Some(
        next.map_or(last.1, |next| {
            last.1 + (memory - last.0) / (next.0 - last.0) * (next.1 - last.1)
        }),
    )
}

/// Compares ours with each point of a baseline. A point below all of ours has no comparison and
/// is left out unless it has hits: then ours counts as 0.
#[must_use]
pub fn compare(ours: &[Point], theirs: &[Point]) -> Vec<Comparison> {
    let one = |point: &Point| {
        let memory = point.outcome.sandbox_seconds;
        let hit_rate = point.outcome.hit_rate();
        Comparison {
            label: point.policy.label(),
            family: point.policy.family(),
            memory,
            theirs: hit_rate,
            ours: interpolate(ours, memory).unwrap_or(0.0),
        }
    };
    theirs.iter().map(one).collect()
}

impl Verdict {
    /// Of all comparisons of a trace with one family.
    #[must_use]
    pub fn of(comparisons: &[Comparison]) -> Self {
        let apart = |c: &Comparison| c.ours - c.theirs;
        if comparisons.iter().any(|c| apart(c) < -CHANCE) {
            Self::Lost
        } else if comparisons.iter().any(|c| apart(c) > CHANCE) {
            Self::Won
        } else {
            Self::Equal
        }
    }

    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Equal => "tied",
            Self::Lost => "LOST",
        }
    }
}
