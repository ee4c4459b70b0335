//! `envd`: serves the guest daemon's port until it is told to end.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use anyhow::Context as _;
use clap::Parser;
use envd::{Accounts, Guest, HandsOff, Linux, Surroundings, System, UserCgroup, WipingAllocator};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

/// The guest daemon of a Wrenn sandbox.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    listen: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = envd_api::PORT)]
    port: u16,
    /// Where cgroup v2 is mounted; `none` to run processes without one.
    #[arg(long, default_value = "/sys/fs/cgroup")]
    cgroup_root: PathBuf,
    /// Leave the machine's clock, host name and priorities alone, for one that is no sandbox.
    #[arg(long)]
    hands_off: bool,
    /// Log every request.
    #[arg(long)]
    verbose: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let level = if args.verbose { tracing::Level::DEBUG } else { tracing::Level::INFO };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    // One thread: a guest has one CPU as a rule, and every thread is memory in every snapshot.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .build()
        .context("can't start the runtime")?
        .block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<()> {
    let system: Box<dyn System> = if args.hands_off {
        Box::new(HandsOff::default())
    } else {
        if let Err(error) = envd::take_precedence() {
            tracing::warn!("running without precedence: {error}");
        }
        Box::new(Linux::default())
    };
    let cgroup = match args.cgroup_root.as_os_str() {
        root if root == "none" => UserCgroup::Off,
        _ => UserCgroup::create(&args.cgroup_root),
    };
    let guest = Guest::new(Surroundings { system, cgroup, accounts: Accounts::default() });
    let listener = envd::listen(SocketAddr::new(args.listen, args.port)).await?;
    let address = listener.local_addr().context("the listener has no address")?;
    tracing::info!("envd {} listens on {address}", envd::VERSION);
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("can't watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't watch for SIGINT")?;
    let server = tokio::spawn(envd::serve(listener, Arc::new(guest), stop.clone()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    server.await.context("the server died")
}
