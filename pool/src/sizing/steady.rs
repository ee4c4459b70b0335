//! Has the rate been the same for so long that it can be taken as known?
//!
//! A target that follows an estimate also follows its noise: it falls and rises, and where it
//! falls a restore was for nothing. So once every memory, short or long, agrees within its own
//! statistical error with one constant rate, that rate alone is believed. It counts callers since
//! the rate last changed, without forgetting, and is held until it has moved by more than its own
//! error. The moment a memory disagrees, it is given up.

/// Deviations by which a memory has to disagree: a false alarm about once a day.
const ALARM: f64 = 4.0;

/// Seconds and callers after which a rate may be taken as known.
const LEAST: (f64, f64) = (45.0, 200.0);

/// A constant rate, if there is one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Steady {
    count: f64,
    exposure: f64,
    held: f64,
    settled: bool,
}

/// What one memory says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Witness {
    /// How long it remembers, seconds.
    pub(super) length: f64,
    /// Fading count of callers, and the fading seconds in which they came.
    pub(super) count: f64,
    pub(super) exposure: f64,
}

impl Witness {
    /// By how many deviations of a Poisson count it disagrees with `rate`.
    fn apart(&self, rate: f64) -> f64 {
        // Poisson counts that fade with exp(-t / length): the variance fades twice as fast.
        let faded = (1.0 - self.exposure / self.length).clamp(0.0, 1.0);
        let variance = rate * self.length / 2.0 * (1.0 - faded * faded);
        (self.count - rate * self.exposure).abs() / (variance + 1.0).sqrt()
    }
}

impl Steady {
    /// `count` callers came in the last `span` seconds; the memories have taken note.
    pub(super) fn observe(
        &mut self,
        span: f64,
        count: f64,
        witnesses: impl Iterator<Item = Witness>,
    ) {
        self.count += count;
        self.exposure += span;
        let rate = self.count / self.exposure;
        self.settled = self.exposure >= LEAST.0 && self.count >= LEAST.1;
        for witness in witnesses {
            if witness.apart(rate) > ALARM {
                self.settled = false;
                // What a long memory holds may be from before this rate began.
                if 2.0 * witness.length <= self.exposure {
                    *self = Self::default();
                    return;
                }
            }
        }
        let error = (rate / self.exposure).sqrt();
        if (rate - self.held).abs() > error {
            self.held = rate;
        }
    }

    /// The rate, callers a second, while it is taken as known.
    pub(super) fn rate(&self) -> Option<f64> {
        self.settled.then_some(self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds regular counts, with one memory of 10 s beside.
    fn feed(steady: &mut Steady, memory: &mut Witness, seconds: u32, each: f64) {
        for _ in 0..seconds {
            let faded = (-1.0 / memory.length).exp();
            memory.count = memory.count * faded + each;
            memory.exposure = memory.exposure * faded + memory.length * (1.0 - faded);
            steady.observe(1.0, each, std::iter::once(*memory));
        }
    }

    #[test]
    fn a_constant_rate_is_known_until_it_changes_and_then_at_once_no_more() {
        let mut steady = Steady::default();
        let mut memory = Witness { length: 10.0, count: 0.0, exposure: 0.0 };
        feed(&mut steady, &mut memory, 30, 20.0);
        assert_eq!(steady.rate(), None, "too early");
        feed(&mut steady, &mut memory, 100, 20.0);
        assert!(steady.rate().is_some_and(|rate| (rate - 20.0).abs() < 0.1), "{steady:?}");
        feed(&mut steady, &mut memory, 4, 45.0);
        assert_eq!(steady.rate(), None);
        feed(&mut steady, &mut memory, 400, 45.0);
        assert!(steady.rate().is_some_and(|rate| (rate - 45.0).abs() < 3.0), "{steady:?}");
    }
}
