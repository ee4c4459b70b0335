//! How many callers come within a refill time? Several memories of different length, each trusted
//! as far as it foretold what came.
//!
//! Time is cut into bins about as long as a refill. Each memory keeps an exponentially fading
//! count and its over-dispersion, and foretells a bin's count as a negative binomial. The
//! memories' weights are Bayesian with a fixed share (Herbster and Warmuth, 1998): the long one
//! wins while the rate is steady, a short one within a few bins when a crowd comes.

use super::{
    count::Counts,
    steady::{Steady, Witness},
};

/// Lengths of the memories, seconds: from a flash crowd's rise to the better part of an hour.
const MEMORIES: [f64; 5] = [1.5, 8.0, 45.0, 250.0, 1500.0];

/// Part of the trust that is dealt out anew in every bin, so that no memory is ever written off.
const SHARE: f64 = 0.0004;

/// Callers that a memory believes in before it has seen any, and over which part of its length.
const PRIOR: (f64, f64) = (0.05, 0.05);

/// Bins that the belief in a dispersion of 1 (Poisson) is worth.
const DISPERSION_PRIOR: f64 = 20.0;

/// Most seconds over which the prior is taken to have been seen.
const PRIOR_MAX: f64 = 2.0;

/// Bins after which a memory's errors count.
const YOUNG: f64 = 100.0;

/// Mean below which a bin's count says nothing about dispersion.
const MEAN_FLOOR: f64 = 0.3;

/// The memory that is asked for over-dispersion, and how much of it is none.
const LONG: usize = 3;
const CALM: f64 = 0.1;

#[derive(Debug, Clone, Copy)]
struct Memory {
    count: f64,
    exposure: f64,
    squares: f64,
    bins: f64,
    weight: f64,
    /// Seconds over which the prior was seen.
    prior: f64,
}

impl Memory {
    fn rate(&self) -> f64 {
        (self.count + PRIOR.0) / (self.exposure + self.prior)
    }

    /// Variance over mean of a bin's count; 1 unless there is evidence of more.
    fn dispersion(&self) -> f64 {
        let seen = (self.squares + DISPERSION_PRIOR) / (self.bins + DISPERSION_PRIOR);
        let noise = (2.0 / (self.bins + DISPERSION_PRIOR)).sqrt();
        1.0 + (seen - 1.0 - noise).max(0.0)
    }

    fn counts(&self, span: f64) -> Counts {
        let mean = self.rate() * span;
        Counts::new(mean, mean * self.dispersion() + mean * mean / (self.count + PRIOR.0))
    }

    fn fade(&mut self, memory: f64, span: f64, bin: f64, count: u32) {
        let expected = self.rate() * bin;
        let bins = (span / bin).max(1.0);
        let error = f64::from(count) - expected;
        let faded = (-span / memory).exp();
        let fresh = (memory * (1.0 - faded)).min(span);
        self.count = self.count * faded + f64::from(count);
        self.exposure = self.exposure * faded + fresh;
        // Only as many bins count as the memory holds.
        let held = (fresh / bin).min(bins);
        self.squares *= faded;
        self.bins *= faded;
        // What came before anything was known says nothing about dispersion.
        if self.exposure > (YOUNG * bin).min(0.5 * memory) {
            self.squares += held * error * error / expected.max(MEAN_FLOOR);
            self.bins += held;
        }
    }
}

/// The memories of one pool.
#[derive(Debug, Clone)]
pub(super) struct Rates {
    memories: [Memory; MEMORIES.len()],
    bin_start: f64,
    in_bin: u32,
    quiet: f64,
    steady: Steady,
    /// Bins that were closed.
    closed: u64,
}

impl Rates {
    pub(super) fn new() -> Self {
        let weight = 1.0 / f64::from(u32::try_from(MEMORIES.len()).unwrap_or(1));
        let memories = MEMORIES.map(|length| {
            let prior = (PRIOR.1 * length).min(PRIOR_MAX);
            Memory { count: 0.0, exposure: 0.0, squares: 0.0, bins: 0.0, weight, prior }
        });
        let steady = Steady::default();
        Self { memories, bin_start: 0.0, in_bin: 0, quiet: 0.0, steady, closed: 0 }
    }

    /// Counts a caller at `now` (seconds); `bin` is the width of the bins that are closed.
    pub(super) fn arrived(&mut self, now: f64, bin: f64) {
        self.advance(now, bin);
        self.in_bin += 1;
        self.quiet = 0.0;
        // A crowd is not waited for to the end of its bin.
        let width = now - self.bin_start;
        if width >= bin / 4.0 && f64::from(self.in_bin) > self.surprising(bin) {
            let seen = std::mem::take(&mut self.in_bin);
            self.close(width, bin, seen);
            self.bin_start = now;
        }
    }

    /// Closes the bins that ended before `now`; a long silence is taken in growing pieces.
    pub(super) fn advance(&mut self, now: f64, bin: f64) {
        if now < self.bin_start + bin {
            return;
        }
        let seen = std::mem::take(&mut self.in_bin);
        self.close(bin, bin, seen);
        self.bin_start += bin;
        let mut piece = bin;
        while self.bin_start + bin <= now {
            let whole = ((now - self.bin_start) / bin).floor() * bin;
            let span = piece.min(whole).max(bin);
            self.close(span, bin, 0);
            self.bin_start += span;
            piece *= 3.0;
        }
    }

    /// Callers a second, as far as the memories agree.
    pub(super) fn rate(&self) -> f64 {
        self.memories.iter().map(|memory| memory.weight * memory.rate()).sum()
    }

    /// Natural logarithm of how likely the silence since the last caller was.
    pub(super) fn ln_quiet(&self) -> f64 {
        self.quiet
    }

    /// What each memory foretells for the next `span` seconds, and how far it is trusted: the
    /// first alone, and with the rate that is known, while there is one.
    pub(super) fn outlook(&self, span: f64) -> [(f64, Counts); MEMORIES.len()] {
        let Some(rate) = self.known() else {
            return self.memories.map(|memory| (memory.weight, memory.counts(span)));
        };
        let counts = Counts::new(rate * span, rate * span);
        let mut outlook = [(0.0, counts); MEMORIES.len()];
        outlook[0].0 = 1.0;
        outlook
    }

    /// How many bins were closed: while this is the same, so is the outlook.
    pub(super) fn closed(&self) -> u64 {
        self.closed
    }

    /// The rate, while it is constant and its callers come independently.
    fn known(&self) -> Option<f64> {
        let calm = self.memories[LONG].dispersion() < 1.0 + CALM;
        self.steady.rate().filter(|_| calm)
    }

    fn surprising(&self, bin: f64) -> f64 {
        let mean = self.rate() * bin;
        mean + 5.0 * mean.sqrt() + 4.0
    }

    fn close(&mut self, span: f64, bin: f64, count: u32) {
        let likely = self.memories.map(|memory| memory.counts(span).ln_probability(count));
        let best = likely.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut sum = 0.0;
        for (memory, ln) in self.memories.iter_mut().zip(likely) {
            memory.weight *= (ln - best).exp();
            sum += memory.weight;
        }
        if count == 0 {
            self.quiet += sum.ln() + best;
        }
        let kept = (1.0 - SHARE).powf((span / bin).clamp(1.0, 1e6));
        let dealt = (1.0 - kept) / f64::from(u32::try_from(MEMORIES.len()).unwrap_or(1));
        for (memory, length) in self.memories.iter_mut().zip(MEMORIES) {
            memory.weight = kept * memory.weight / sum + dealt;
            memory.fade(length.max(3.0 * bin), span, bin, count);
        }
        let witnesses = self.memories.iter().zip(MEMORIES).map(|(memory, length)| {
            let length = length.max(3.0 * bin);
            // A bin's callers are counted at its end, as if none had faded within it.
            let faded_within = (1.0 - (-bin / length).exp()) * length / bin;
            Witness { length, count: memory.count * faded_within, exposure: memory.exposure }
        });
        self.steady.observe(span, f64::from(count), witnesses);
        self.closed += 1;
    }
}
