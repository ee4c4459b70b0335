//! How far a figure would move if it were measured again: resampling.
//!
//! - By blocks: whole segments of a part are drawn again, so that drift and bursts within them
//!   count as what they are. One fewer is drawn than there are, without which the variance of few
//!   blocks would be told too small.
//! - By counts: single requests are drawn again. For a percentile that needs no drawing of each:
//!   the share of the distribution below the `r`-th of `n` draws is Beta(r, n - r + 1), exactly. For a
//!   mean the count of each size is Poisson. Millions of samples cost no more than a few.

use loadtest_model::Histogram;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::chance::{Poisson, beta};

/// How often is resampled.
pub(super) const RESAMPLES: usize = 1000;
/// Samples beyond a percentile without which it is not told how sure it is.
const BEYOND_MIN: f64 = 10.0;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Statistic {
    /// A quantile, above 0 and below 1.
    Quantile(f64),
    Mean,
}

impl Statistic {
    /// Whether so many samples are enough.
    pub(super) fn is_backed_by(self, samples: u64) -> bool {
        match self {
            Self::Quantile(q) => (1.0 - q) * samples as f64 >= BEYOND_MIN - 1e-9,
            Self::Mean => samples >= super::SAMPLES_MIN,
        }
    }
}

/// Sizes, ascending, and how many there are of each.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    sizes: Vec<f64>,
    counts: Vec<f64>,
}

impl Counts {
    pub(super) fn of(histogram: &Histogram) -> Self {
        let (sizes, counts) =
            histogram.counts().map(|(size, count)| (size as f64, count as f64)).unzip();
        Self { sizes, counts }
    }

    /// The statistic, milliseconds; none of nothing.
    pub(super) fn value(&self, statistic: Statistic) -> Option<f64> {
        value(&self.sizes, &self.counts, statistic)
    }

    /// The statistic of many redrawn samples, each request on its own.
    pub(super) fn resample(&self, statistic: Statistic, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let count: f64 = self.counts.iter().sum();
        let chances: Vec<Poisson> = self.counts.iter().map(|count| Poisson::new(*count)).collect();
        let mut drawn = vec![0.0; self.counts.len()];
        let mut sums = Vec::with_capacity(self.counts.len());
        let mut sum = 0.0;
        for count in &self.counts {
            sum += count;
            sums.push(sum);
        }
        let one = |rng: &mut ChaCha8Rng| match statistic {
            Statistic::Quantile(q) => {
                let rank = (q * count).ceil().clamp(1.0, count);
                let below = beta(rng, rank, count - rank + 1.0) * count;
                let at = sums.partition_point(|sum| *sum < below);
                self.sizes.get(at).or(self.sizes.last()).map(|size| size / 1e6)
            }
            Statistic::Mean => {
                drawn
                    .iter_mut()
                    .zip(&chances)
                    .for_each(|(drawn, chance)| *drawn = chance.draw(rng));
                value(&self.sizes, &drawn, statistic)
            }
        };
        redraw(rng, one)
    }
}

/// Segments of a part over one list of sizes, so that some of them are summed up fast.
#[derive(Debug, Clone)]
pub(super) struct Blocks {
    sizes: Vec<f64>,
    /// Per segment: places in `sizes`, and how many of that size.
    blocks: Vec<Vec<(usize, f64)>>,
}

impl Blocks {
    /// Of the segments that have samples.
    pub(super) fn of(segments: &[Histogram]) -> Self {
        let mut sizes: Vec<u64> =
            segments.iter().flat_map(Histogram::counts).map(|(size, _)| size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let place = |size: u64| sizes.partition_point(|known| *known < size);
        let blocks = segments
            .iter()
            .filter(|segment| !segment.is_empty())
            .map(|segment| {
                segment.counts().map(|(size, count)| (place(size), count as f64)).collect()
            })
            .collect();
        Self { sizes: sizes.iter().map(|size| *size as f64).collect(), blocks }
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Each statistic of many redrawn runs.
    pub(super) fn resample(&self, all: &[Statistic], rng: &mut ChaCha8Rng) -> Vec<Vec<f64>> {
        let mut found = vec![Vec::with_capacity(RESAMPLES); all.len()];
        let mut counts = vec![0.0; self.sizes.len()];
        for _ in 0..RESAMPLES {
            counts.fill(0.0);
            for _ in 1..self.blocks.len() {
                for (place, count) in &self.blocks[rng.random_range(0..self.blocks.len())] {
                    counts[*place] += count;
                }
            }
            for (found, statistic) in found.iter_mut().zip(all) {
                found.extend(value(&self.sizes, &counts, *statistic));
            }
        }
        found
    }
}

/// Sums over sums of many redrawn lists of pairs: good answers and seconds.
pub(super) fn resample_ratio(pairs: &[(f64, f64)], rng: &mut ChaCha8Rng) -> Vec<f64> {
    let one = |rng: &mut ChaCha8Rng| {
        let (mut over, mut under) = (0.0, 0.0);
        for _ in 1..pairs.len() {
            let (a, b) = pairs[rng.random_range(0..pairs.len())];
            over += a;
            under += b;
        }
        (under > 0.0).then_some(over / under)
    };
    redraw(rng, one)
}

fn redraw(rng: &mut ChaCha8Rng, mut one: impl FnMut(&mut ChaCha8Rng) -> Option<f64>) -> Vec<f64> {
    (0..RESAMPLES).filter_map(|_| one(rng)).collect()
}

fn value(sizes: &[f64], counts: &[f64], statistic: Statistic) -> Option<f64> {
    let count: f64 = counts.iter().sum();
    if count <= 0.0 {
        return None;
    }
    let pairs = || sizes.iter().zip(counts);
    match statistic {
        Statistic::Mean => Some(pairs().map(|(size, n)| size * n).sum::<f64>() / count / 1e6),
        Statistic::Quantile(q) => {
            let rank = (q * count).ceil().max(1.0);
            let mut sum = 0.0;
            let reaches = |(_, n): &(&f64, &f64)| {
                sum += **n;
                sum >= rank
            };
            pairs().find(reaches).map(|(size, _)| size / 1e6)
        }
    }
}

/// The middle 95 % of the changes from `a` to `b`, as ratios minus 1.
pub(super) fn interval(a: &[f64], b: &[f64]) -> Option<(f64, f64)> {
    let mut changes: Vec<f64> = a
        .iter()
        .zip(b)
        .filter(|(a, _)| **a > 0.0)
        .map(|(a, b)| b / a - 1.0)
        .filter(|change| change.is_finite())
        .collect();
    // Fewer would be no resampling any more.
    if changes.len() < RESAMPLES / 2 {
        return None;
    }
    changes.sort_by(f64::total_cmp);
    let at = |share: f64| changes[crate::figure::index(share * (changes.len() - 1) as f64)];
    Some((at(0.025), at(0.975)))
}
