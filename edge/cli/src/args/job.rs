//! The command line of invocations that nobody waits for, and of schedules.

use clap::{Subcommand, ValueEnum};
use edge_api::FunctionName;

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// List a function's asynchronous invocations, newest first
    Ls {
        function: FunctionName,
        /// Only those that are so; `dead` are the dead letters
        #[arg(long, value_enum)]
        state: Option<JobState>,
        /// Only those older than this one
        #[arg(long, value_name = "ID")]
        before: Option<String>,
        /// How many
        #[arg(long, default_value_t = edge_api::INVOCATIONS_DEFAULT,
              value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Look one up, with its answer
    Get { id: String },
    /// Put a dead letter back into the queue
    Retry { id: String },
    /// Cancel one that waits, or remove one that is finished
    Rm { id: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum JobState {
    Queued,
    Running,
    Succeeded,
    Dead,
    Cancelled,
}

impl JobState {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum CronCommand {
    /// List a function's schedules, when they fired last and will next
    Ls { function: FunctionName },
}
