//! What one worker has measured of one part.
//!
//! A recorder's size depends on the plan, not on how long it runs: durations are counted by size,
//! errors and checks by kind.

use std::{collections::BTreeMap, time::Duration};

use loadtest_model::{CheckOutcome, Histogram, Part, names};

use crate::outcome::{Outcome, Timing};

/// Kinds of errors, statuses, checks and timings that are told apart; a target that makes up new
/// ones for ever is counted under [`OTHER`].
const KINDS_MAX: usize = 200;
/// The kind of whatever comes after [`KINDS_MAX`] others.
const OTHER: &str = "other";

/// When an arrival was due and what became of its time. Since the part's begin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct When {
    /// When it was to be sent.
    pub(crate) due: Duration,
    /// When the harness turned to it.
    pub(crate) began: Duration,
    /// When it was over.
    pub(crate) ended: Duration,
    /// Whether it had to wait for one under way to end first.
    pub(crate) held_back: bool,
    /// Whether it had a time to be sent at: open-loop arrivals have.
    pub(crate) timed: bool,
}

/// What has ended since the last look.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    pub(crate) planned: u64,
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) latency: Histogram,
}

/// Counts for one part.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    planned: u64,
    warmup: u64,
    sent: u64,
    succeeded: u64,
    errors: BTreeMap<String, u64>,
    samples: BTreeMap<String, String>,
    statuses: BTreeMap<String, u64>,
    checks: BTreeMap<String, CheckOutcome>,
    connections: u64,
    bytes_sent: u64,
    bytes_received: u64,
    /// The timings of every request, apart from the map of the rest: they are the hot path.
    own: [Histogram; OWN.len()],
    timings: BTreeMap<String, Histogram>,
    segments: Vec<Histogram>,
    recent: Recent,
    late: u64,
    timed: u64,
    held_back: u64,
}

/// The timings that nearly every request has.
const OWN: [&str; 5] =
    [names::LATENCY, names::SERVICE, names::SEND_LAG, names::FIRST_BYTE, names::LAST_BYTE];
/// How late a request may be sent without being called late: what users of timers of
/// milliseconds take for granted.
const LATE: Duration = Duration::from_millis(1);

impl Recorder {
    /// One for `segments` pieces of latency.
    pub(crate) fn new(segments: usize) -> Self {
        Self { segments: vec![Histogram::default(); segments], ..Self::default() }
    }

    /// Takes an arrival that is to be measured.
    pub(crate) fn plan(&mut self) {
        self.planned += 1;
        self.recent.planned += 1;
    }

    /// Takes one that only warms up.
    pub(crate) fn warm_up(&mut self) {
        self.warmup += 1;
    }

    /// Takes what came of an arrival; `segment` is the piece of the part that it belongs to.
    pub(crate) fn note(&mut self, outcome: Outcome, when: When, segment: usize) {
        self.sent += 1;
        self.connections += outcome.connections;
        self.bytes_sent += outcome.bytes_sent;
        self.bytes_received += outcome.bytes_received;
        if let Some(status) = outcome.status {
            count(&mut self.statuses, status.to_string());
        }
        self.note_lag(when);
        for (name, wrong) in outcome.checks {
            self.check(name, wrong);
        }
        match outcome.failure {
            None => self.succeed(outcome.timings, when, segment),
            Some(failure) => {
                self.recent.failed += 1;
                let kind = count(&mut self.errors, failure.kind);
                self.samples.entry(kind).or_insert(failure.message);
            }
        }
    }

    fn note_lag(&mut self, when: When) {
        self.held_back += u64::from(when.held_back);
        // What was held back is late by the target's doing.
        if when.timed && !when.held_back {
            let lag = when.began.saturating_sub(when.due);
            self.timed += 1;
            self.late += u64::from(lag > LATE);
            self.own(names::SEND_LAG, lag);
        }
    }

    fn succeed(&mut self, timings: Vec<(Timing, Duration)>, when: When, segment: usize) {
        self.succeeded += 1;
        self.recent.succeeded += 1;
        let latency = when.ended.saturating_sub(when.due);
        self.own(names::LATENCY, latency);
        self.recent.latency.record(latency);
        if let Some(segment) = self.segments.get_mut(segment) {
            segment.record(latency);
        }
        for (timing, took) in timings {
            match timing {
                Timing::Own(name) => self.own(name, took),
                Timing::Server(name) => self.other(format!("server.{name}"), took),
                Timing::Step(name) => self.other(format!("step.{name}"), took),
            }
        }
    }

    fn own(&mut self, name: &'static str, took: Duration) {
        match OWN.iter().position(|own| *own == name) {
            Some(index) => self.own[index].record(took),
            None => self.other(name.to_owned(), took),
        }
    }

    fn other(&mut self, name: String, took: Duration) {
        let known = self.timings.contains_key(&name) || self.timings.len() < KINDS_MAX;
        let name = if known { name } else { OTHER.to_owned() };
        self.timings.entry(name).or_default().record(took);
    }

    fn check(&mut self, name: &str, wrong: Option<String>) {
        let outcome = match self.checks.get_mut(name) {
            Some(outcome) => outcome,
            None => self.checks.entry(name.to_owned()).or_default(),
        };
        match wrong {
            None => outcome.passed += 1,
            Some(wrong) => {
                outcome.failed += 1;
                outcome.first.get_or_insert(wrong);
            }
        }
    }

    /// Gives what has ended since the last look.
    pub(crate) fn take_recent(&mut self) -> Recent {
        std::mem::take(&mut self.recent)
    }

    /// The commonest error, and how many there were in all: good answers and failures.
    pub(crate) fn totals(&self) -> (u64, u64, Option<(&str, u64)>) {
        let worst = self.errors.iter().max_by_key(|(_, count)| **count);
        let failed = self.errors.values().sum();
        (self.succeeded, failed, worst.map(|(kind, count)| (kind.as_str(), *count)))
    }

    /// Late sends, all that had a time, and those that were held back.
    pub(crate) fn sends(&self) -> (u64, u64, u64) {
        (self.late, self.timed, self.held_back)
    }

    /// Adds everything to a part; its segments become the ones from `first` on.
    pub(crate) fn add_to(&self, part: &mut Part, first: usize) {
        part.planned += self.planned;
        part.warmup_requests += self.warmup;
        part.sent += self.sent;
        part.succeeded += self.succeeded;
        part.connections += self.connections;
        part.bytes_sent += self.bytes_sent;
        part.bytes_received += self.bytes_received;
        for (from, into) in [(&self.errors, &mut part.errors), (&self.statuses, &mut part.statuses)]
        {
            for (kind, count) in from {
                *into.entry(kind.clone()).or_default() += count;
            }
        }
        for (kind, sample) in &self.samples {
            part.samples.entry(kind.clone()).or_insert_with(|| sample.clone());
        }
        for (name, from) in &self.checks {
            let into = part.checks.entry(name.clone()).or_default();
            into.passed += from.passed;
            into.failed += from.failed;
            into.first = into.first.take().or_else(|| from.first.clone());
        }
        let own =
            OWN.iter().zip(&self.own).map(|(name, histogram)| ((*name).to_owned(), histogram));
        let others = self.timings.iter().map(|(name, histogram)| (name.clone(), histogram));
        for (name, histogram) in own.chain(others).filter(|(_, histogram)| !histogram.is_empty()) {
            part.timings.entry(name).or_default().merge(histogram);
        }
        part.segments
            .resize_with(part.segments.len().max(first + self.segments.len()), Histogram::default);
        for (into, from) in part.segments[first..].iter_mut().zip(&self.segments) {
            into.merge(from);
        }
    }
}

/// Counts one of a kind; gives the kind that it was counted as.
fn count(counts: &mut BTreeMap<String, u64>, kind: String) -> String {
    let known = counts.contains_key(&kind) || counts.len() < KINDS_MAX;
    let kind = if known { kind } else { OTHER.to_owned() };
    if let Some(count) = counts.get_mut(&kind) {
        *count += 1;
    } else {
        counts.insert(kind.clone(), 1);
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Failure;

    fn when(due: u64, began: u64, ended: u64) -> When {
        let ms = Duration::from_millis;
        When { due: ms(due), began: ms(began), ended: ms(ended), held_back: false, timed: true }
    }

    #[test]
    fn latency_runs_from_the_moment_a_request_was_due() {
        let mut recorder = Recorder::new(1);
        recorder.plan();
        recorder.note(Outcome::default(), when(10, 30, 50), 0);
        let mut part = Part::default();
        recorder.add_to(&mut part, 0);
        assert!((part.timings[names::LATENCY].quantile_ms(0.5) - 40.0).abs() < 0.1);
        assert!((part.timings[names::SEND_LAG].quantile_ms(0.5) - 20.0).abs() < 0.1);
        assert_eq!((part.planned, part.sent, part.succeeded), (1, 1, 1));
        assert_eq!(part.segments[0].len(), 1);
        assert_eq!(recorder.sends(), (1, 1, 0));
    }

    #[test]
    fn failures_count_by_kind_and_have_no_latency() {
        let mut recorder = Recorder::new(1);
        for index in 0..3 {
            let failure = Failure::new("timeout", format!("number {index}"));
            recorder.note(Outcome::failed(failure), when(0, 0, 9), 0);
        }
        let mut part = Part::default();
        recorder.add_to(&mut part, 0);
        assert_eq!(part.errors["timeout"], 3);
        assert_eq!(part.samples["timeout"], "number 0");
        assert!(!part.timings.contains_key(names::LATENCY));
        assert_eq!(recorder.take_recent().failed, 3);
        assert_eq!(recorder.take_recent().failed, 0);
    }

    #[test]
    fn a_target_that_makes_up_kinds_does_not_fill_memory() {
        let mut recorder = Recorder::new(0);
        for index in 0..10_000 {
            let timings = vec![(Timing::Server(format!("t{index}")), Duration::from_millis(1))];
            recorder.note(Outcome { timings, ..Outcome::default() }, when(0, 0, 1), 0);
            let failure = Failure::new(format!("kind {index}"), "");
            recorder.note(Outcome::failed(failure), when(0, 0, 1), 0);
        }
        assert!(recorder.timings.len() <= KINDS_MAX + 1);
        assert!(recorder.errors.len() <= KINDS_MAX + 1);
        assert_eq!(recorder.errors.values().sum::<u64>(), 10_000);
    }
}
