//! What a pool counted, and how long things took.

use std::time::Duration;

use crate::{
    breaker::BreakerState,
    histogram::Histogram,
    series::{Sample, Series},
};

/// Samples kept for percentiles: the most recent ones, 16 bytes each.
const SAMPLES: usize = 1024;
/// Kinds of steps that are told apart; a driver has about ten.
const STEPS_MAX: usize = 32;

/// A pool at one moment. Counters start at the pool's creation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Ready to be leased.
    pub warm: u32,
    /// Being restored.
    pub restoring: u32,
    /// Lent out.
    pub leased: u32,
    /// Being destroyed.
    pub reaping: u32,
    /// Warm ones that the sizing wants now.
    pub target: u32,
    /// Most that the host's memory budget grants now; `u32::MAX` until one was set.
    pub cap: u32,
    /// Leases served by a sandbox that was warm when they came.
    pub hits: u64,
    /// Leases that waited for a restore and got one.
    pub misses: u64,
    /// Leases refused, and callers who gave up.
    pub refused: u64,
    /// Leases of a sandbox that had served before; hits or misses as well.
    pub reused: u64,
    /// Restores that ended well.
    pub restored: u64,
    /// Restores that failed.
    pub failed: u64,
    /// Warm sandboxes reaped by the idle TTL.
    pub reaped_idle: u64,
    /// Leases cut at their limit.
    pub reaped_lease: u64,
    /// Warm sandboxes replaced for their age.
    pub reaped_age: u64,
    /// Warm sandboxes given up for other functions.
    pub evicted: u64,
    /// Wait from asking to having, median of the recent ones, microseconds.
    pub lease_wait_us_p50: u64,
    /// Its 99th percentile.
    pub lease_wait_us_p99: u64,
    /// Restore time, median of the recent ones, milliseconds.
    pub restore_ms_p50: u64,
    /// Its 99th percentile.
    pub restore_ms_p99: u64,
    /// Why the last restore failed; empty after one that did not.
    pub last_error: String,
    /// Whether restores are made.
    pub breaker: BreakerState,
    /// Until the next restore while the breaker is open, milliseconds; else 0.
    pub retry_in_ms: u64,
    /// Every wait since the pool's creation.
    pub lease_wait: Histogram,
    /// Every restore since the pool's creation.
    pub restore: Histogram,
    /// The steps of recent restores, in the order in which they were first met.
    pub steps: Vec<RestoreStep>,
    /// The last hour, oldest first.
    pub series: Vec<Sample>,
}

/// One step of the recent restores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreStep {
    /// The driver's name for it.
    pub name: String,
    /// Restores that had it, since the pool's creation.
    pub count: u64,
    /// Median of the recent ones, microseconds.
    pub p50_us: u64,
    /// Their 99th percentile.
    pub p99_us: u64,
}

/// Two percentiles of a series; zero when it is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Percentiles {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// The most recent samples of a series.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    samples: Vec<Duration>,
    next: usize,
    count: u64,
}

impl Recent {
    pub(crate) fn add(&mut self, sample: Duration) {
        if self.samples.len() < SAMPLES {
            self.samples.push(sample);
        } else {
            self.samples[self.next] = sample;
        }
        self.next = (self.next + 1) % SAMPLES;
        self.count += 1;
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        let at = |percent: usize| {
            sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        };
        Percentiles {
            p50: at(50).copied().unwrap_or_default(),
            p99: at(99).copied().unwrap_or_default(),
        }
    }
}

/// Everything a pool remembers of its past.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// The counters; what is told apart from them is filled in by [`Record::stats`].
    pub(crate) counted: Stats,
    pub(crate) series: Series,
    waits: Recent,
    restores: Recent,
    steps: Vec<(&'static str, Recent)>,
}

impl Record {
    /// A caller got a sandbox.
    pub(crate) fn lent(&mut self, waited: Duration, hit: bool, reused: bool) {
        let counted = &mut self.counted;
        *(if hit { &mut counted.hits } else { &mut counted.misses }) += 1;
        counted.reused += u64::from(reused);
        counted.lease_wait.add(waited);
        self.waits.add(waited);
    }

    /// A restore ended well.
    pub(crate) fn restored(&mut self, took: Duration, steps: &[(&'static str, Duration)]) {
        self.counted.restored += 1;
        self.counted.last_error.clear();
        self.counted.restore.add(took);
        self.restores.add(took);
        for (name, took) in steps {
            if let Some((_, recent)) = self.steps.iter_mut().find(|(known, _)| known == name) {
                recent.add(*took);
            } else if self.steps.len() < STEPS_MAX {
                let mut recent = Recent::default();
                recent.add(*took);
                self.steps.push((name, recent));
            } else {
                tracing::debug!("step {name} is one too many: not recorded");
            }
        }
    }

    /// A restore failed.
    pub(crate) fn failed(&mut self, why: String) {
        self.counted.failed += 1;
        self.counted.last_error = why;
    }

    /// How long a restore takes on average; zero before the first.
    pub(crate) fn restore_mean(&self) -> Duration {
        self.counted.restore.mean()
    }

    /// What was counted; how things stand now is the caller's to fill in.
    pub(crate) fn stats(&self) -> Stats {
        let (wait, restore) = (self.waits.percentiles(), self.restores.percentiles());
        let us = |took: Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let ms = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let step = |(name, recent): &(&str, Recent)| {
            let Percentiles { p50, p99 } = recent.percentiles();
            let (p50_us, p99_us) = (us(p50), us(p99));
            RestoreStep { name: (*name).to_owned(), count: recent.count, p50_us, p99_us }
        };
        Stats {
            lease_wait_us_p50: us(wait.p50),
            lease_wait_us_p99: us(wait.p99),
            restore_ms_p50: ms(restore.p50),
            restore_ms_p99: ms(restore.p99),
            steps: self.steps.iter().map(step).collect(),
            series: self.series.samples(),
            ..self.counted.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_recent_samples() {
        let mut recent = Recent::default();
        assert_eq!(recent.percentiles(), Percentiles::default());
        for ms in 1..=100 {
            recent.add(Duration::from_millis(ms));
        }
        assert_eq!(recent.percentiles().p50, Duration::from_millis(51));
        assert_eq!(recent.percentiles().p99, Duration::from_millis(100));
        for _ in 0..SAMPLES {
            recent.add(Duration::from_millis(7));
        }
        assert_eq!(recent.percentiles().p99, Duration::from_millis(7));
    }

    #[test]
    fn record_tells_steps_apart_and_forgets_the_error_after_a_success() {
        let mut record = Record::default();
        record.failed("no disk".to_owned());
        assert_eq!(record.stats().last_error, "no disk");
        let ms = Duration::from_millis;
        record.restored(ms(30), &[("slot", ms(10)), ("vmm", ms(20))]);
        record.restored(ms(50), &[("vmm", ms(40))]);
        record.lent(ms(3), false, true);
        let stats = record.stats();
        let steps: Vec<_> =
            stats.steps.iter().map(|s| (s.name.as_str(), s.count, s.p99_us)).collect();
        assert_eq!(steps, [("slot", 1, 10_000), ("vmm", 2, 40_000)]);
        assert_eq!((stats.last_error.as_str(), stats.restored, stats.failed), ("", 2, 1));
        assert_eq!((stats.hits, stats.misses, stats.reused), (0, 1, 1));
        assert_eq!((stats.lease_wait.count, stats.restore.sum_us), (1, 80_000));
        assert_eq!(record.restore_mean(), ms(40));
    }
}
