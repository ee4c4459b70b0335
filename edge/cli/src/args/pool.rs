//! `wrenn pool`: what its arguments are.

use clap::{Args, Subcommand, ValueEnum};
use edge_api::{FunctionName, PoolPatch, Schedule};

use crate::schedule;

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Look at one pool: what it aims for, how it is and was
    Get { function: FunctionName },
    /// Change what one pool aims for; what is not given stays
    Set {
        function: FunctionName,
        #[command(flatten)]
        policy: Box<PolicyArgs>,
    },
    /// List them
    Ls,
    /// Make warm sandboxes now; they are idle ones like others after that
    Prewarm {
        function: FunctionName,
        /// Warm sandboxes to have: 1 to the pool's max-warm
        #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
    },
    /// Destroy the warm sandboxes; the policy then makes new ones
    Drain { function: FunctionName },
    /// Follow one pool, or all of them: one line per pool and interval
    Watch {
        function: Option<FunctionName>,
        /// Time between two lines of a pool, milliseconds: 200 to 60000
        #[arg(long, default_value_t = 1000, value_name = "MS",
              value_parser = clap::value_parser!(u64).range(200..=60_000))]
        interval_ms: u64,
    },
}

/// What a pool aims for. The defaults are those of a new function; here what is not given stays.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// Warm sandboxes to keep at least: 0 to 1000, at most max-warm [new functions: 1]
    #[arg(long, value_name = "N")]
    min_warm: Option<u32>,
    /// Warm and restoring sandboxes to have at most: 1 to 1000 [new functions: 8]
    #[arg(long, value_name = "N")]
    max_warm: Option<u32>,
    /// Idle warm sandboxes over min-warm are destroyed after this, milliseconds: 1000 to 86400000
    /// (a day) [new functions: 600000]
    #[arg(long, value_name = "MS")]
    idle_ttl_ms: Option<u64>,
    /// A warm sandbox is replaced after this, milliseconds: 0 for never, or 1000 to 2592000000 (30
    /// days) [new functions: 0]
    #[arg(long, value_name = "MS")]
    max_age_ms: Option<u64>,
    /// Warm sandboxes on top of what the arrival rate asks for, once there are arrivals: 0 to 1000
    /// [new functions: 0]
    #[arg(long, value_name = "N")]
    burst: Option<u32>,
    /// Restores of this pool at once: 1 to 256, or 0 for as many as the host allows [new functions:
    /// 0]
    #[arg(long, value_name = "N")]
    refill_concurrency: Option<u32>,
    /// What is put into memory before it is asked for [new functions: working_set]
    #[arg(long, value_enum)]
    prefetch: Option<Prefetch>,
    /// Whether a sandbox may serve more than one request [new functions: never]
    #[arg(long, value_enum)]
    reuse: Option<Reuse>,
    /// Most requests of one sandbox: 1 to 1000000, over 1 only with `--reuse sequential` [new
    /// functions: 1]
    #[arg(long, value_name = "N")]
    max_requests: Option<u32>,
    /// Most guest memory that this pool may be promised, MiB: 1 to 1073741824, or 0 for what the
    /// host has [new functions: 0]
    #[arg(long, value_name = "MIB")]
    memory_budget_mib: Option<u64>,
    /// A time with a higher min-warm, UTC, e.g. 'mon-fri 08:00-18:00 =5' or '22:00-02:00 =3'; may
    /// be repeated, at most 32 times, and replaces the whole schedule [new functions: none]
    #[arg(long, value_name = "[DAYS] FROM-UNTIL =N", value_parser = schedule::parse,
          conflicts_with = "no_schedule")]
    schedule: Vec<Schedule>,
    /// Remove the whole schedule
    #[arg(long)]
    no_schedule: bool,
}

impl PolicyArgs {
    /// What was given, as the API takes it.
    pub(crate) fn into_patch(self) -> PoolPatch {
        let replaced = self.no_schedule || !self.schedule.is_empty();
        PoolPatch {
            min_warm: self.min_warm,
            max_warm: self.max_warm,
            idle_ttl_ms: self.idle_ttl_ms,
            max_age_ms: self.max_age_ms,
            burst: self.burst,
            refill_concurrency: self.refill_concurrency,
            prefetch: self.prefetch.map(Into::into),
            reuse: self.reuse.map(Into::into),
            max_requests: self.max_requests,
            memory_budget_mib: self.memory_budget_mib,
            schedule: replaced.then_some(self.schedule),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Prefetch {
    /// Nothing: every page comes when it is first touched
    None,
    /// The pages that earlier restores touched up to their first response
    #[value(name = "working_set")]
    WorkingSet,
    /// All of the snapshot's memory
    Full,
}

impl From<Prefetch> for edge_api::Prefetch {
    fn from(given: Prefetch) -> Self {
        match given {
            Prefetch::None => Self::None,
            Prefetch::WorkingSet => Self::WorkingSet,
            Prefetch::Full => Self::Full,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Reuse {
    /// One request, one virtual machine
    Never,
    /// One after the other; what a request leaves behind is seen by the next one
    Sequential,
}

impl From<Reuse> for edge_api::Reuse {
    fn from(given: Reuse) -> Self {
        match given {
            Reuse::Never => Self::Never,
            Reuse::Sequential => Self::Sequential,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn patch(flags: &[&str]) -> Result<PoolPatch, String> {
        let line = ["wrenn", "pool", "set", "hello"].iter().chain(flags);
        let cli = Cli::try_parse_from(line).map_err(|refused| refused.to_string())?;
        let Command::Pool { command: PoolCommand::Set { policy, .. } } = cli.command else {
            panic!("parsed as something else")
        };
        Ok(policy.into_patch())
    }

    #[test]
    fn every_flag_is_one_field_of_the_patch() {
        let flags = [
            "--min-warm=1",
            "--max-warm=2",
            "--idle-ttl-ms=3",
            "--max-age-ms=4",
            "--burst=5",
            "--refill-concurrency=6",
            "--prefetch=working_set",
            "--reuse=sequential",
            "--max-requests=7",
            "--memory-budget-mib=8",
            "--schedule=mon 01:00-02:00 =9",
        ];
        let whole = serde_json::to_value(patch(&flags).unwrap()).unwrap();
        let expected = serde_json::json!({
            "min_warm": 1, "max_warm": 2, "idle_ttl_ms": 3, "max_age_ms": 4, "burst": 5,
            "refill_concurrency": 6, "prefetch": "working_set", "reuse": "sequential",
            "max_requests": 7, "memory_budget_mib": 8,
            "schedule": [{ "days": ["mon"], "from": "01:00", "until": "02:00", "min_warm": 9 }],
        });
        assert_eq!(whole, expected);
        for flag in flags {
            let one = serde_json::to_value(patch(&[flag]).unwrap()).unwrap();
            assert_eq!(one.as_object().unwrap().len(), 1, "{flag}: {one}");
        }
    }

    #[test]
    fn schedules_add_up_or_go_and_bad_ones_are_refused() {
        let two = ["--schedule=01:00-02:00 =1", "--schedule", "sat 03:00-04:00 =2"];
        assert_eq!(patch(&two).unwrap().schedule.unwrap().len(), 2);
        assert_eq!(patch(&["--no-schedule"]).unwrap().schedule, Some(Vec::new()));
        assert_eq!(patch(&[]).unwrap(), PoolPatch::default());
        for (flags, part) in [
            (&["--no-schedule", "--schedule=01:00-02:00 =1"][..], "cannot be used with"),
            (&["--schedule=moon 01:00-02:00 =1"], "moon"),
            (&["--reuse=always"], "sequential"),
            (&["--prefetch=some"], "working_set"),
            (&["--min-warm=-1"], "min-warm"),
        ] {
            let refused = patch(flags).unwrap_err();
            assert!(refused.contains(part), "{flags:?}: {refused}");
        }
    }
}
