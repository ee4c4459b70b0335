//! How long does a restore take? A mean that moves only when there is evidence.

/// Taken before one was measured, seconds.
const UNKNOWN: f64 = 0.5;

/// Weight of a new time in the slow mean, which is believed, and in the fast one, which warns.
const NEWS: (f64, f64) = (0.01, 0.1);

/// Deviations of the fast mean from the slow one that are a change, and how far apart they have
/// to be at least, as a part of the time.
const ALARM: (f64, f64) = (4.0, 0.1);

/// Times that the fast mean is worth once it has given the alarm.
const ANEW: u32 = 4;

/// Part of the time by which the mean has to move for what is believed to follow it.
const DEAD_BAND: f64 = 0.02;

/// The time of a restore, seconds.
#[derive(Debug, Clone)]
pub(super) struct Refill {
    seen: u32,
    slow: f64,
    fast: f64,
    /// Mean square of a time's distance from the slow mean.
    square: f64,
    held: f64,
}

impl Refill {
    pub(super) fn new() -> Self {
        Self { seen: 0, slow: UNKNOWN, fast: UNKNOWN, square: 0.0, held: UNKNOWN }
    }

    /// A restore took this long. Whether what is believed has changed.
    pub(super) fn took(&mut self, seconds: f64) -> bool {
        let seconds = seconds.clamp(0.001, 600.0);
        self.seen = self.seen.saturating_add(1);
        let first = 1.0 / f64::from(self.seen);
        self.square += NEWS.0.max(first) * ((seconds - self.slow).powi(2) - self.square);
        self.slow += NEWS.0.max(first) * (seconds - self.slow);
        self.fast += NEWS.1.max(first) * (seconds - self.fast);
        // An exponentially fading mean has the variance of one, times news / (2 - news).
        let error = (self.square * NEWS.1 / (2.0 - NEWS.1)).sqrt();
        if (self.fast - self.slow).abs() > (ALARM.0 * error).max(ALARM.1 * self.slow) {
            self.slow = self.fast;
            self.seen = ANEW;
        }
        let moved = (self.slow - self.held).abs() > DEAD_BAND * self.held;
        if moved {
            self.held = self.slow;
        }
        moved
    }

    /// What is believed, seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_does_not_move_it_and_a_change_does_within_forty() {
        let mut refill = Refill::new();
        assert!(refill.took(0.4), "the first is believed");
        let noisy = |n: u32| 0.4 + 0.06 * if n.is_multiple_of(2) { 1.0 } else { -1.0 };
        (0..200).for_each(|n| {
            refill.took(noisy(n));
        });
        let moved = (0..1000).filter(|&n| refill.took(noisy(n))).count();
        assert_eq!(moved, 0);
        (0..40).for_each(|_| {
            refill.took(1.2);
        });
        assert!((refill.seconds() - 1.2).abs() < 0.1, "{}", refill.seconds());
    }
}
