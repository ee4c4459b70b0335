//! Does a function come round like a clock, and when is it due next?
//!
//! Two clocks are tried: one that starts anew at each arrival, and one that keeps its own time
//! (a cron job whose arrivals are late by chance). The one that errs less is believed.

/// An arrival further than this part of the period from when it was due is not on the beat.
const NEAR: f64 = 0.12;

/// Beats that may be left out without losing count.
const SKIPPED_MAX: f64 = 4.0;

/// How much one beat says about trust.
const NEWS: f64 = 0.18;

/// A rhythm, if there is one. Times are seconds since the pool's start.
#[derive(Debug, Clone, Default)]
pub(super) struct Beat {
    beats: u32,
    last: f64,
    period: f64,
    /// Where the clock that keeps its own time had its last beat.
    phase: f64,
    /// Mean absolute error of the clock that starts anew, and of the one that keeps time.
    error_anew: f64,
    error_kept: f64,
    trust: f64,
}

impl Beat {
    /// An arrival after a silence.
    pub(super) fn struck(&mut self, now: f64) {
        let gap = now - self.last;
        match self.beats {
            0 => self.phase = now,
            1 => self.restart(gap, now),
            _ => self.compare(gap, now),
        }
        self.beats = self.beats.saturating_add(1);
        self.last = now;
    }

    /// How likely the next arrival is on the beat.
    pub(super) fn trust(&self) -> f64 {
        if self.beats < 4 { 0.0 } else { self.trust.min(0.98) }
    }

    /// Density of the next beat at `now`, and how likely it is still ahead.
    pub(super) fn density(&self, now: f64) -> (f64, f64) {
        let (due, scale) = self.due();
        let away = (now - due) / scale;
        // Logistic: near enough to normal, with tails that forgive.
        let e = (-away.abs()).exp();
        let density = e / ((1.0 + e) * (1.0 + e)) / scale;
        let survival = if away > 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) };
        (density, survival)
    }

    /// When the density changes most around the next beat.
    pub(super) fn steps(&self) -> impl Iterator<Item = f64> + use<> {
        let (due, scale) = self.due();
        (-12..=12).map(move |step| due + f64::from(step) * 0.5 * scale)
    }

    fn due(&self) -> (f64, f64) {
        let least = 0.001 * self.period + 0.05;
        let (from, error) = if self.error_kept < self.error_anew {
            (self.phase, self.error_kept)
        } else {
            (self.last, self.error_anew)
        };
        // A logistic's mean absolute deviation is 2 ln 2 scales.
        (from + self.period, (error / (2.0 * std::f64::consts::LN_2)).max(least))
    }

    fn restart(&mut self, gap: f64, now: f64) {
        self.period = gap.max(1e-3);
        self.phase = now;
        self.error_anew = gap * 0.05;
        self.error_kept = gap * 0.05;
    }

    fn compare(&mut self, gap: f64, now: f64) {
        let count = ((now - self.phase) / self.period).round().clamp(1.0, SKIPPED_MAX);
        let anew = gap - count * self.period;
        let kept = now - (self.phase + count * self.period);
        let on_beat = anew.abs().min(kept.abs()) < NEAR * self.period;
        self.trust += NEWS * (if on_beat && count < 1.5 { 1.0 } else { 0.0 } - self.trust);
        if !on_beat {
            if self.trust < 0.5 {
                self.restart(gap, now);
            } else {
                self.phase = now;
            }
            return;
        }
        if count < 1.5 && self.beats == 2 {
            self.trust = 0.4;
        }
        self.error_anew += 0.15 * (anew.abs() - self.error_anew);
        self.error_kept += 0.15 * (kept.abs() - self.error_kept);
        self.phase += count * self.period + 0.25 * kept;
        // Early on the period is the mean of few; later it moves little.
        let gain = (1.0 / f64::from(self.beats)).max(0.03);
        self.period += gain * kept / count;
    }
}
