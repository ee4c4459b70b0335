//! When does one certificate of the ACME authority have to be ordered?

use jiff::{SignedDuration, Timestamp, ToSpan as _};

use crate::{
    acme::{AcmeConfig, Job, backoff, renew_at},
    error::TlsError,
    status::Progress,
    x509::Facts,
};

/// The shortest and longest time between two questions when to renew, in seconds (RFC 9773
/// section 4.3.2 recommends bounds like these).
const WINDOW_ASK_SECONDS: (u64, u64) = (60 * 60, 24 * 60 * 60);

/// Names that have, or shall have, one certificate.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) names: Vec<String>,
    /// Whether the hook proves the names.
    pub(crate) by_dns: bool,
    /// Whether somebody has to allow it again before it is renewed.
    pub(crate) on_demand: bool,
    /// When to order next.
    pub(crate) due: Timestamp,
    /// When to ask the authority next about `due`; `None`: it doesn't know.
    pub(crate) ask_window: Option<Timestamp>,
    /// The certificate that is held.
    held: Option<Facts>,
    /// Whether the authority knows renewal information, and so wants to hear what is replaced.
    knows_windows: bool,
    failures: u32,
    last_error: Option<String>,
}

impl Subject {
    pub(crate) fn new(names: Vec<String>, by_dns: bool, on_demand: bool, now: Timestamp) -> Self {
        Self {
            names,
            by_dns,
            on_demand,
            due: now,
            ask_window: None,
            held: None,
            knows_windows: false,
            failures: 0,
            last_error: None,
        }
    }

    /// There is a certificate: it is renewed when its time comes, or now if it lacks a name.
    /// Returns whether that is news.
    pub(crate) fn hold(&mut self, facts: &Facts, now: Timestamp) -> bool {
        if self.held.as_ref() == Some(facts) {
            return false;
        }
        let is_whole = self.names.iter().all(|name| facts.covers(name));
        self.due = if is_whole { renew_at(facts, rand::random()) } else { now };
        self.ask_window = Some(now);
        self.held = Some(facts.clone());
        (self.failures, self.last_error) = (0, None);
        true
    }

    /// An order failed: the next one waits.
    pub(crate) fn fail(&mut self, error: &TlsError, config: &AcmeConfig, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(error.chain());
        let mut wait = backoff(self.failures, (config.retry_min, config.retry_max), rand::random());
        if error.is_rate_limit() {
            wait = wait.max(std::time::Duration::from_secs(60 * 60)).min(config.retry_max);
        }
        self.due = now.checked_add(wait).unwrap_or(now);
    }

    /// What the authority says about when to renew; not later than by our own reckoning.
    pub(crate) fn advise(&mut self, advice: Option<(Timestamp, u64)>, now: Timestamp) {
        let Some((at, again)) = advice else {
            self.ask_window = None;
            return;
        };
        self.knows_windows = true;
        if self.failures == 0 {
            let end = self.held.as_ref().map_or(at, |facts| facts.not_after);
            self.due = at.min(end);
        }
        self.ask_later(again, now);
    }

    /// Asks for the window again after so many seconds, within bounds.
    pub(crate) fn ask_later(&mut self, seconds: u64, now: Timestamp) {
        let seconds = seconds.clamp(WINDOW_ASK_SECONDS.0, WINDOW_ASK_SECONDS.1);
        self.ask_window = Some(now + i64::try_from(seconds).unwrap_or(i64::MAX).seconds());
    }

    /// After an order: a new certificate whose time has come already is odd, so it is not ordered
    /// again at once, nor is the authority asked at once whether it should be.
    pub(crate) fn rest(&mut self, now: Timestamp) {
        let Some(facts) = &self.held else { return };
        let life = facts.not_after.duration_since(facts.not_before);
        if self.due <= now {
            let bounds = (SignedDuration::from_mins(1), SignedDuration::from_hours(1));
            self.due = now.checked_add((life / 3).clamp(bounds.0, bounds.1)).unwrap_or(now);
        }
        self.ask_later(0, now);
    }

    /// Whether the certificate is, or will be, for this name, too.
    pub(crate) fn covers(&self, name: &str) -> bool {
        let by_wildcard = |own: &str, rest: &str| own.strip_prefix("*.") == Some(rest);
        self.names.iter().any(|own| {
            own == name || name.split_once('.').is_some_and(|(_, rest)| by_wildcard(own, rest))
        })
    }

    pub(crate) fn held(&self) -> Option<&Facts> {
        self.held.as_ref()
    }

    pub(crate) fn job(&self, id: &str) -> Job {
        // After a failure without: the authority may have taken the order that replaces it.
        let tell = self.knows_windows && self.failures == 0;
        Job {
            id: id.to_owned(),
            names: self.names.clone(),
            by_dns: self.by_dns,
            replaces: self.held.clone().filter(|_| tell),
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress {
            names: self.names.clone(),
            last_error: self.last_error.clone(),
            next_attempt: Some(self.due),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

    use std::path::PathBuf;

    use super::*;

    fn facts(now: Timestamp, name: &str) -> Facts {
        Facts {
            names: vec![name.to_owned()],
            not_before: now - 24.hours(),
            not_after: now + (24 * 89).hours(),
            serial: vec![1],
            authority_key: Some(vec![2]),
        }
    }

    fn subject(now: Timestamp) -> Subject {
        Subject::new(vec!["a.example.com".to_owned()], false, true, now)
    }

    #[test]
    fn certificate_that_lacks_a_name_is_ordered_again_at_once() {
        let now = Timestamp::now();
        let mut subject = subject(now);
        subject.hold(&facts(now, "b.example.com"), now);
        assert_eq!(subject.due, now);
        subject.hold(&facts(now, "a.example.com"), now);
        assert!(subject.due > now + (24 * 50).hours() && subject.due < now + (24 * 60).hours());
    }

    #[test]
    fn failures_wait_longer_and_longer_and_success_forgets_them() {
        let now = Timestamp::now();
        let config = AcmeConfig::new("https://ca.example", PathBuf::from("acme"));
        let mut subject = subject(now);
        for least in [54, 108, 216] {
            subject.fail(&TlsError::Timeout("the order"), &config, now);
            let wait = subject.due.duration_since(now).as_secs();
            assert!((least..=least * 10 / 9 + 1).contains(&wait), "{wait}");
        }
        assert!(subject.progress().last_error.unwrap().contains("too long"));
        subject.hold(&facts(now, "a.example.com"), now);
        assert_eq!(subject.progress().last_error, None);
    }

    #[test]
    fn authority_that_asks_for_patience_gets_more_of_it() {
        let now = Timestamp::now();
        let config = AcmeConfig::new("https://ca.example", PathBuf::from("acme"));
        let problem = serde_json::json!({
            "type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many", "status": 429
        });
        let problem: instant_acme::Problem = serde_json::from_value(problem).unwrap();
        let source = Box::new(instant_acme::Error::Api(problem));
        let mut subject = subject(now);
        subject.fail(&TlsError::Acme { step: "order", source }, &config, now);
        assert!(subject.due >= now + 1.hour());
        assert!(subject.progress().last_error.unwrap().contains("too many"));
    }

    #[test]
    fn new_certificate_that_is_old_already_is_not_ordered_in_a_loop() {
        let now = Timestamp::now();
        let mut subject = subject(now);
        let mut old = facts(now, "a.example.com");
        old.not_after = now - 1.hour();
        subject.hold(&old, now);
        assert!(subject.due <= now, "at a start, it is renewed at once");
        subject.rest(now);
        assert!(subject.due >= now + 1.minute() && subject.ask_window > Some(now));
    }

    #[test]
    fn authority_may_ask_for_an_early_renewal_and_hears_what_is_replaced() {
        let now = Timestamp::now();
        let mut subject = subject(now);
        subject.hold(&facts(now, "a.example.com"), now);
        assert!(subject.job("a").replaces.is_none(), "it has not said that it knows of this");
        subject.advise(Some((now - 1.hour(), 5)), now);
        assert!(subject.due < now, "revoked soon, perhaps: renew now");
        assert_eq!(subject.ask_window, Some(now + 1.hour()), "not every 5 s");
        assert!(subject.job("a").replaces.is_some());
        subject.advise(None, now);
        assert_eq!(subject.ask_window, None);
    }
}
