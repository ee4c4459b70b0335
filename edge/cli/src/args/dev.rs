//! The arguments of `wrenn dev`.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum DevCommand {
    /// Start it, deploy the sample function and print how to call it
    Up(UpArgs),
    /// Stop it and everything it runs
    Down(DevDir),
    /// Say whether it runs
    Status(DevDir),
    /// Run it in the foreground (what `up` starts in the background)
    #[command(hide = true)]
    Supervise(StackArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DevDir {
    /// Where the installation is
    #[arg(long, env = "WRENN_DIR", default_value = ".wrenn", value_name = "DIR")]
    pub(crate) wrenn_dir: PathBuf,
    /// Where agent, edge and pager are [default: beside wrenn itself]
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
}

/// One stack: ports differ so that a second one can run beside the first.
#[derive(Debug, Clone, Args)]
pub(crate) struct StackArgs {
    #[command(flatten)]
    pub(crate) at: DevDir,
    /// The domain that host names end with
    #[arg(long, default_value = "wrenn.localhost")]
    pub(crate) domain: String,
    /// The address that is served
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) address: IpAddr,
    /// HTTP/1.1 and HTTP/2 in the clear
    #[arg(long, default_value_t = 8080)]
    pub(crate) http_port: u16,
    /// HTTPS (TCP) and HTTP/3 (UDP)
    #[arg(long, default_value_t = 8443)]
    pub(crate) https_port: u16,
    /// The edge's metrics and health
    #[arg(long, default_value_t = 7400)]
    pub(crate) admin_port: u16,
    /// The agent's RPC
    #[arg(long, default_value_t = 7401)]
    pub(crate) rpc_port: u16,
    /// The agent's proxy listener
    #[arg(long, default_value_t = 7402)]
    pub(crate) proxy_port: u16,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) stack: StackArgs,
    /// The sample function to deploy if it is absent [default: images/functions/hello upwards]
    #[arg(long, value_name = "DIR")]
    pub(crate) sample: Option<PathBuf>,
    /// Deploy no sample function
    #[arg(long)]
    pub(crate) no_sample: bool,
    /// The longest to wait until it serves, milliseconds
    #[arg(long, default_value_t = 60_000)]
    pub(crate) timeout_ms: u64,
}
