//! The agent's process: settings, host, recovery, two listeners, and an orderly end.

use std::{process::ExitCode, time::Duration};

use agent::{agent::Agent, config, config::AgentConfig, proxy, rpc, start};
use anyhow::Context as _;
use pool_config::{Loaded, Loader};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::timeout,
};

/// Longest for requests to end and warm sandboxes to be destroyed after SIGTERM.
const DRAIN_MAX: Duration = Duration::from_secs(8);

fn main() -> ExitCode {
    let mut loader = Loader::new("agent", "keeps one host's sandboxes");
    for (name, doc) in config::COMMANDS {
        loader = loader.command(name, doc);
    }
    let loaded = match loader.load::<AgentConfig>() {
        Ok(loaded) => loaded,
        Err(error) => error.exit(),
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("WRENN_LOG")
                .unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(loaded)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(loaded: Loaded<AgentConfig>) -> anyhow::Result<()> {
    let Loaded { mut config, layout, command } = loaded;
    if command == Some("reap") {
        // Nothing is sent or brought: whoever stops an installation needs no credentials for that.
        (config.object_store_url, config.object_store_endpoint) = (None, None);
    }
    let _lock = start::lock(&layout)?;
    let (rpc_listen, proxy_listen) = (config.rpc_listen, config.proxy_listen);
    let agent = start::agent(layout.clone(), config).await?;
    if command == Some("reap") {
        let reaped = agent.reap_all().await?;
        agent.host.cancel.cancel();
        agent.host.pager.stop().await?;
        tracing::info!("reaped {reaped} sandboxes");
        return Ok(());
    }
    let token = start::token(&layout)?;
    let found = agent.recover().await?;
    tracing::info!(
        adopted = found.adopted,
        paused = found.paused,
        reaped = found.reaped,
        slots = found.slots,
        "recovered"
    );
    let rpc_listener = bind(rpc_listen, "rpc_listen").await?;
    let proxy_listener = bind(proxy_listen, "proxy_listen").await?;
    agent.pools.restart(&agent).await?;
    let tasks = &agent.host.tasks;
    tasks.spawn(rpc::serve(agent.clone(), rpc_listener, token.clone()));
    tasks.spawn(proxy::serve(agent.clone(), proxy_listener, token));
    tasks.spawn(agent.pools.clone().run_budget());
    agent.publish_unsent().await?;
    tracing::info!(%rpc_listen, %proxy_listen, "agent is ready");
    wait_for_signal().await?;
    drain(&agent).await;
    Ok(())
}

async fn bind(at: std::net::SocketAddr, name: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(at).await.with_context(|| format!("{name}: cannot listen on {at}"))
}

async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping; running sandboxes stay"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping; running sandboxes stay"),
    }
    Ok(())
}

/// Lets requests end and warm sandboxes go. Whatever is left when the time is over is reaped or
/// adopted by the next agent.
async fn drain(agent: &Agent) {
    if timeout(DRAIN_MAX, agent.pools.close()).await.is_err() {
        tracing::warn!("leases outlived the drain; their sandboxes are reaped at the next start");
    }
    agent.host.cancel.cancel();
    agent.host.tasks.close();
    if timeout(Duration::from_secs(2), agent.host.tasks.wait()).await.is_err() {
        tracing::warn!("{} tasks cut", agent.host.tasks.len());
    }
}
