//! The command line, as clap reads it.

mod dev;
mod function;
mod job;
mod pool;
mod sandbox;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use edge_api::{FunctionName, TagName};
use pool_model::{Port, SnapshotId};

pub(crate) use dev::{DevCommand, DevDir, StackArgs, UpArgs};
pub(crate) use function::{
    DomainCommand, InvocationCommand, PromoteArgs, SignArgs, SplitArgs, TagCommand,
};
pub(crate) use job::{CronCommand, JobCommand, JobState};
pub(crate) use pool::PoolCommand;
pub(crate) use sandbox::{CreateArgs, ExecArgs, SandboxCommand};

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
    /// List, set and remove the tags of a function's versions
    Tag {
        #[command(subcommand)]
        command: TagCommand,
    },
    /// Make another version of a function the current one; tag the present one first to keep it
    Promote(PromoteArgs),
    /// Split the requests to a function's plain name between tags
    Split(SplitArgs),
    /// Claim, verify, list and give up custom domains of a function
    Domain {
        #[command(subcommand)]
        command: DomainCommand,
    },
    /// Sign a URL that is good without a key for a while (if the function's auth has `signed_url`)
    Sign(SignArgs),
    /// Look at and set how a function may be invoked: limits, queue, keys, CORS, schedules
    Invocation {
        #[command(subcommand)]
        command: InvocationCommand,
    },
    /// List, look up, retry and remove asynchronous invocations
    Job {
        #[command(subcommand)]
        command: JobCommand,
    },
    /// List a function's schedules and their times
    Cron {
        #[command(subcommand)]
        command: CronCommand,
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
    /// A tag for the new version, called at `<name>--<tag>`; one that there is moves to it
    #[arg(long)]
    pub(crate) tag: Option<TagName>,
    /// Leave the plain name at the version it leads to now; needs a tag
    #[arg(long)]
    pub(crate) no_promote: bool,
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
            tag: None,
            no_promote: false,
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
    use pool_model::SandboxId;

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
