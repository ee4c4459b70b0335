//! Who calls when? Synthetic arrivals, deterministic by seed.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// Microseconds since the start.
    pub at: u64,
    /// Which function is called.
    pub function: u32,
}

/// Arrivals in order of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Its name, as on the command line.
    pub name: &'static str,
    /// How many functions it has.
    pub functions: u32,
    /// When it ends, microseconds.
    pub end: u64,
    /// From when on it is measured, microseconds: policies may learn before.
    pub measured_from: u64,
    /// All callers.
    pub arrivals: Vec<Arrival>,
}

/// The traces there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Poisson, 20 a second.
    Steady,
    /// One day's sine, 0.1 to 20 a second.
    Diurnal,
    /// On and off, with batches while on.
    Bursty,
    /// Quiet, then a hundred times as much within seconds, fading.
    Flash,
    /// 10,000 functions, most of them idle for hours, a quarter of them periodic.
    LongTail,
    /// A few of everything.
    Mixed,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Steady, Self::Diurnal, Self::Bursty, Self::Flash, Self::LongTail, Self::Mixed];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Diurnal => "diurnal",
            Self::Bursty => "bursty",
            Self::Flash => "flash",
            Self::LongTail => "long-tail",
            Self::Mixed => "mixed",
        }
    }

    /// How long it is unless told otherwise.
    #[must_use]
    pub const fn hours(self) -> f64 {
        match self {
            Self::Steady | Self::Bursty | Self::Flash | Self::Mixed => 3.0,
            Self::Diurnal => 24.0,
            Self::LongTail => 6.0,
        }
    }

    /// Makes the trace: `hours` long, `functions` in the long tail.
    #[must_use]
    pub fn make(self, seed: u64, hours: f64, functions: u32) -> Trace {
        let mut maker = Maker { random: Random::new(seed), end: hours * 3600.0, out: Vec::new() };
        let count = match self {
            Self::Steady => maker.poisson(0, |_| 20.0, 20.0),
            Self::Diurnal => maker.diurnal(0, 0.1, 20.0),
            Self::Bursty => maker.bursty(0, 20.0, 60.0, 8.0),
            Self::Flash => maker.flash(0, 0.5, 100.0),
            Self::LongTail => maker.long_tail(0, functions),
            Self::Mixed => maker.mixed(functions),
        };
        maker.out.sort_unstable();
        let end = micros(maker.end);
        Trace {
            name: self.name(),
            functions: count,
            end,
            measured_from: end / 12,
            arrivals: maker.out,
        }
    }
}

/// Seeded random numbers with the distributions that traces are made of.
#[derive(Debug, Clone)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Uniform in 0 to 1.
    pub fn unit(&mut self) -> f64 {
        self.0.random::<f64>()
    }

    /// Exponential with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Normal with mean 0 and deviation 1.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Geometric from 1 with this mean.
    fn geometric(&mut self, mean: f64) -> u32 {
        let stop = 1.0 / mean.max(1.0);
        let mut count = 1;
        while self.unit() > stop && count < 1000 {
            count += 1;
        }
        count
    }
}

struct Maker {
    random: Random,
    end: f64,
    out: Vec<Arrival>,
}

impl Maker {
    fn push(&mut self, at: f64, function: u32) {
        if at >= 0.0 && at < self.end {
            self.out.push(Arrival { at: micros(at), function });
        }
    }

    /// Poisson with a rate that changes, by thinning; `most` is its highest.
    fn poisson(&mut self, function: u32, rate: impl Fn(f64) -> f64, most: f64) -> u32 {
        let mut at = self.random.exponential(1.0 / most);
        while at < self.end {
            if self.random.unit() * most < rate(at) {
                self.push(at, function);
            }
            at += self.random.exponential(1.0 / most);
        }
        function + 1
    }

    fn diurnal(&mut self, function: u32, low: f64, high: f64) -> u32 {
        let rate = move |at: f64| {
            let wave = 0.5 - 0.5 * (std::f64::consts::TAU * at / 86_400.0).cos();
            low + (high - low) * wave
        };
        self.poisson(function, rate, high)
    }

    /// On and off times exponential; while on, batches of geometric size at Poisson times, which
    /// makes counts negative binomial.
    fn bursty(&mut self, function: u32, on: f64, off: f64, batches: f64) -> u32 {
        let mut at = self.random.exponential(off);
        while at < self.end {
            let until = at + self.random.exponential(on);
            loop {
                at += self.random.exponential(1.0 / batches);
                if at >= until {
                    break;
                }
                for _ in 0..self.random.geometric(2.5) {
                    let late = self.random.exponential(0.01);
                    self.push(at + late, function);
                }
            }
            at = until + self.random.exponential(off);
        }
        function + 1
    }

    /// A crowd about every quarter of an hour: up within three seconds, fading over a minute.
    fn flash(&mut self, function: u32, base: f64, times: f64) -> u32 {
        let mut crowds = Vec::new();
        let mut at = 300.0 + self.random.exponential(600.0);
        while at < self.end {
            crowds.push(at);
            at += 300.0 + self.random.exponential(600.0);
        }
        let rate = move |at: f64| {
            let crowd = crowds.iter().filter(|&&begin| at >= begin && at < begin + 600.0);
            let height = |begin: &f64| {
                let since = at - begin;
                (since / 3.0).min(1.0) * (-since / 60.0).exp()
            };
            base * (1.0 + (times - 1.0) * crowd.map(height).sum::<f64>())
        };
        self.poisson(function, rate, base * times * 1.5)
    }

    /// Zipf popularity; a quarter are cron-like, of the others half call in small groups.
    fn long_tail(&mut self, first: u32, functions: u32) -> u32 {
        const PERIODS: [f64; 9] =
            [60.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 21_600.0];
        for rank in 0..functions {
            let function = first + rank;
            let popularity = f64::from(rank + 1).powf(-1.05);
            match self.random.unit() {
                x if x < 0.25 => {
                    let pick = self.random.unit() * self.random.unit().sqrt();
                    let index = (0..9_u32).find(|&i| 1.0 - pick < f64::from(i + 1) / 9.0);
                    let period = PERIODS[usize::try_from(index.unwrap_or(8)).unwrap_or(8)];
                    self.cron(function, period);
                }
                x if x < 0.62 => {
                    let mean = 4.0 / popularity;
                    self.renewal(function, mean, 1.0);
                }
                _ => {
                    let mean = 12.0 / popularity;
                    self.renewal(function, mean, 2.5);
                }
            }
        }
        first + functions
    }

    /// Every period, late by a chance that is small against it; one in fifty is left out.
    fn cron(&mut self, function: u32, period: f64) {
        let jitter = period * 0.01 * (0.2 + 1.8 * self.random.unit());
        let mut due = self.random.unit() * period;
        while due < self.end {
            if self.random.unit() > 0.02 {
                let late = jitter * self.random.normal();
                self.push(due + late, function);
            }
            due += period;
        }
    }

    /// Log-normal silences (more variable than exponential), groups of `group` on average.
    fn renewal(&mut self, function: u32, mean: f64, group: f64) {
        let sigma: f64 = 1.4;
        let mut at = self.random.unit() * mean;
        while at < self.end {
            let mut each = at;
            for _ in 0..self.random.geometric(group) {
                self.push(each, function);
                each += self.random.exponential(0.3);
            }
            at += mean * (sigma * self.random.normal() - sigma * sigma / 2.0).exp();
        }
    }

    fn mixed(&mut self, functions: u32) -> u32 {
        let mut next = 0;
        for rate in [5.0, 1.0, 0.2] {
            next = self.poisson(next, |_| rate, rate);
        }
        next = self.diurnal(next, 0.05, 5.0);
        next = self.bursty(next, 20.0, 120.0, 3.0);
        next = self.bursty(next, 5.0, 300.0, 6.0);
        next = self.flash(next, 0.1, 100.0);
        self.long_tail(next, functions / 10)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within a trace")]
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}
