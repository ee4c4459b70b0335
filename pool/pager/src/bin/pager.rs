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

use std::{io::IsTerminal as _, process::ExitCode};

use anyhow::Context as _;
use pool_pager::{Limits, PagerConfig, Server};
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
    let limits = Limits {
        clones: usize::try_from(config.max_clones)?,
        bases: usize::try_from(config.max_bases)?,
        block_bytes: usize::try_from(config.block_kib)? << 10,
    };
    let server = Server::bind(&layout.pager_socket(), &layout.pid_file("pager"), limits)?;
    let stopper = server.stopper();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
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
