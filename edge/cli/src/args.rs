//! The command line, as clap reads it.

mod dev;
mod pool;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use edge_api::FunctionName;
use pool_model::{Port, SandboxId, SnapshotId};

pub(crate) use dev::{DevCommand, DevDir, StackArgs, UpArgs};
pub(crate) use pool::PoolCommand;

/// Deploys and invokes functions and drives sandboxes.
#[derive(Debug, Parser)]
#[command(name = "wrenn", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connect: Connect,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to reach the API; all of it is found by itself beside a developer stack.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Connect {
    /// Print results as JSON on standard output
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// A developer stack's dev.json [default: $WRENN_DIR/dev.json, else .wrenn/dev.json upwards]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) dev_json: Option<PathBuf>,
    /// The API's address, e.g. `https://api.example.com`
    #[arg(long, global = true, env = "WRENN_API_URL", value_name = "URL")]
    pub(crate) api_url: Option<http::Uri>,
    /// A file that holds the API key (or the key itself in WRENN_API_KEY)
    #[arg(long, global = true, env = "WRENN_API_KEY_FILE", value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Certificates to trust, PEM
    #[arg(long, global = true, env = "WRENN_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Deploy the function in a directory (its wrenn.toml says how)
    Deploy(DeployArgs),
    /// Send requests to a function
    Invoke(InvokeArgs),
    /// Create, use and remove sandboxes
    Sandbox {
        #[command(subcommand)]
        command: SandboxCommand,
    },
    /// Look at, tune and follow the pools of warm sandboxes
    Pool {
        #[command(subcommand)]
        command: PoolCommand,
    },
    /// List and remove functions
    Function {
        #[command(subcommand)]
        command: FunctionCommand,
    },
    /// List and remove snapshots
    Snapshot {
        #[command(subcommand)]
        command: SnapshotCommand,
    },
    /// List templates
    Template {
        #[command(subcommand)]
        command: TemplateCommand,
    },
    /// List functions and sandboxes
    Ls,
    /// Run the developer stack on this machine
    Dev {
        #[command(subcommand)]
        command: DevCommand,
    },
}

/// What deploys; flags win over wrenn.toml.
#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    /// The directory with the code and its wrenn.toml
    pub(crate) dir: PathBuf,
    /// The function's name
    #[arg(long)]
    pub(crate) name: Option<FunctionName>,
    /// Template id or name
    #[arg(long)]
    pub(crate) template: Option<String>,
    /// The command that starts the server
    #[arg(long)]
    pub(crate) start: Option<String>,
    /// The port that the server listens on
    #[arg(long)]
    pub(crate) port: Option<Port>,
    /// The path that answers 2xx once the server is ready
    #[arg(long)]
    pub(crate) ready_path: Option<String>,
    /// How long the server may take to become ready, milliseconds
    #[arg(long)]
    pub(crate) ready_timeout_ms: Option<u64>,
    /// Memory of its virtual machine, MiB
    #[arg(long)]
    pub(crate) memory_mib: Option<u32>,
    /// Warm sandboxes to keep at least: 0 to 1000 (all other settings of the pool: wrenn.toml)
    #[arg(long)]
    pub(crate) min_warm: Option<u32>,
    /// Warm and restoring sandboxes to have at most: 1 to 1000
    #[arg(long)]
    pub(crate) max_warm: Option<u32>,
    /// Environment of the start command; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) env: Vec<(String, String)>,
}

impl DeployArgs {
    /// What deploys `dir` as its wrenn.toml says.
    pub(crate) const fn of_dir(dir: PathBuf) -> Self {
        Self {
            dir,
            name: None,
            template: None,
            start: None,
            port: None,
            ready_path: None,
            ready_timeout_ms: None,
            memory_mib: None,
            min_warm: None,
            max_warm: None,
            env: Vec::new(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct InvokeArgs {
    /// The function's name
    pub(crate) name: FunctionName,
    /// The path and query to ask for
    #[arg(long, default_value = "/")]
    pub(crate) path: String,
    /// The method [default: GET, or POST with --data]
    #[arg(long)]
    pub(crate) method: Option<http::Method>,
    /// The body: a text, or @FILE
    #[arg(long)]
    pub(crate) data: Option<String>,
    /// A header to send; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub(crate) headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// The protocol to speak
    #[arg(long, value_enum, default_value = "2")]
    pub(crate) http: HttpVersion,
    /// How many requests to send, one after the other
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) repeat: u32,
    /// The longest one request may take, milliseconds
    #[arg(long, default_value_t = 60_000)]
    pub(crate) timeout_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HttpVersion {
    #[value(name = "1.1")]
    H1,
    #[value(name = "2")]
    H2,
    #[value(name = "3")]
    H3,
}

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

#[derive(Debug, Subcommand)]
pub(crate) enum FunctionCommand {
    /// List them
    Ls,
    /// Look one up
    Get { name: FunctionName },
    /// Remove one, its pool and its snapshot
    Rm { name: FunctionName },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// List them
    Ls,
    /// Remove one that nothing uses
    Rm { id: SnapshotId },
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum TemplateCommand {
    /// List them
    Ls,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

fn header(text: &str) -> Result<(http::HeaderName, http::HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    let name = name.trim().parse().map_err(|_| format!("`{name}` is no header name"))?;
    let value = value.trim().parse().map_err(|_| "the value has forbidden bytes".to_owned())?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_after_two_dashes_belong_to_the_command() {
        let id = SandboxId::from_u128(7).to_string();
        let line = ["wrenn", "sandbox", "exec", &id, "--", "ls", "--json", "-l"];
        let cli = Cli::try_parse_from(line).unwrap();
        assert!(!cli.connect.json);
        let Command::Sandbox { command: SandboxCommand::Exec(args) } = cli.command else {
            panic!("parsed as something else")
        };
        assert_eq!(args.args, ["ls", "--json", "-l"]);
    }
}
