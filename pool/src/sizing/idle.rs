//! When does the next caller come after a silence? A histogram of idle times and a sense of
//! rhythm, as in "Serverless in the Wild" (USENIX ATC 2020), and how many come at once.

use super::beat::Beat;

/// Buckets of an octave of idle time.
const PER_OCTAVE: u32 = 8;

/// Buckets: from [`SHORTEST`] over 18 octaves, three days.
const BUCKETS: usize = 18 * PER_OCTAVE as usize;

/// Shortest idle time told apart, seconds.
const SHORTEST: f64 = 1.0;

/// Idle times that the belief in "any length, each octave alike" is worth.
const PRIOR: f64 = 0.7;

/// How much of the past is kept at each new idle time: some fifty are remembered.
const KEPT: f32 = 0.98;

/// Sizes of bursts told apart: between two of them, the larger is meant.
const SIZES: [u32; 20] =
    [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 26, 32, 48, 64, 96, 128, 256, 512, 1024];

/// Least trust at which a rhythm is asked.
const TRUSTED: f64 = 0.05;

/// What a pool has seen of its silences and of what ended them.
#[derive(Debug, Clone)]
pub(super) struct Idle {
    /// How many idle times were shorter than each bucket's end.
    shorter: [f32; BUCKETS],
    /// Buckets to either side that are taken together.
    reach: usize,
    beat: Beat,
    /// How likely a burst is at least as large as each of [`SIZES`].
    sizes: [f32; SIZES.len()],
    bursts: f32,
}

impl Idle {
    pub(super) fn new() -> Self {
        let mut sizes = [0.0; SIZES.len()];
        sizes[0] = 1.0;
        let reach = PER_OCTAVE as usize;
        Self { shorter: [0.0; BUCKETS], reach, beat: Beat::default(), sizes, bursts: 0.0 }
    }

    /// A silence of `gap` seconds ended at `now`.
    pub(super) fn ended(&mut self, gap: f64, now: f64) {
        self.beat.struck(now);
        let bucket = bucket(gap);
        for count in &mut self.shorter {
            *count *= KEPT;
        }
        for count in &mut self.shorter[bucket..] {
            *count += 1.0;
        }
        self.reach = self.fitting_reach();
    }

    /// The first caller ever came at `now`.
    pub(super) fn began(&mut self, now: f64) {
        self.beat.struck(now);
    }

    /// So many callers came within a refill time of a silence's end.
    pub(super) fn burst(&mut self, size: u32) {
        self.bursts += 1.0;
        let news = (1.0 / self.bursts).max(0.05);
        for (likely, least) in self.sizes.iter_mut().zip(SIZES) {
            let seen = if size >= least { 1.0 } else { 0.0 };
            *likely += news * (seen - *likely);
        }
    }

    /// How likely the next burst has at least `count` callers.
    pub(super) fn at_least(&self, count: u32) -> f64 {
        let index = SIZES.partition_point(|&size| size < count);
        self.sizes.get(index).map_or(0.0, |&likely| f64::from(likely))
    }

    /// The largest burst that is at all likely.
    pub(super) fn largest(&self) -> u32 {
        let likely = self.sizes.iter().filter(|&&likely| likely > 1e-4).count();
        SIZES[likely.saturating_sub(1)]
    }

    /// Chance a second that the silence, `idle` seconds old, ends now; `now` is the time.
    pub(super) fn hazard(&self, idle: f64, now: f64) -> f64 {
        let (density, survival) = self.density(idle, now);
        density / survival.max(1e-9)
    }

    /// Density of a silence's end at `idle` seconds, and how likely it lasts at least so long.
    pub(super) fn density(&self, idle: f64, now: f64) -> (f64, f64) {
        let (density, survival) = self.histogram(idle);
        let trust = self.beat.trust();
        if trust < TRUSTED {
            return (density, survival);
        }
        let (beat_density, beat_survival) = self.beat.density(now);
        (
            trust * beat_density + (1.0 - trust) * density,
            trust * beat_survival + (1.0 - trust) * survival,
        )
    }

    /// The idle times after `idle` at which the histogram's hazard may have changed, in order.
    pub(super) fn lengths(&self, idle: f64) -> impl Iterator<Item = f64> {
        // At least three buckets are taken together: every second one is enough.
        (bucket(idle) + 1..BUCKETS).step_by(2).map(start)
    }

    /// The times after `now` at which the rhythm's hazard may have changed, in order.
    pub(super) fn beat_steps(&self, now: f64) -> impl Iterator<Item = f64> {
        let steps = (self.beat.trust() >= TRUSTED).then(|| self.beat.steps());
        steps.into_iter().flatten().filter(move |&at| at > now)
    }

    /// The first of them.
    pub(super) fn next_beat_step(&self, now: f64) -> Option<f64> {
        self.beat_steps(now).next()
    }

    fn histogram(&self, idle: f64) -> (f64, f64) {
        let bucket = bucket(idle);
        let low = bucket.saturating_sub(self.reach);
        let high = (bucket + self.reach + 1).min(BUCKETS);
        let below = if low == 0 { 0.0 } else { f64::from(self.shorter[low - 1]) };
        let within = f64::from(self.shorter[high - 1]) - below;
        let total = f64::from(self.shorter[BUCKETS - 1]);
        // The window's share in log time; the prior has the same share of everything.
        let width = (high - low) as f64;
        let prior = PRIOR / BUCKETS as f64;
        let per_bucket = within / width + prior;
        let seconds = idle.max(SHORTEST) * std::f64::consts::LN_2 / f64::from(PER_OCTAVE);
        // Survivors: those beyond the window and the part of the window that is still ahead.
        let ahead = (high - bucket) as f64 - 0.5;
        let beyond = total - f64::from(self.shorter[high - 1]);
        let left = beyond + within * ahead / width + prior * (BUCKETS - bucket) as f64;
        let all = total + PRIOR;
        (per_bucket / seconds / all, left / all)
    }

    /// A wider reach for wider spreads and fewer idle times (Silverman's rule, in buckets).
    fn fitting_reach(&self) -> usize {
        let total = self.shorter[BUCKETS - 1];
        let quartile = |part: f32| self.shorter.partition_point(|&count| count < part * total);
        let spread = (quartile(0.75) - quartile(0.25)) as f64;
        let reach = 0.9 * (spread / 1.34) * f64::from(total).powf(-0.2);
        bounded(reach * 1.7, 1, PER_OCTAVE as usize * 2)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded before")]
fn bounded(value: f64, low: usize, high: usize) -> usize {
    value.clamp(low as f64, high as f64) as usize
}

fn bucket(idle: f64) -> usize {
    let octaves = (idle.max(SHORTEST) / SHORTEST).log2();
    bounded(octaves * f64::from(PER_OCTAVE), 0, BUCKETS - 1)
}

fn start(bucket: usize) -> f64 {
    SHORTEST * (bucket as f64 / f64::from(PER_OCTAVE)).exp2() * 1.000_001
}
