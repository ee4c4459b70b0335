//! The command line of `wrenn sandbox`.

use clap::{Args, Subcommand, ValueEnum};
use pool_model::{Port, SandboxId, SnapshotId};

use super::pair;

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Create one from a template or a snapshot
    Create(CreateArgs),
    /// List them
    Ls,
    /// Look one up
    Get { id: SandboxId },
    /// Run a command in one; its exit status is passed on
    Exec(ExecArgs),
    /// Write one to disk and free its memory
    Pause { id: SandboxId },
    /// Bring a paused one back
    Resume { id: SandboxId },
    /// Destroy one
    Rm { id: SandboxId },
    /// Print where one of its ports is reached
    Url { id: SandboxId, port: Port },
    /// Set its timeout, from now
    Timeout {
        id: SandboxId,
        /// Seconds from now
        seconds: u64,
    },
    /// Make a snapshot of one, which goes on
    Snapshot {
        id: SandboxId,
        /// A name to find it by
        #[arg(long)]
        name: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Template id or name
    #[arg(long, conflicts_with = "snapshot")]
    pub(crate) template: Option<String>,
    /// Snapshot to restore
    #[arg(long)]
    pub(crate) snapshot: Option<SnapshotId>,
    /// Seconds until its timeout
    #[arg(long)]
    pub(crate) timeout_s: Option<u64>,
    /// What happens when the timeout passes
    #[arg(long, value_enum, default_value = "kill")]
    pub(crate) on_timeout: OnTimeout,
    /// Memory, MiB
    #[arg(long, conflicts_with = "snapshot")]
    pub(crate) memory_mib: Option<u32>,
    /// Virtual processors
    #[arg(long, conflicts_with = "snapshot")]
    pub(crate) vcpus: Option<u32>,
    /// Environment of every process in it; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// A note of yours; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) metadata: Vec<(String, String)>,
    /// Keep it off the internet
    #[arg(long)]
    pub(crate) no_internet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnTimeout {
    Kill,
    Pause,
}

impl From<OnTimeout> for pool_model::OnTimeout {
    fn from(given: OnTimeout) -> Self {
        match given {
            OnTimeout::Kill => Self::Kill,
            OnTimeout::Pause => Self::Pause,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    pub(crate) id: SandboxId,
    /// Run this line in a login shell instead of a program
    #[arg(short = 'c', long = "cmd", conflicts_with = "args", value_name = "LINE")]
    pub(crate) cmd: Option<String>,
    /// Run it as this user
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Run it in this directory
    #[arg(long)]
    pub(crate) cwd: Option<String>,
    /// Environment of the command; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
    /// The longest it may run, milliseconds; 0 means as long as the sandbox
    #[arg(long)]
    pub(crate) timeout_ms: Option<u64>,
    /// Pass standard input on to it (at most 512 KiB of UTF-8)
    #[arg(long)]
    pub(crate) stdin: bool,
    /// Leave it running and return at once
    #[arg(long, conflicts_with = "stdin")]
    pub(crate) background: bool,
    /// The program and its arguments; a single argument with spaces is a line for a login shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required_unless_present = "cmd")]
    pub(crate) args: Vec<String>,
}
