//! The page server's process.
//!
//! It sets itself up so that it outlives trouble that its guests would not survive:
//! - not dumpable: guest memory passes through it, and no core file or debugger may show that;
//! - its code and buffers are locked as they are touched (`MCL_CURRENT | MCL_ONFAULT`), so that it
//!   doesn't wait for swap while a guest waits for it. Never `MCL_FUTURE`: that would fill every
//!   base memory at once;
//! - its OOM score is -900: the kernel takes guests first.
//!
//! The last two are best effort. A panic aborts: the agent sees it and starts a successor.

use std::{io::IsTerminal as _, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use pool_pager::{Limits, PagerConfig, Server};
use pool_remote::{BlockCache, Credentials, LayerSource, Remote, RemoteConfig};
use pool_store::LayerStore;
use rustix::{mm::MlockAllFlags, process::DumpableBehavior};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Low enough to be spared before any guest, high enough to die before the system's own.
const OOM_SCORE_ADJ: &str = "-900";

fn main() -> ExitCode {
    let loaded = match pool_config::load::<PagerConfig>("pager", "serves guests' page faults") {
        Ok(loaded) => loaded,
        Err(error) => error.exit(),
    };
    match run(&loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pager: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(loaded: &pool_config::Loaded<PagerConfig>) -> anyhow::Result<()> {
    let (config, layout) = (&loaded.config, &loaded.layout);
    let filter = EnvFilter::try_new(&config.log).context("the setting `log` is no filter")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    abort_on_panic();
    protect();
    // Its threads only fetch from the object store; this one waits for signals.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let source = source(loaded, runtime.handle())?;
    let (socket, pid_file) = (layout.pager_socket(), layout.pid_file("pager"));
    let server = Server::bind(&socket, &pid_file, limits(config)?, source)?;
    let stopper = server.stopper();
    let (mut terminate, mut interrupt) = runtime.block_on(async {
        anyhow::Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    })?;
    let serving = std::thread::Builder::new().name("accept".to_owned()).spawn(|| {
        let outcome = server.run();
        if let Err(error) = &outcome {
            // Without its socket it can't be told of clones: better seen dead than half alive.
            tracing::error!(%error, "the socket failed");
            std::process::abort();
        }
        outcome
    })?;
    tracing::info!(pid = std::process::id(), wrenn_dir = %layout.root().display(), "serving");
    runtime.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    stopper.stop();
    serving.join().map_err(|_| anyhow::anyhow!("the accepting thread panicked"))??;
    tracing::info!("stopped");
    Ok(())
}

fn limits(config: &PagerConfig) -> anyhow::Result<Limits> {
    Ok(Limits {
        clones: usize::try_from(config.max_clones)?,
        bases: usize::try_from(config.max_bases)?,
        prefetch_threads: usize::try_from(config.prefetch_threads)?,
        fault_deadline: Duration::from_millis(config.fault_deadline_ms),
        remote_read_bytes: usize::try_from(config.remote_read_kib)? << 10,
        huge_pages: config.huge_pages,
    })
}

/// Where layers are: this host's, and the object store's if one is configured.
fn source(
    loaded: &pool_config::Loaded<PagerConfig>,
    runtime: &tokio::runtime::Handle,
) -> anyhow::Result<LayerSource> {
    let (config, layout) = (&loaded.config, &loaded.layout);
    let layers = LayerStore::new(layout.layers_dir());
    if config.object_store_url.is_empty() {
        return Ok(LayerSource::new(layers, None));
    }
    let mut remote = RemoteConfig::parse(
        &config.object_store_url,
        config.object_store_endpoint.as_deref(),
        &config.object_store_region,
        config.object_store_allow_http,
    )
    .context("the object_store settings")?;
    // Nobody waits longer for an answer than a fault may.
    remote.deadline = remote.deadline.min(Duration::from_millis(config.fault_deadline_ms.max(1)));
    let remote = Remote::open(remote, Credentials::from_env()?)?;
    let cache = BlockCache::new(layout.cache_dir(), config.cache_mib << 20)
        .with_context(|| format!("the block cache in {}", layout.cache_dir().display()))?;
    Ok(LayerSource::new(layers, Some((remote, runtime.clone(), Arc::new(cache)))))
}

fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn protect() {
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "memory can be dumped");
    }
    if let Err(error) = rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT) {
        tracing::warn!(%error, "memory can be swapped");
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ) {
        tracing::warn!(%error, "no protection from the OOM killer");
    }
}
