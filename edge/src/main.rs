//! The edge's process: settings, database, listeners, reconciler, and an orderly end.

use std::{io::IsTerminal as _, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use edge::{admin, config::EdgeConfig, start};
use edge_control::Reconciler;
use pool_config::Loaded;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

fn main() -> ExitCode {
    let loaded = match pool_config::load::<EdgeConfig>("edge", "terminates client connections") {
        Ok(loaded) => loaded,
        Err(error) => error.exit(),
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("WRENN_LOG")
                .unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
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

async fn run(loaded: Loaded<EdgeConfig>) -> anyhow::Result<()> {
    let Loaded { config, layout, .. } = loaded;
    let mut terminate = signal(SignalKind::terminate()).context("no signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no signals")?;
    let _lock = start::lock(&layout)?;

    // What should be, and who can make it so.
    let store = start::store(&layout, &config).await?;
    let token = tokio::select! {
        token = start::agent_token(&layout, &config) => token?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let control = start::control(&config, store, &token);

    // All listeners or none.
    let admin = start::bind_admin(&config).await?;
    let edge = start::bind(&layout, &config, &control, &token).await?;
    tracing::info!(
        http = ?edge.http_addr(), https = ?edge.https_addr(), quic = ?edge.quic_addr(),
        admin = ?admin.local_addr().ok(), domain = config.domain, "serving"
    );

    // Every task has an owner that joins it.
    let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
    let interval = Duration::from_millis(config.reconcile_interval_ms.max(100));
    tasks.spawn(Reconciler::new(Arc::clone(&control), interval).run(cancel.clone()));
    let admin_router = admin::router(Arc::clone(&control));
    let admin_cancel = cancel.clone();
    tasks.spawn(async move {
        let served = axum::serve(admin, admin_router)
            .with_graceful_shutdown(admin_cancel.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!("the admin listener ended: {error}");
        }
    });
    let grace = Duration::from_millis(config.drain_ms);
    let serving = tokio::spawn(edge.run(cancel.clone(), grace));

    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
    }
    cancel.cancel();
    control.close_streams();
    let drained = serving.await.context("the listeners' task panicked")?;
    tasks.close();
    // What is cut here has a record: the next start cleans up after it.
    let finished = timeout(grace, async { tokio::join!(control.drain(), tasks.wait()) }).await;
    control.store().close().await;
    tracing::info!(cut = drained.cut, finished = finished.is_ok(), "stopped");
    Ok(())
}
