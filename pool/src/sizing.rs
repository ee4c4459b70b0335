//! How many sandboxes a pool should have warm: pure arithmetic over what it has seen.
//!
//! One price decides: a sandbox may stand idle for [`Sizing::idle_ttl`] for each caller whom it
//! saves the wait. The `n`-th warm sandbox is kept as long as it is expected to save callers more
//! often than that. What is expected comes from two models, each trusted as far as it foretold the
//! ends of past silences:
//!
//! - callers within a refill time, from memories of several lengths (`rate`): the `n`-th is
//!   needed by a caller that finds `n - 1` others within the refill time before it;
//! - when a silence ends and how many come then (`idle`, `beat`): a rare or periodic function
//!   has one warm only while its next caller is likely.
//!
//! While the rate is constant within its statistical error it is taken as known and the target is
//! held (`steady`), and so is the refill time (`refill`): a target that follows noise wastes what
//! it restores. What is over the target goes after a short [`Demand::grace`], not after the
//! idle TTL: one decision about what an idle sandbox is worth is enough.
//!
//! One price for every function is also what shares a host's memory best: where the last
//! sandbox of each function is worth the same, none is better placed elsewhere.

mod beat;
mod count;
mod idle;
mod rate;
mod refill;
mod steady;
#[cfg(test)]
mod tests;

use std::time::Duration;

use count::Counts;
use idle::Idle;
use rate::Rates;
use refill::Refill;

/// Refill times for which a sandbox over the target is kept, and seconds at least: a caller may
/// take it, and a target that fell by chance rises again.
const GRACE: (f64, f64) = (2.0, 1.0);

/// Seconds that nobody has come for, at least, before the first caller: a pool's first minutes
/// tell when it was made, not when it is called.
const UNSEEN_LEAST: f64 = 600.0;

/// Longest time between two reviews.
const REVIEW_MAX: f64 = 3600.0;

/// What a pool's owner and host allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizing {
    /// Fewest warm, scheduled times included.
    pub min_warm: u32,
    /// Most warm or restoring.
    pub max_warm: u32,
    /// Warm sandboxes on top of what the arrival rate asks for.
    pub burst: u32,
    /// How long a sandbox over `min_warm` may be idle, and the idle time that a caller served
    /// without waiting is worth.
    pub idle_ttl: Duration,
    /// Restores that may run at once; never 0.
    pub refill_concurrency: u32,
}

/// How many to have warm, and until when that holds if nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Warm or restoring sandboxes to have.
    pub warm: u32,
    /// When to ask again even if nothing has happened, since the pool's start.
    pub review_at: Duration,
}

/// What a pool has seen of its callers. Constant memory (about a kilobyte), no clock of its own.
#[derive(Debug, Clone)]
pub struct Demand {
    rates: Rates,
    idle: Idle,
    /// When the last caller came, seconds; none yet: `None`.
    last: Option<f64>,
    /// When the burst began that is being counted, and its callers.
    burst: Option<(f64, u32)>,
    refill: Refill,
    /// Counts what may change the target beside time and the rates.
    events: u64,
    /// How much better (natural logarithm) the idle times foretold than the rates.
    idle_lead: f64,
}

impl Default for Demand {
    fn default() -> Self {
        Self {
            rates: Rates::new(),
            idle: Idle::new(),
            last: None,
            burst: None,
            refill: Refill::new(),
            events: 0,
            idle_lead: 0.0,
        }
    }
}

impl Demand {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A caller asked for a sandbox, `now` since the pool's start.
    pub fn arrived(&mut self, now: Duration) {
        let now = now.as_secs_f64();
        let gap = self.last.map(|last| now - last);
        match gap {
            None => {
                self.events += 1;
                self.idle.began(now);
                self.burst = Some((now, 0));
            }
            Some(gap) if gap >= self.silence() => self.silence_ended(gap, now),
            Some(_) => {}
        }
        if let Some((began, count)) = &mut self.burst {
            if now - *began <= self.refill.seconds() {
                *count += 1;
            } else {
                let (_, count) = self.burst.take().unwrap_or_default();
                self.idle.burst(count);
            }
        }
        self.rates.arrived(now, self.bin());
        self.last = Some(now);
    }

    /// A restore took this long.
    pub fn restored(&mut self, took: Duration) {
        self.events += u64::from(self.refill.took(took.as_secs_f64()));
    }

    /// While this is the same and [`Target::review_at`] has not come, so is the target.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.events + self.rates.closed()
    }

    /// How long a sandbox may be over the target before it is ended, counted from when there were
    /// more warm than that: short, for the target already says what one more is worth. Before the
    /// first caller nothing is known, and the idle TTL holds; it is the longest in any case.
    #[must_use]
    pub fn grace(&self, sizing: &Sizing) -> Duration {
        match self.last {
            None => sizing.idle_ttl,
            Some(_) => seconds((GRACE.0 * self.refill.seconds()).max(GRACE.1)).min(sizing.idle_ttl),
        }
    }

    /// How many to have warm; a caller served without waiting is worth `idle_ttl` of idle time.
    #[must_use]
    pub fn target(&self, sizing: &Sizing, now: Duration) -> Target {
        self.target_at(sizing, sizing.idle_ttl, now)
    }

    /// The same where such a caller is worth `patience` of a sandbox's idle time: the knob for whoever
    /// has to share less memory than all functions would like.
    #[must_use]
    pub fn target_at(&self, sizing: &Sizing, patience: Duration, now: Duration) -> Target {
        let at = now.as_secs_f64();
        let most = sizing.max_warm.max(sizing.min_warm);
        let Some(last) = self.last else {
            return self.unseen(sizing, patience, at);
        };
        let view = View::new(self, sizing, patience, at, at - last);
        let needed = view.needed(most);
        let margin = if needed > 0 { sizing.burst } else { 0 };
        let warm = needed.saturating_add(margin).clamp(sizing.min_warm, most);
        let wait = view.holds_for(needed);
        Target { warm, review_at: now + seconds(wait) }
    }

    /// Before the first caller only an owner with hours of patience keeps one above the minimum.
    fn unseen(&self, sizing: &Sizing, patience: Duration, at: f64) -> Target {
        let hazard = self.idle.hazard(at.max(UNSEEN_LEAST), at);
        let kept = hazard * patience.as_secs_f64() >= 1.0 && at < sizing.idle_ttl.as_secs_f64();
        let warm = u32::from(kept).clamp(sizing.min_warm, sizing.max_warm.max(sizing.min_warm));
        let wait = if kept { (0.1 * at).max(60.0) } else { REVIEW_MAX };
        Target { warm, review_at: seconds(at + wait) }
    }

    /// A gap of at least this many seconds is a silence: what ends it is a burst of its own.
    fn silence(&self) -> f64 {
        (4.0 * self.refill.seconds()).max(1.0)
    }

    fn bin(&self) -> f64 {
        self.refill.seconds().clamp(0.05, 5.0)
    }

    fn silence_ended(&mut self, gap: f64, now: f64) {
        self.events += 1;
        if let Some((_, count)) = self.burst.take() {
            self.idle.burst(count);
        }
        self.rates.advance(now, self.bin());
        let by_rate = self.rates.ln_quiet() + self.rates.rate().ln();
        let by_idle = self.idle.density(gap, now).0.max(1e-12).ln();
        let lead = (by_idle - by_rate).clamp(-3.0, 3.0);
        self.idle_lead = (0.9 * self.idle_lead + lead).clamp(-8.0, 8.0);
        self.idle.ended(gap, now);
        self.burst = Some((now, 0));
    }
}

/// One memory's forecast of the callers within a refill time, walked through count by count.
struct Expert {
    weight: f64,
    counts: Counts,
    first: f64,
    last: f64,
    /// Probability of the count it stands at, and of fewer.
    probability: f64,
    below: f64,
}

impl Expert {
    /// Callers who find exactly `n - 1` others within the refill time before them (in a refill
    /// time), and how likely fewer than `n` are on their way; both by the memory's weight. To be
    /// called for 1, 2, 3 and so on.
    fn next(&mut self, n: u32) -> (f64, f64) {
        let count = f64::from(n);
        if count <= self.first || count > self.last + 1.0 {
            let below = if count <= self.first { 0.0 } else { 1.0 };
            return (0.0, self.weight * below);
        }
        if count < self.first + 1.5 {
            self.probability = self.counts.ln_probability(n - 1).exp();
        }
        self.below += self.probability;
        self.probability = self.counts.next(count - 1.0, self.probability);
        (self.weight * count * self.probability, self.weight * self.below.min(1.0))
    }
}

/// What is expected at one moment.
struct View<'a> {
    demand: &'a Demand,
    rates: Rates,
    now: f64,
    idle: f64,
    /// The refill time, longer when restores have to queue.
    lead: f64,
    /// Callers a second that a sandbox must be worth.
    price: f64,
    idle_ttl: f64,
    /// How far the idle times are trusted, 0 to 1.
    trust: f64,
}

impl<'a> View<'a> {
    fn new(demand: &'a Demand, sizing: &Sizing, patience: Duration, now: f64, idle: f64) -> Self {
        let mut rates = demand.rates.clone();
        rates.advance(now, demand.bin());
        let idle_ttl = sizing.idle_ttl.as_secs_f64().max(0.001);
        let price = 1.0 / patience.as_secs_f64().max(0.001);
        let places = f64::from(sizing.refill_concurrency.max(1));
        let refill = demand.refill.seconds();
        let busy = (rates.rate() * refill / places).min(0.9);
        // Restores that find all places taken wait about so much longer (M/D/c, heavy traffic).
        let lead = refill * (1.0 + busy.powf(places.sqrt()) / (2.0 * (1.0 - busy) * places));
        let trust = 1.0 / (1.0 + (-demand.idle_lead).exp());
        let trust = if idle < demand.silence() { 0.0 } else { trust };
        Self { demand, rates, now, idle, lead, price, idle_ttl, trust }
    }

    /// How many sandboxes are worth their price.
    fn needed(&self, most: u32) -> u32 {
        let late = self.idle >= self.idle_ttl;
        let hazard = match (late, self.trust > 0.0) {
            (true, _) => self.late_hazard(),
            (false, true) => self.hazard(self.idle),
            (false, false) => 0.0,
        };
        if late && hazard < self.price {
            return 0;
        }
        let trust = if late { 1.0 } else { self.trust };
        let mut experts = self.rates.outlook(self.lead).map(|(weight, counts)| {
            let (first, last) = counts.range();
            Expert {
                weight: weight * (1.0 - trust),
                counts,
                first,
                last,
                probability: 0.0,
                below: 0.0,
            }
        });
        let heard = experts.iter().filter(|expert| expert.weight > 0.0);
        let highest = heard.map(|expert| expert.last).fold(0.0, f64::max);
        let largest = f64::from(self.demand.idle.largest());
        let (mut best, mut best_worth, mut worth) = (0, 0.0, 0.0);
        for n in 1..=most {
            let count = f64::from(n);
            if count > highest && count > largest {
                break;
            }
            // An idle pool's sandbox stands there for certain. Where callers come all the time, it costs
            // nothing while so many are wanted at once that it would be restored for one who waits.
            let mut gain = trust * hazard * self.demand.idle.at_least(n);
            let mut stands = trust;
            for expert in experts.iter_mut().filter(|expert| expert.weight > 0.0) {
                let (needed, idle) = expert.next(n);
                gain += needed / self.lead;
                stands += idle;
            }
            worth += gain - self.price * stands;
            if worth > best_worth {
                (best, best_worth) = (n, worth);
            }
        }
        best
    }

    /// How likely a caller comes about now, or when a restore begun now would be done.
    fn hazard(&self, idle: f64) -> f64 {
        let at = |ahead: f64| {
            let idle = idle + ahead;
            self.demand.idle.hazard(idle, self.now + (idle - self.idle))
        };
        at(0.0).max(at(1.5 * self.lead))
    }

    /// The same after the idle TTL, when only a wait that began within it is allowed.
    fn late_hazard(&self) -> f64 {
        let before = self.hazard(self.idle - self.idle_ttl);
        if before >= self.price { 0.0 } else { self.hazard(self.idle) }
    }

    /// Seconds for which the target holds if nobody comes.
    fn holds_for(&self, needed: u32) -> f64 {
        let bin = self.demand.bin();
        let idle = &self.demand.idle;
        if needed > 0 {
            let grown = if self.trust > 0.0 { self.idle * 0.5 } else { bin };
            let mut wait = grown.max(bin);
            if let Some(at) = idle.next_beat_step(self.now) {
                wait = wait.min((at - self.now).max(bin));
            }
            if self.idle < self.idle_ttl {
                wait = wait.min(self.idle_ttl - self.idle + 1e-6);
            }
            return wait;
        }
        let ahead = 1.5 * self.lead;
        // No bucket's hazard is higher than some twenty by its idle time.
        let last = self.idle + ahead + 24.0 / self.price;
        let worth = |&step: &f64| idle.hazard(step, self.now + (step - self.idle)) >= self.price;
        let by_length = idle.lengths(self.idle + ahead).take_while(|&step| step < last).find(worth);
        let by_beat = idle.beat_steps(self.now + ahead).map(|at| self.idle + (at - self.now));
        let next = by_beat.filter(|&step| step > self.idle + ahead).find(worth);
        let next = next.into_iter().chain(by_length).reduce(f64::min);
        let wait = next.map_or(REVIEW_MAX, |step| step - ahead - self.idle);
        wait.clamp(bin, REVIEW_MAX)
    }
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::from_secs(3600))
}
