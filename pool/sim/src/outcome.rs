//! What did a run cost, and whom did it keep waiting?

/// A run's result, of the measured part of its trace only unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Callers.
    pub arrivals: u64,
    /// Callers for whom a sandbox was warm.
    pub hits: u64,
    /// Callers that were served, at once or after a wait, of the whole trace.
    pub served: u64,
    /// Callers that still waited when the trace ended, of the whole trace.
    pub waiting_at_end: u64,
    /// Waits of those that did not hit, microseconds, ascending.
    pub waits: Vec<u64>,
    /// Sandbox-seconds warm or restoring: the integral of their number over time.
    pub sandbox_seconds: f64,
    /// The same, summed over the sandboxes: from the restore's start to the lease or the end.
    pub summed_seconds: f64,
    /// Restores that were begun.
    pub restores: u64,
    /// Sandboxes that were reaped and never leased.
    pub wasted: u64,
    /// Changes of a target by more than one.
    pub jumps: u64,
    /// Most sandboxes warm, restoring or leased at once, of the whole trace.
    pub peak: u64,
}

impl Outcome {
    /// Part of the callers that did not wait, 0 to 1; 1 if nobody came.
    #[must_use]
    pub fn hit_rate(&self) -> f64 {
        if self.arrivals == 0 { 1.0 } else { float(self.hits) / float(self.arrivals) }
    }

    /// The wait that this part of the callers (0 to 1) does not exceed, milliseconds.
    #[must_use]
    pub fn wait_ms(&self, part: f64) -> f64 {
        let answered = self.hits + self.waits.len() as u64;
        let rank = whole((float(answered) * part).ceil()).max(1);
        if rank <= self.hits {
            return 0.0;
        }
        let index = usize::try_from(rank - self.hits - 1).unwrap_or(usize::MAX);
        self.waits.get(index).or(self.waits.last()).map_or(0.0, |&wait| float(wait) / 1e3)
    }

    /// MiB-seconds of memory, at `mib` each.
    #[must_use]
    pub fn mib_seconds(&self, mib: u32) -> f64 {
        self.sandbox_seconds * f64::from(mib)
    }
}

/// A count as a float; exact to 2^53.
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank, not negative")]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_count_hits_as_no_wait() {
        let outcome = Outcome {
            arrivals: 100,
            hits: 98,
            waits: vec![200_000, 400_000],
            ..Outcome::default()
        };
        assert!((outcome.hit_rate() - 0.98).abs() < 1e-9);
        let waits = [0.5, 0.98, 0.99, 1.0].map(|part| outcome.wait_ms(part));
        assert_eq!(waits, [0.0, 0.0, 200.0, 400.0]);
    }
}
