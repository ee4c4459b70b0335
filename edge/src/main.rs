//! The edge's process: settings, database, listeners, reconciler, and an orderly end.

use std::{
    fs::File, io::IsTerminal as _, net::TcpListener, process::ExitCode, sync::Arc, time::Duration,
};

use anyhow::Context as _;
use edge::{
    admin,
    config::EdgeConfig,
    jobs, plane, start,
    takeover::{self, Waiting},
};
use edge_control::{Control, Reconciler};
use edge_proxy::Running;
use edge_telemetry::Telemetry;
use pool_config::Loaded;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A proxy lives by small allocations that one thread makes and another frees: see BENCHMARKS.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long lines and spans that wait have at the end.
const TELEMETRY_GRACE: Duration = Duration::from_secs(3);
/// How long the runtime's blocking threads have at the end: a disk may hang.
const BLOCKING_GRACE: Duration = Duration::from_secs(2);

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
    let ended = runtime.block_on(run(loaded));
    runtime.shutdown_timeout(BLOCKING_GRACE);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The signals that the process listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    successor: Signal,
}

/// What a signal asks for.
enum Asked {
    Stop,
    ReopenLog,
    Successor,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let of = |kind| signal(kind).context("no signals");
        Ok(Self {
            terminate: of(SignalKind::terminate())?,
            interrupt: of(SignalKind::interrupt())?,
            hangup: of(SignalKind::hangup())?,
            successor: of(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::ReopenLog,
            _ = self.successor.recv() => Asked::Successor,
        }
    }

    async fn stop(&mut self) {
        while !matches!(self.next().await, Asked::Stop) {}
    }
}

async fn run(loaded: Loaded<EdgeConfig>) -> anyhow::Result<()> {
    let Loaded { config, layout, .. } = loaded;
    let mut signals = Signals::new()?;
    let taken = if config.takeover { takeover::take_over(&layout).await? } else { None };
    let (inherited, ready) = match taken {
        Some(taken) => (Some(taken.parcel), Some(taken.ready)),
        None => (None, None),
    };
    let mut inherited = inherited;
    let lock = start::lock(&layout, inherited.as_mut())?;

    // What should be, and who can make it so.
    let store = start::store(&layout, &config).await?;
    let token = tokio::select! {
        token = start::agent_token(&layout, &config) => token?,
        () = signals.stop() => return Ok(()),
    };
    let (telemetry, background) = plane::telemetry(&config)?;
    let control = start::control(&config, store, &token, &telemetry);
    let certs = plane::certs(&layout, &config, &control)?;
    let queue = jobs::Queue::new(&control);

    // All listeners or none.
    let admin = start::bind_admin(&config, inherited.as_mut()).await?;
    let admin_copy = start::admin_parcel(&admin)?;
    let data = (Arc::clone(&telemetry), certs.clone());
    let edge = plane::bind(&layout, &config, &control, &token, data, inherited, &queue)?;
    tracing::info!(
        http = ?edge.http_addr(), https = ?edge.https_addr(), quic = ?edge.quic_addr(),
        admin = ?admin.local_addr().ok(), domain = config.domain, "serving"
    );
    let running = edge.start()?;
    let taken = ready.is_some();
    if let Some(ready) = ready {
        takeover::ready(ready).await?;
    }
    running.read_quic();
    if taken && let Err(error) = start::claim(&lock) {
        tracing::warn!("{error:#}"); // nobody else serves any more
    }

    // Every task has an owner that joins it.
    let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
    let interval = Duration::from_millis(config.reconcile_interval_ms.max(100));
    tasks.spawn(Reconciler::new(Arc::clone(&control), interval).run(cancel.clone()));
    if let Some(certs) = certs.clone() {
        tasks.spawn(certs.run(cancel.clone()));
    }
    admin::add_gauges(&telemetry, &running);
    let admin_state = admin::State::new(Arc::clone(&control), Arc::clone(&telemetry), certs);
    tasks.spawn(admin::serve(admin, admin_state, cancel.clone()));
    let runner = jobs::start(&config, &control, &queue, running.inside(), &tasks, &cancel);

    let waiting = Waiting::listen(&layout)?;
    until_asked(&mut signals, waiting, &running, &telemetry, (&lock, &admin_copy)).await?;
    runner.stop();
    stop(&config, running, &control, &cancel, &tasks).await;
    background.stop(TELEMETRY_GRACE).await;
    Ok(())
}

/// Serves until it is asked to stop, or until another one has taken over.
async fn until_asked(
    signals: &mut Signals,
    mut waiting: Waiting,
    running: &Running,
    telemetry: &Telemetry,
    (lock, admin): (&File, &TcpListener),
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => {
                    tracing::info!("asked to stop: draining");
                    return Ok(());
                }
                Asked::ReopenLog => telemetry.reopen_log(),
                Asked::Successor => {
                    if let Err(error) = takeover::spawn_successor() {
                        tracing::error!("no successor: {error:#}");
                    }
                }
            },
            offer = waiting.next() => {
                let lock = lock.try_clone().context("no copy of the pid file")?;
                let admin = admin.try_clone().context("no copy of the admin socket")?;
                if waiting.give(offer, running, lock.into(), admin).await {
                    tracing::info!("handed over: draining");
                    return Ok(());
                }
            }
        }
    }
}

/// Lets requests and tasks end, within the grace period.
async fn stop(
    config: &EdgeConfig,
    running: Running,
    control: &Arc<Control>,
    cancel: &CancellationToken,
    tasks: &TaskTracker,
) {
    let grace = Duration::from_millis(config.drain_ms);
    cancel.cancel();
    control.close_streams();
    let drained = running.drain(grace).await;
    tasks.close();
    // What is cut here has a record: the next start cleans up after it.
    let finished = timeout(grace, async { tokio::join!(control.drain(), tasks.wait()) }).await;
    control.store().close().await;
    tracing::info!(cut = drained.cut, finished = finished.is_ok(), "stopped");
}
