//! When arrivals come, by flags.

use std::{path::PathBuf, time::Duration};

use anyhow::bail;
use clap::{Args, ValueEnum};
use loadtest_model::{Arrivals, Level, Load};

use super::target::{duration, milliseconds};

/// How many users a closed loop has if nothing was said.
const CONCURRENCY: u32 = 1;
/// How long a load lasts if nothing was said.
const DURATION: Duration = Duration::from_secs(10);
/// The share of time that is loud in bursty arrivals.
const BURST_SHARE: f64 = 0.1;

/// When arrivals come.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load (open loop with --rate or --trace, else closed)")]
pub(crate) struct LoadArgs {
    /// Requests per second, whatever the answers do (open loop)
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// How open-loop arrivals are spread
    #[arg(long, value_enum, default_value_t = Spread::Poisson)]
    arrivals: Spread,
    /// How many times the rate loud times have, of bursty arrivals
    #[arg(long, default_value_t = 5.0, value_name = "FACTOR")]
    burst_factor: f64,
    /// Mean length of a loud time
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = duration)]
    burst_length: Duration,
    /// Times to replay: one number of seconds per line (open loop)
    #[arg(long, value_name = "FILE", conflicts_with = "rate")]
    trace: Option<PathBuf>,
    /// How many times as fast
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    speed: f64,
    /// Requests at a time (closed loop)
    #[arg(long, value_name = "USERS", conflicts_with_all = ["rate", "trace"])]
    concurrency: Option<u32>,
    /// How long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// How many in all (closed loop, staggered)
    #[arg(long, conflicts_with_all = ["rate", "trace"])]
    requests: Option<u64>,
    /// Send --requests this long after each other; 0s is a burst
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "concurrency", requires = "requests")]
    stagger: Option<Duration>,
    /// Most requests under way in an open loop
    #[arg(long, default_value_t = 1024)]
    max_in_flight: u32,
}

/// How open-loop arrivals are spread.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Spread {
    /// Evenly
    Constant,
    /// As independent users come
    Poisson,
    /// Quiet and loud times in turn
    Bursty,
}

impl LoadArgs {
    /// The load that was asked for; it lasts for `otherwise` if nothing was said of that.
    pub(crate) fn load(&self, otherwise: Option<Duration>) -> anyhow::Result<Load> {
        let duration = self.duration.or(otherwise).unwrap_or(DURATION);
        if let Some(stagger) = self.stagger {
            let count = u32::try_from(self.requests.unwrap_or_default())?;
            return Ok(Load::Staggered { count, delay_ms: milliseconds(stagger) });
        }
        if let Some(file) = &self.trace {
            let arrivals = Arrivals::Replay { file: file.clone(), speed: self.speed };
            return Ok(self.open(arrivals, duration));
        }
        if let Some(rate_per_s) = self.rate {
            return Ok(self.open(self.spread(rate_per_s), duration));
        }
        let timed = self.requests.is_none() || self.duration.is_some();
        if timed && self.requests.is_some() {
            bail!("--duration and --requests exclude each other");
        }
        Ok(Load::Closed {
            concurrency: self.concurrency.unwrap_or(CONCURRENCY),
            duration_ms: timed.then(|| milliseconds(duration)),
            requests: self.requests,
        })
    }

    /// From 0 to a rate by steps as long as each other.
    pub(crate) fn steps(&self, to_per_s: f64, count: u32, each: Duration) -> Load {
        let level = |index: u32| Level {
            rate_per_s: to_per_s * f64::from(index) / f64::from(count),
            for_ms: milliseconds(each),
        };
        let arrivals = Arrivals::Steps { levels: (1..=count).map(level).collect() };
        self.open(arrivals, each * count)
    }

    fn open(&self, arrivals: Arrivals, duration: Duration) -> Load {
        let duration_ms = milliseconds(duration);
        Load::Open { arrivals, duration_ms, max_in_flight: self.max_in_flight }
    }

    fn spread(&self, rate_per_s: f64) -> Arrivals {
        match self.arrivals {
            Spread::Constant => Arrivals::Constant { rate_per_s },
            Spread::Poisson => Arrivals::Poisson { rate_per_s },
            Spread::Bursty => Arrivals::Bursty {
                rate_per_s,
                factor: self.burst_factor,
                burst_ms: milliseconds(self.burst_length),
                share: BURST_SHARE,
            },
        }
    }
}
