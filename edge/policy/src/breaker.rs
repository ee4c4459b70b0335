//! Is this upstream host worth a try now? A circuit breaker per host.

use std::{
    collections::VecDeque,
    hash::Hash,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    keys::OurKeys,
    shards::{SHARDS, Shards},
};

/// Slices of the sliding window.
const SLICES: u32 = 10;
/// Hosts that are watched at a time.
const HOSTS_MAX: usize = 1 << 13;

/// When a breaker opens and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerConfig {
    /// Failures in a row that open it.
    pub consecutive_max: u32,
    /// Failures in a hundred that open it.
    pub failure_percent: u32,
    /// Outcomes in the window before the share counts.
    pub window_min: u32,
    /// How long outcomes count.
    pub window: Duration,
    /// First pause; doubles with each failed probe.
    pub pause: Duration,
    /// Longest pause.
    pub pause_max: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            consecutive_max: 5,
            failure_percent: 50,
            window_min: 20,
            window: Duration::from_secs(10),
            pause: Duration::from_millis(500),
            pause_max: Duration::from_secs(30),
        }
    }
}

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Everything.
    Closed,
    /// Nothing until then.
    Open {
        /// When a probe may go.
        until: Instant,
    },
    /// One probe is on its way.
    HalfOpen {
        /// When it counts as lost and another may go.
        until: Instant,
    },
}

/// Whether a request may go to the host. Report its outcome with what came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Go,
    /// It may, and decides whether others may.
    Probe,
    /// It may not.
    Wait {
        /// How long no request may.
        retry_after: Duration,
    },
}

/// One host's breaker: a state machine without a clock.
#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    state: State,
    opened: u32,
    consecutive: u32,
    slices: VecDeque<Slice>,
}

#[derive(Debug, Clone, Copy)]
struct Slice {
    from: Instant,
    good: u32,
    bad: u32,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(config: BreakerConfig) -> Self {
        let slices = VecDeque::new();
        Self { config, state: State::Closed, opened: 0, consecutive: 0, slices }
    }

    /// What it lets through now.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Asks for a request. A probe whose outcome is not reported within the longest pause counts
    /// as lost.
    pub fn ask(&mut self, now: Instant) -> Decision {
        match self.state {
            State::Closed => Decision::Go,
            State::Open { until } | State::HalfOpen { until } if now < until => {
                Decision::Wait { retry_after: until - now }
            }
            State::Open { .. } | State::HalfOpen { .. } => {
                self.state = State::HalfOpen { until: now + self.config.pause_max };
                Decision::Probe
            }
        }
    }

    /// The request succeeded: the host answered, whatever it said.
    pub fn succeeded(&mut self, decision: Decision, now: Instant) {
        match (self.state, decision) {
            (State::Closed, _) => {
                self.consecutive = 0;
                self.slice(now).good += 1;
            }
            (State::HalfOpen { .. }, Decision::Probe) => {
                *self = Self { opened: 0, ..Self::new(self.config) };
            }
            // A straggler from before it opened proves nothing.
            _ => {}
        }
    }

    /// The request failed: refused, reset, timed out. `jitter`, 0 to 255, spreads the pause over
    /// three quarters to five quarters of its length.
    pub fn failed(&mut self, decision: Decision, jitter: u8, now: Instant) {
        match (self.state, decision) {
            (State::Closed, _) => {
                self.consecutive += 1;
                self.slice(now).bad += 1;
                if self.is_bad() {
                    self.open(jitter, now);
                }
            }
            (State::HalfOpen { .. }, Decision::Probe) => self.open(jitter, now),
            _ => {}
        }
    }

    /// The request ended without telling anything about the host: its client went away.
    pub fn abandoned(&mut self, decision: Decision, now: Instant) {
        if let (State::HalfOpen { .. }, Decision::Probe) = (self.state, decision) {
            self.state = State::Open { until: now };
        }
    }

    /// Whether forgetting it changes nothing.
    fn is_idle(&self, now: Instant) -> bool {
        let recent = |slice: &Slice| now.saturating_duration_since(slice.from) < self.config.window;
        self.state == State::Closed && !self.slices.iter().any(recent)
    }

    fn open(&mut self, jitter: u8, now: Instant) {
        let doubled = self.config.pause.saturating_mul(1 << self.opened.min(20));
        let pause = doubled.min(self.config.pause_max);
        let pause = pause * 3 / 4 + pause * u32::from(jitter) / 512;
        self.opened = self.opened.saturating_add(1);
        self.consecutive = 0;
        self.slices.clear();
        self.state = State::Open { until: now + pause };
    }

    fn is_bad(&self) -> bool {
        let sum = |count: fn(&Slice) -> u32| {
            self.slices.iter().map(|slice| u64::from(count(slice))).sum::<u64>()
        };
        let (good, bad) = (sum(|slice| slice.good), sum(|slice| slice.bad));
        let enough = good + bad >= u64::from(self.config.window_min);
        self.consecutive >= self.config.consecutive_max
            || (enough && bad * 100 >= (good + bad) * u64::from(self.config.failure_percent))
    }

    /// The slice that `now` falls into; those that have left the window go.
    fn slice(&mut self, now: Instant) -> &mut Slice {
        let window = self.config.window;
        let age = |slice: &Slice| now.saturating_duration_since(slice.from);
        while self.slices.front().is_some_and(|slice| age(slice) >= window) {
            self.slices.pop_front();
        }
        if self.slices.back().is_none_or(|slice| age(slice) >= window / SLICES) {
            self.slices.push_back(Slice { from: now, good: 0, bad: 0 });
        }
        self.slices.back_mut().expect("one was pushed if there was none")
    }
}

/// A breaker per key, by default per agent's address. Keys are ours, not a client's to choose.
#[derive(Debug)]
pub struct Breakers<K = SocketAddr> {
    config: BreakerConfig,
    hosts: Shards<K, Breaker, OurKeys>,
}

impl<K: Hash + Eq + Copy> Breakers<K> {
    /// All closed.
    #[must_use]
    pub fn new(config: BreakerConfig) -> Self {
        Self { config, hosts: Shards::new() }
    }

    /// Whether a request may go to `host`. A host nobody reported on has no entry.
    #[must_use]
    pub fn ask(&self, host: K, now: Instant) -> Decision {
        self.hosts.lock(&host).get_mut(&host).map_or(Decision::Go, |breaker| breaker.ask(now))
    }

    /// The request succeeded. Of a host that nobody reported a failure on, nothing is noted.
    pub fn succeeded(&self, host: K, decision: Decision, now: Instant) {
        if let Some(breaker) = self.hosts.lock(&host).get_mut(&host) {
            breaker.succeeded(decision, now);
        }
    }

    /// The request failed.
    pub fn failed(&self, host: K, decision: Decision, now: Instant) {
        let jitter = rand::random();
        self.with(host, now, |breaker| breaker.failed(decision, jitter, now));
    }

    /// The request ended without telling anything about the host.
    pub fn abandoned(&self, host: K, decision: Decision, now: Instant) {
        if decision == Decision::Probe {
            self.with(host, now, |breaker| breaker.abandoned(decision, now));
        }
    }

    /// What `host`'s breaker lets through.
    #[must_use]
    pub fn state(&self, host: K) -> State {
        self.hosts.lock(&host).get(&host).map_or(State::Closed, Breaker::state)
    }

    fn with(&self, host: K, now: Instant, act: impl FnOnce(&mut Breaker)) {
        let mut shard = self.hosts.lock(&host);
        if !shard.contains_key(&host) && shard.len() >= HOSTS_MAX / SHARDS {
            shard.retain(|_, breaker| !breaker.is_idle(now));
            if shard.len() >= HOSTS_MAX / SHARDS {
                // Everything here is in trouble; one more host goes unwatched.
                return;
            }
        }
        act(shard.entry(host).or_insert_with(|| Breaker::new(self.config)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(BreakerConfig::default());
        for _ in 0..5 {
            breaker.failed(Decision::Go, 128, now);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_probe_closes_it() {
        let now = Instant::now();
        let mut breaker = broken(now);
        let Decision::Wait { retry_after } = breaker.ask(now) else { panic!("it is open") };
        assert_eq!(retry_after, Duration::from_millis(500));
        let later = now + retry_after;
        assert_eq!(breaker.ask(later), Decision::Probe);
        assert!(matches!(breaker.ask(later), Decision::Wait { .. }), "one probe at a time");
        breaker.succeeded(Decision::Go, later);
        assert!(matches!(breaker.state(), State::HalfOpen { .. }), "a straggler proves nothing");
        breaker.succeeded(Decision::Probe, later);
        assert_eq!(breaker.ask(later), Decision::Go);
    }

    #[test]
    fn pauses_double_to_a_bound_and_are_spread() {
        let mut now = Instant::now();
        let mut breaker = broken(now);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let Decision::Wait { retry_after } = breaker.ask(now) else { panic!("it is open") };
            pauses.push(retry_after);
            now += retry_after;
            assert_eq!(breaker.ask(now), Decision::Probe);
            breaker.failed(Decision::Probe, 128, now);
        }
        assert_eq!(pauses[1], Duration::from_secs(1));
        assert_eq!(pauses[9], Duration::from_secs(30));
        let mut early = Breaker::new(BreakerConfig::default());
        (0..5).for_each(|_| early.failed(Decision::Go, 0, now));
        assert_eq!(early.ask(now), Decision::Wait { retry_after: Duration::from_millis(375) });
    }

    #[test]
    fn a_share_of_failures_opens_it_only_within_the_window() {
        let start = Instant::now();
        let mut breaker = Breaker::new(BreakerConfig::default());
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            for _ in 0..2 {
                breaker.succeeded(Decision::Go, now);
                breaker.failed(Decision::Go, 0, now);
            }
        }
        // Ten seconds hold 40 outcomes, half of them bad.
        assert!(matches!(breaker.state(), State::Open { .. }));
        let mut slow = Breaker::new(BreakerConfig::default());
        for second in 0..60 {
            let now = start + Duration::from_secs(second * 2);
            slow.failed(Decision::Go, 0, now);
            slow.succeeded(Decision::Go, now);
        }
        assert_eq!(slow.state(), State::Closed, "too few in a window to judge");
    }

    #[test]
    fn a_lost_or_abandoned_probe_does_not_keep_it_shut() {
        let now = Instant::now();
        let mut breaker = broken(now);
        let later = now + Duration::from_secs(1);
        assert_eq!(breaker.ask(later), Decision::Probe);
        breaker.abandoned(Decision::Probe, later);
        assert_eq!(breaker.ask(later), Decision::Probe);
        let much_later = later + BreakerConfig::default().pause_max;
        assert_eq!(breaker.ask(much_later), Decision::Probe);
    }

    #[test]
    fn hosts_are_apart_and_bounded() {
        let (breakers, now) = (Breakers::new(BreakerConfig::default()), Instant::now());
        (0..5).for_each(|_| breakers.failed(1_u32, Decision::Go, now));
        assert!(matches!(breakers.ask(1, now), Decision::Wait { .. }));
        assert_eq!(breakers.ask(2, now), Decision::Go);
        (2..100_000).for_each(|host| breakers.succeeded(host, Decision::Go, now));
        assert_eq!(breakers.hosts.len(), 1, "who never failed takes no memory");
        (2..100_000).for_each(|host| breakers.failed(host, Decision::Go, now));
        assert!(breakers.hosts.len() <= HOSTS_MAX);
        assert!(matches!(breakers.state(1), State::Open { .. }));
    }
}
