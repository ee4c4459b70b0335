//! The processes that arrivals come from.

use std::{sync::Arc, time::Duration};

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Arrivals, Level};

/// Gives one time after the other.
#[derive(Debug, Clone)]
pub(super) enum Process {
    Constant { rate: f64, next: u64 },
    Poisson { rate: f64, at_s: f64, chance: Chance },
    Bursty(Bursty),
    Steps(Steps),
    Replay { trace: Arc<[Duration]>, speed: f64, next: usize },
}

impl Process {
    /// Begins one; the values were checked.
    pub(super) fn new(arrivals: &Arrivals, seed: u64, trace: &[Duration]) -> Self {
        match arrivals {
            Arrivals::Constant { rate_per_s } => Self::Constant { rate: *rate_per_s, next: 0 },
            Arrivals::Poisson { rate_per_s } => {
                Self::Poisson { rate: *rate_per_s, at_s: 0.0, chance: Chance::new(seed) }
            }
            Arrivals::Bursty { rate_per_s, factor, burst_ms, share } => {
                let burst_s = Duration::from_millis(*burst_ms).as_secs_f64();
                Self::Bursty(Bursty::new(*rate_per_s, *factor, burst_s, *share, seed))
            }
            Arrivals::Steps { levels } => Self::Steps(Steps::new(levels)),
            Arrivals::Replay { speed, .. } => {
                Self::Replay { trace: trace.into(), speed: *speed, next: 0 }
            }
        }
    }

    pub(super) fn next(&mut self) -> Option<Duration> {
        match self {
            Self::Constant { rate, next } => {
                // From the number, not from the one before: errors don't add up.
                let at = seconds(*next as f64 / *rate);
                *next += 1;
                Some(at)
            }
            Self::Poisson { rate, at_s, chance } => {
                *at_s += chance.exponential() / *rate;
                Some(seconds(*at_s))
            }
            Self::Bursty(bursty) => Some(seconds(bursty.next_s())),
            Self::Steps(steps) => steps.next_s().map(seconds),
            Self::Replay { trace, speed, next } => {
                let at = *trace.get(*next)?;
                *next += 1;
                Some(if *speed == 1.0 { at } else { seconds(at.as_secs_f64() / *speed) })
            }
        }
    }
}

/// What comes after the end of time doesn't come.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// Random numbers that are the same on every machine and with every version of `rand`.
#[derive(Debug, Clone)]
pub(super) struct Chance(ChaCha8Rng);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// At least 0, below 1: as many steps as a double has between the two.
    fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponential with mean 1.
    fn exponential(&mut self) -> f64 {
        -(-self.uniform()).ln_1p()
    }
}

/// A Markov-modulated Poisson process of two states.
#[derive(Debug, Clone)]
pub(super) struct Bursty {
    /// Rates and mean sojourns of the quiet and the loud state.
    states: [(f64, f64); 2],
    loud: bool,
    at_s: f64,
    until_s: f64,
    chance: Chance,
}

impl Bursty {
    fn new(rate: f64, factor: f64, burst_s: f64, share: f64, seed: u64) -> Self {
        // share * loud + (1 - share) * quiet = rate, whatever the factor.
        let quiet_rate = (rate * (1.0 - share * factor) / (1.0 - share)).max(0.0);
        let quiet_s = burst_s * (1.0 - share) / share;
        let mut chance = Chance::new(seed);
        // It begins as if it had been going on for ever, or short runs would have another mean.
        let loud = chance.uniform() < share;
        let states = [(quiet_rate, quiet_s), (rate * factor, burst_s)];
        let until_s = chance.exponential() * states[usize::from(loud)].1;
        Self { states, loud, at_s: 0.0, until_s, chance }
    }

    fn next_s(&mut self) -> f64 {
        loop {
            let (rate, _) = self.states[usize::from(self.loud)];
            // Infinite at rate 0: then the state ends first.
            let next_s = self.at_s + self.chance.exponential() / rate;
            if next_s < self.until_s {
                self.at_s = next_s;
                return next_s;
            }
            // Exponential gaps have no memory: at the border a new one is as good as the rest.
            self.loud = !self.loud;
            self.at_s = self.until_s;
            self.until_s += self.chance.exponential() * self.states[usize::from(self.loud)].1;
        }
    }
}

/// Rates that change at fixed times.
#[derive(Debug, Clone)]
pub(super) struct Steps {
    levels: Vec<Begun>,
    current: usize,
    next: u64,
}

/// A level, and what was before it.
#[derive(Debug, Clone, Copy)]
struct Begun {
    at_s: f64,
    /// Arrivals before it; a fraction is one that is on its way at the border.
    before: f64,
    rate: f64,
}

impl Steps {
    fn new(levels: &[Level]) -> Self {
        let (mut at_ms, mut before) = (0, 0.0);
        let begun = levels.iter().map(|level| {
            let at_s = Duration::from_millis(at_ms).as_secs_f64();
            let begun = Begun { at_s, before, rate: level.rate_per_s };
            at_ms += level.for_ms;
            before = whole(before + level.rate_per_s * level.for_ms as f64 / 1e3);
            begun
        });
        Self { levels: begun.collect(), current: 0, next: 0 }
    }

    fn next_s(&mut self) -> Option<f64> {
        let number = self.next as f64;
        while self.levels.get(self.current + 1).is_some_and(|after| after.before <= number) {
            self.current += 1;
        }
        let level = self.levels[self.current];
        self.next += 1;
        (level.rate > 0.0).then(|| level.at_s + (number - level.before) / level.rate)
    }
}

/// Rounds what only misses a whole number by a double's error: 0.1 per second for 30 s are 3.
fn whole(count: f64) -> f64 {
    let near = count.round();
    if (count - near).abs() <= 1e-9 * near.max(1.0) { near } else { count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_the_same_as_ever() {
        // Read from this code once: another generator or seeding would make old seeds worthless.
        let mut chance = Chance::new(1);
        let drawn: Vec<f64> = (0..3).map(|_| (chance.uniform() * 1e9).floor()).collect();
        assert_eq!(drawn, [402_485_663.0, 80_383_708.0, 596_560_180.0]);
    }

    #[test]
    fn double_errors_make_no_fractions() {
        assert_eq!(whole(0.1 * 3.0 * 10.0), 3.0);
        assert_eq!(whole(2.5), 2.5);
    }
}
