//! Random numbers of the distributions that resampling needs, by textbook methods.

use std::f64::consts::TAU;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

/// Above this mean, a Poisson number is drawn as a normal one: its skew is below 0.2 then.
const POISSON_SMALL: f64 = 30.0;

/// Standard normal (Box and Muller).
pub(super) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * uniform(rng).ln()).sqrt();
    radius * (TAU * rng.random::<f64>()).cos()
}

/// Above 0, at most 1.
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    1.0 - rng.random::<f64>()
}

/// Poisson numbers of one mean.
#[derive(Debug, Clone, Copy)]
pub(super) struct Poisson {
    mean: f64,
    /// The chance of none.
    none: f64,
}

impl Poisson {
    pub(super) fn new(mean: f64) -> Self {
        Self { mean, none: (-mean).exp() }
    }

    /// By counting arrivals if the mean is small, else rounded normal.
    pub(super) fn draw(self, rng: &mut ChaCha8Rng) -> f64 {
        if self.mean > POISSON_SMALL {
            return (self.mean + self.mean.sqrt() * normal(rng)).round().max(0.0);
        }
        let (mut product, mut count) = (uniform(rng), 0.0);
        while product > self.none {
            product *= uniform(rng);
            count += 1.0;
        }
        count
    }
}

/// Gamma with a shape of at least 1 (Marsaglia and Tsang).
fn gamma(rng: &mut ChaCha8Rng, shape: f64) -> f64 {
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && uniform(rng).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// Beta with both shapes at least 1: where the `a`-th of `a + b - 1` uniform numbers is.
pub(super) fn beta(rng: &mut ChaCha8Rng, a: f64, b: f64) -> f64 {
    let (x, y) = (gamma(rng, a), gamma(rng, b));
    x / (x + y)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    /// Mean and variance of 20,000 numbers.
    fn moments(draw: impl Fn(&mut ChaCha8Rng) -> f64) -> (f64, f64) {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let all: Vec<f64> = (0..20_000).map(|_| draw(&mut rng)).collect();
        let mean = all.iter().sum::<f64>() / 20_000.0;
        (mean, all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0)
    }

    fn near(told: (f64, f64), mean: f64, variance: f64) {
        assert!((told.0 - mean).abs() < 0.05 * variance.sqrt(), "mean {} for {mean}", told.0);
        assert!((told.1 / variance - 1.0).abs() < 0.08, "variance {} for {variance}", told.1);
    }

    #[test]
    fn numbers_have_the_moments_of_their_distributions() {
        near(moments(normal), 0.0, 1.0);
        near(moments(|rng| Poisson::new(2.5).draw(rng)), 2.5, 2.5);
        near(moments(|rng| Poisson::new(400.0).draw(rng)), 400.0, 400.0);
        near(moments(|rng| gamma(rng, 3.0)), 3.0, 3.0);
        near(moments(|rng| beta(rng, 3.0, 5.0)), 0.375, 15.0 / (64.0 * 9.0));
        near(moments(|rng| beta(rng, 1.0, 1.0)), 0.5, 1.0 / 12.0);
    }
}
