//! What a disturbance cost: how long until all was well again, and what was lost meanwhile.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What was disturbed on purpose, and how it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Disturbance {
    /// What was done, in words.
    pub what: String,
    /// The part it fell into.
    pub part: String,
    /// When, seconds since that part began to measure.
    pub at_s: f64,
    /// What became of it, if it could not be done.
    pub failed: Option<String>,
    /// Requests that failed from then until all was well again.
    pub lost: u64,
    /// From the disturbance until the end of the last failure, milliseconds; 0 if nothing failed.
    pub outage_ms: f64,
    /// From the disturbance until the first good answer to a request that was sent after it (and
    /// after the last failure), milliseconds. None if none came before the end.
    pub recovery_ms: Option<f64>,
}

/// Follows the answers after a disturbance. Times are since the part's begin.
#[derive(Debug, Clone)]
pub struct Recovery {
    at: Duration,
    lost: u64,
    last_failure: Option<Duration>,
    first_good: Option<Duration>,
}

impl Recovery {
    /// Begins at a disturbance.
    #[must_use]
    pub fn new(at: Duration) -> Self {
        Self { at, lost: 0, last_failure: None, first_good: None }
    }

    /// Takes one answer: when its request was sent, when it ended, and how.
    pub fn note(&mut self, sent: Duration, ended: Duration, good: bool) {
        if ended < self.at {
            return;
        }
        if !good {
            self.lost += 1;
            let last = self.last_failure.map_or(ended, |last| last.max(ended));
            self.last_failure = Some(last);
            if self.first_good.is_some_and(|first| first <= last) {
                self.first_good = None;
            }
            return;
        }
        let after = sent >= self.at && self.last_failure.is_none_or(|last| ended > last);
        if after && self.first_good.is_none_or(|first| ended < first) {
            self.first_good = Some(ended);
        }
    }

    /// Requests that failed.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// From the disturbance to the last failure, milliseconds.
    #[must_use]
    pub fn outage_ms(&self) -> f64 {
        self.last_failure.map_or(0.0, |last| self.since(last))
    }

    /// From the disturbance to the first good answer after the last failure, milliseconds.
    #[must_use]
    pub fn recovery_ms(&self) -> Option<f64> {
        self.first_good.map(|first| self.since(first))
    }

    fn since(&self, then: Duration) -> f64 {
        then.saturating_sub(self.at).as_secs_f64() * 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn recovery_is_the_first_good_answer_after_the_last_failure() {
        let mut recovery = Recovery::new(ms(1000));
        recovery.note(ms(980), ms(999), false); // before: not its doing
        recovery.note(ms(990), ms(1010), true); // sent before: says nothing of after
        assert_eq!(recovery.recovery_ms(), None);
        recovery.note(ms(1005), ms(1020), true);
        recovery.note(ms(1030), ms(1200), false);
        recovery.note(ms(1100), ms(1100), true); // ended before a failure that came after
        assert_eq!(recovery.recovery_ms(), None);
        recovery.note(ms(1250), ms(1300), true);
        recovery.note(ms(1300), ms(1400), true);
        assert_eq!((recovery.lost(), recovery.outage_ms()), (1, 200.0));
        assert_eq!(recovery.recovery_ms(), Some(300.0));
    }

    #[test]
    fn what_nothing_noticed_was_recovered_from_at_once() {
        let mut recovery = Recovery::new(ms(10));
        recovery.note(ms(11), ms(12), true);
        assert_eq!((recovery.lost(), recovery.outage_ms()), (0, 0.0));
        assert_eq!(recovery.recovery_ms(), Some(2.0));
    }
}
