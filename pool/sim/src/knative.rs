//! What would Knative's autoscaler (KPA) have done? Its published rule, sizing warm sandboxes.
//!
//! From the documentation of Knative Serving and its autoscaler's source as public knowledge: the
//! mean over a stable window (60 s) and a panic window (a tenth of it), decided every 2 s; panic
//! when the panic window asks for twice what there is; never scaled down while in panic; at most
//! 1000 times up and 2 times down in one decision; to zero a grace time (30 s) after a whole stable
//! window without callers.
//!
//! Concurrency is taken as arrivals × (service + refill): a sandbox is used up by its request, so
//! that is how long each request occupies a place. What is asked for is what is kept warm.

const SECOND: u64 = 1_000_000;
const TICK: u64 = 2 * SECOND;
const STABLE: u64 = 60;
const PANIC: u64 = 6;
const SLOTS: usize = 60;
const PANIC_THRESHOLD: f64 = 2.0;
const SCALE_UP: f64 = 1000.0;
const SCALE_DOWN: f64 = 2.0;
const GRACE: u64 = 30 * SECOND;

/// How Knative is set up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knative {
    /// Part of a sandbox's concurrency (1) that is aimed for; Knative's default is 0.7.
    pub utilisation: f64,
    /// Fewest, Knative's `min-scale`; also the initial scale.
    pub min_scale: u32,
    /// Seconds that a request occupies a place: service and refill.
    pub occupied: f64,
}

/// The rule at work for one function.
#[derive(Debug, Clone)]
pub struct KnativeRule {
    setup: Knative,
    /// Callers in each of the last 60 seconds, by second modulo 60.
    seconds: [u16; SLOTS],
    newest: u64,
    /// Sum of `seconds`.
    total: u32,
    scale: u32,
    panic_since: Option<u64>,
    panic_scale: u32,
    idle_since: Option<u64>,
    next_tick: u64,
}

impl KnativeRule {
    /// Nothing seen yet, at its lowest scale.
    #[must_use]
    pub fn new(setup: Knative) -> Self {
        Self {
            setup,
            seconds: [0; SLOTS],
            newest: 0,
            total: 0,
            scale: setup.min_scale,
            panic_since: None,
            panic_scale: 0,
            idle_since: None,
            next_tick: 0,
        }
    }

    /// A caller came, `at` microseconds after the start.
    pub fn arrived(&mut self, at: u64) {
        self.roll(at);
        let slot = &mut self.seconds[index(self.newest)];
        self.total += u32::from(*slot < u16::MAX);
        *slot = slot.saturating_add(1);
        self.idle_since = None;
    }

    /// The scale, and when it is decided again.
    pub fn target(&mut self, at: u64) -> (u32, u64) {
        // From zero the activator wakes the autoscaler at once.
        if at >= self.next_tick || self.scale == 0 {
            self.roll(at);
            self.decide(at);
            self.next_tick = at + TICK;
        }
        let asleep = self.scale == self.setup.min_scale && self.callers(STABLE) == 0;
        (self.scale, if asleep { u64::MAX } else { self.next_tick })
    }

    /// One decision of the autoscaler.
    fn decide(&mut self, at: u64) {
        let ready = f64::from(self.scale.max(1));
        let wanted = |window: u64| {
            let rate = f64::from(self.callers(window)) / seconds(window);
            (rate * self.setup.occupied / self.setup.utilisation).ceil()
        };
        let (stable, panic) = (wanted(STABLE), wanted(PANIC));
        let (low, high) = ((ready / SCALE_DOWN).floor(), (SCALE_UP * ready).ceil());
        let over = panic / ready >= PANIC_THRESHOLD;
        if over {
            self.panic_since = Some(at);
        } else if self.panic_since.is_some_and(|since| since + STABLE * SECOND < at) {
            self.panic_since = None;
            self.panic_scale = 0;
        }
        let mut scale = whole(stable.clamp(low, high));
        if self.panic_since.is_some() {
            let panicked = whole(panic.clamp(low, high));
            self.panic_scale = self.panic_scale.max(scale).max(panicked);
            scale = self.panic_scale;
        }
        if self.callers(STABLE) > 0 {
            self.idle_since = None;
        } else {
            let since = *self.idle_since.get_or_insert(at);
            scale = if at >= since + GRACE { 0 } else { scale.max(1).min(self.scale) };
        }
        self.scale = scale.max(self.setup.min_scale);
    }

    /// Callers in the last `window` whole seconds and the current one.
    fn callers(&self, window: u64) -> u32 {
        if window == STABLE {
            return self.total;
        }
        let last = self.newest;
        (0..window.min(last + 1)).map(|ago| u32::from(self.seconds[index(last - ago)])).sum()
    }

    fn roll(&mut self, at: u64) {
        let second = at / SECOND;
        let passed = (second - self.newest).min(STABLE);
        for step in 0..passed {
            let old = std::mem::take(&mut self.seconds[index(second - step)]);
            self.total -= u32::from(old);
        }
        self.newest = second;
    }
}

fn index(second: u64) -> usize {
    usize::try_from(second % STABLE).unwrap_or(0)
}

fn seconds(window: u64) -> f64 {
    f64::from(u32::try_from(window).unwrap_or(u32::MAX))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, as meant")]
fn whole(value: f64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steady(rule: &mut KnativeRule, from: u64, to: u64, each_second: u64) {
        for second in from..to {
            for n in 0..each_second {
                rule.arrived(second * SECOND + n * SECOND / each_second);
            }
            rule.target(second * SECOND + SECOND - 1);
        }
    }

    #[test]
    fn a_steady_rate_is_divided_by_the_utilisation() {
        // 10/s × 0.5 s = 5 in flight; at 70 % that asks for ceil(5 / 0.7) = 8.
        let setup = Knative { utilisation: 0.7, min_scale: 0, occupied: 0.5 };
        let mut rule = KnativeRule::new(setup);
        steady(&mut rule, 0, 200, 10);
        assert_eq!(rule.target(200 * SECOND - 1).0, 8);
    }

    #[test]
    fn a_crowd_panics_and_a_silence_ends_at_zero_after_window_and_grace() {
        // 4/s × 1 s / 1.0 = 4. Then 40/s: after 6 s the panic window asks for 40, over 2 × 4, while the
        // stable one has (54 × 4 + 6 × 40) / 60 = 7.6, 8.
        let setup = Knative { utilisation: 1.0, min_scale: 0, occupied: 1.0 };
        let mut rule = KnativeRule::new(setup);
        steady(&mut rule, 0, 120, 4);
        assert_eq!(rule.target(120 * SECOND - 1).0, 4);
        steady(&mut rule, 120, 126, 40);
        rule.next_tick = 0;
        assert_eq!(rule.target(126 * SECOND - 1).0, 40);
        // Not scaled down while in panic, which lasts a stable window beyond its last reason.
        steady(&mut rule, 126, 180, 4);
        assert_eq!(rule.target(180 * SECOND - 1).0, 40);
        let mut zero_at = None;
        let mut at = 180 * SECOND;
        while zero_at.is_none() && at < 600 * SECOND {
            let (scale, _) = rule.target(at);
            zero_at = (scale == 0).then_some(at / SECOND);
            at += TICK;
        }
        // Last caller at 180 s, window to 240 s, grace to 270 s (and a tick of slack).
        assert!((268..=274).contains(&zero_at.unwrap()), "{zero_at:?}");
    }
}
