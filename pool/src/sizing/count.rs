//! How likely is a number of arrivals? The negative binomial distribution, by mean and variance.

/// A negative binomial distribution; close to Poisson when nothing is over-dispersed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    mean: f64,
    shape: f64,
}

/// Largest shape: beyond it the distribution is Poisson for every purpose here.
const SHAPE_MAX: f64 = 1e6;

impl Counts {
    /// With this mean and variance; a variance at or below the mean is Poisson.
    pub(super) fn new(mean: f64, variance: f64) -> Self {
        let mean = mean.max(1e-12);
        let excess = (variance - mean).max(mean * mean / SHAPE_MAX);
        Self { mean, shape: (mean * mean / excess).clamp(1e-6, SHAPE_MAX) }
    }

    /// Natural logarithm of the probability of exactly `count`.
    pub(super) fn ln_probability(&self, count: u32) -> f64 {
        let x = f64::from(count);
        let none = -self.shape * (self.mean / self.shape).ln_1p();
        if count == 0 {
            return none;
        }
        none + ln_gamma(x + self.shape) - ln_gamma(self.shape) - ln_gamma(x + 1.0)
            + x * (self.mean / (self.mean + self.shape)).ln()
    }

    /// The first count worth looking at and the last: what lies outside is less likely than 1e-6.
    pub(super) fn range(&self) -> (f64, f64) {
        let deviation = (self.mean + self.mean * self.mean / self.shape).sqrt();
        let tail = 14.0 * (1.0 + self.mean / self.shape);
        ((self.mean - 8.0 * deviation).floor().max(0.0), self.mean + 6.0 * deviation + tail)
    }

    /// Probability of `count + 1`, given that of `count`.
    pub(super) fn next(&self, count: f64, probability: f64) -> f64 {
        probability * (self.shape + count) / (count + 1.0) * self.mean / (self.mean + self.shape)
    }
}

/// Natural logarithm of the gamma function for a positive argument (Stirling's series, shifted
/// to where it is exact to ten digits).
fn ln_gamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    if x < 8.0 {
        let mut product = 1.0;
        while x < 8.0 {
            product *= x;
            x += 1.0;
        }
        shift = product.ln();
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0)));
    (x - 0.5) * x.ln() - x + 0.918_938_533_204_672_8 + series - shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_recursion_agrees_with_the_formula() {
        for (mean, variance) in [(0.01, 0.01), (8.0, 8.0), (8.0, 40.0), (300.0, 900.0)] {
            let counts = Counts::new(mean, variance);
            let (mut sum, mut first, mut p) = (0.0, 0.0, counts.ln_probability(0).exp());
            for x in 0..3000_u32 {
                let formula = counts.ln_probability(x).exp();
                assert!((p - formula).abs() < 1e-6, "{mean} {variance} {x}: {p} {formula}");
                sum += p;
                first += p * f64::from(x);
                p = counts.next(f64::from(x), p);
            }
            assert!((sum - 1.0).abs() < 1e-6 && (first / mean - 1.0).abs() < 1e-4, "{sum} {first}");
        }
    }

    #[test]
    fn gamma_is_the_factorial() {
        let factorial: f64 = (1..=20).map(|n| f64::from(n).ln()).sum();
        assert!((ln_gamma(21.0) - factorial).abs() < 1e-9);
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-8);
    }
}
