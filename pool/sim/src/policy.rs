//! Which policies are compared, and how is each asked for its target?

use std::time::Duration;

use pool::sizing::{Demand, Sizing, Target};

use crate::knative::{Knative, KnativeRule};

/// A group of policies that differ in one knob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Wrenn's own, by the idle time that a hit is worth.
    Ours,
    /// So many warm, whatever happens.
    Fixed,
    /// Knative's autoscaler, by target utilisation and lowest scale.
    Knative,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ours, Self::Fixed, Self::Knative];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Fixed => "fixed",
            Self::Knative => "knative",
        }
    }
}

/// A policy with its knob set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PolicyKind {
    /// [`pool::sizing`] with this, and the idle time that a hit is worth.
    Ours(Sizing, Duration),
    /// So many warm.
    Fixed(u32),
    /// Knative's rule with this.
    Knative(Knative),
}

impl PolicyKind {
    /// Its knob, for a table.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Ours(sizing, patience) => format!("ours {patience:?}, min {}", sizing.min_warm),
            Self::Fixed(count) => format!("fixed {count}"),
            Self::Knative(rule) => {
                format!("knative {:.0} %, min {}", rule.utilisation * 100.0, rule.min_scale)
            }
        }
    }

    /// Which group it belongs to.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::Ours(..) => Family::Ours,
            Self::Fixed(_) => Family::Fixed,
            Self::Knative(_) => Family::Knative,
        }
    }

    /// A sizer for one function.
    #[must_use]
    pub fn sizer(&self) -> Sizer {
        match *self {
            Self::Ours(sizing, patience) => {
                let demand = Demand::new();
                Sizer::Ours(Box::new(OurSizer { demand, sizing, patience, last: None }))
            }
            Self::Fixed(count) => Sizer::Fixed(count),
            Self::Knative(rule) => Sizer::Knative(Box::new(KnativeRule::new(rule))),
        }
    }
}

/// Wrenn's policy at work for one function.
#[derive(Debug)]
pub struct OurSizer {
    demand: Demand,
    sizing: Sizing,
    patience: Duration,
    /// The target, and the demand's revision that it is of.
    last: Option<(u64, Target)>,
}

impl OurSizer {
    fn target(&mut self, now: Duration) -> Target {
        let revision = self.demand.revision();
        match self.last {
            Some((of, target)) if of == revision && now < target.review_at => target,
            _ => {
                let target = self.demand.target_at(&self.sizing, self.patience, now);
                self.last = Some((revision, target));
                target
            }
        }
    }
}

/// A policy at work for one function.
#[derive(Debug)]
pub enum Sizer {
    /// Wrenn's own.
    Ours(Box<OurSizer>),
    /// So many warm.
    Fixed(u32),
    /// Knative's.
    Knative(Box<KnativeRule>),
}

impl Sizer {
    /// A caller came, `at` microseconds after the start.
    pub fn arrived(&mut self, at: u64) {
        match self {
            Self::Ours(ours) => ours.demand.arrived(Duration::from_micros(at)),
            Self::Fixed(_) => {}
            Self::Knative(rule) => rule.arrived(at),
        }
    }

    /// A restore took so many microseconds.
    pub fn restored(&mut self, took: u64) {
        if let Self::Ours(ours) = self {
            ours.demand.restored(Duration::from_micros(took));
        }
    }

    /// How many to have warm or restoring, and when to ask again (`u64::MAX`: never).
    pub fn target(&mut self, at: u64) -> (u32, u64) {
        match self {
            Self::Ours(ours) => {
                let target = ours.target(Duration::from_micros(at));
                let review = u64::try_from(target.review_at.as_micros()).unwrap_or(u64::MAX);
                (target.warm, review.max(at + 1))
            }
            Self::Fixed(count) => (*count, u64::MAX),
            Self::Knative(rule) => rule.target(at),
        }
    }

    /// How long there may be more warm than the target, and how long any of those may be idle,
    /// microseconds; the baselines end them at once.
    #[must_use]
    pub fn grace(&self) -> (u64, u64) {
        let Self::Ours(ours) = self else { return (0, 0) };
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        (micros(ours.demand.grace(&ours.sizing)), micros(ours.sizing.idle_ttl))
    }
}
