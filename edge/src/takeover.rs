//! Restarts without a lost request: the running edge gives its sockets to its successor.
//!
//! ```text
//! running                                successor (`edge --takeover true`)
//!   listens on run/edge.handover.sock  <-- connects
//!   sockets, generation, pid lock      --> binds nothing, starts its workers
//!                                      <-- ready
//!   stops accepting and reading        --> begins to read QUIC
//!   drains, ends
//! ```
//!
//! Whatever goes wrong before "ready", the running edge goes on as if nothing had happened. `SIGUSR2`
//! makes a running edge start its own successor, of the program that is at its path by then.

use std::{
    net::TcpListener,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use edge_proxy::Running;
use edge_quic::{
    ForwardSocket,
    handover::{Handover, Named, Offer, ReadyHandle, TakeError, Taken, take},
};
use pool_config::Layout;
use tokio::process::Command;

use crate::start::ADMIN;

/// How long the running edge may take to hand over.
const TAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long a successor may take to get ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Where the running edge waits for its successor.
#[must_use]
pub fn socket_path(layout: &Layout) -> PathBuf {
    layout.run_dir().join("edge.handover.sock")
}

/// Takes the sockets of the edge that runs. `None`: there is none, so this is an ordinary start.
///
/// # Errors
///
/// If it is there and doesn't give them.
pub async fn take_over(layout: &Layout) -> anyhow::Result<Option<Taken>> {
    match take(&socket_path(layout), TAKE_WITHIN).await {
        Ok(taken) => Ok(Some(taken)),
        Err(TakeError::NobodyThere) => Ok(None),
        Err(error) => Err(error).context("the running edge does not hand over"),
    }
}

/// Says that the successor is ready; returns once the edge before has stopped to read.
///
/// # Errors
///
/// If the edge before is gone, or went back on it: it may still serve.
pub async fn ready(handle: ReadyHandle) -> anyhow::Result<()> {
    handle.ready().await.context("the edge before did not let go")
}

/// Waits for successors.
#[derive(Debug)]
pub struct Waiting {
    handover: Handover,
    directory: PathBuf,
}

impl Waiting {
    /// Begins to wait.
    ///
    /// # Errors
    ///
    /// If the socket can't be made.
    pub fn listen(layout: &Layout) -> anyhow::Result<Self> {
        let path = socket_path(layout);
        let handover = Handover::listen(&path)
            .with_context(|| format!("cannot wait for a successor at {}", path.display()))?;
        Ok(Self { handover, directory: layout.run_dir() })
    }

    /// The next successor that introduces itself. Cancel-safe.
    pub async fn next(&mut self) -> Offer {
        self.handover.next().await
    }

    /// Hands over. True: the successor serves, and this process has to drain. False: it didn't
    /// work out, and this process serves on.
    pub async fn give(
        &self,
        offer: Offer,
        running: &Running,
        pid_lock: OwnedFd,
        admin: TcpListener,
    ) -> bool {
        match give(offer, running, (pid_lock, admin), &self.directory).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!("no hand-over, serving on: {error:#}");
                false
            }
        }
    }
}

async fn give(
    offer: Offer,
    running: &Running,
    (pid_lock, admin): (OwnedFd, TcpListener),
    directory: &Path,
) -> anyhow::Result<()> {
    let (mut parcel, forward) = running.parcel(directory).context("no copies of the sockets")?;
    parcel.pid_lock = Some(pid_lock);
    parcel.tcp.push(Named { name: ADMIN.to_owned(), worker: 0, socket: admin });
    let committed = offer.ready_within(READY_WITHIN).give(parcel).await?;
    running.release(forward.as_ref()).context("the sockets were not let go")?;
    if let Err(error) = committed.released().await {
        // The successor is gone: nobody else reads these sockets.
        running.resume();
        return Err(error).context("the successor went away at the last moment");
    }
    keep(forward);
    Ok(())
}

/// The sockets that packets come by from now on live as long as the process.
fn keep(forward: Option<ForwardSocket>) {
    std::mem::forget(forward);
}

/// Starts a successor: the program that is at our path now, with our arguments.
///
/// # Errors
///
/// If it can't be started.
pub fn spawn_successor() -> anyhow::Result<()> {
    let program = std::env::current_exe().context("our own path is not known")?;
    // A program that was replaced is shown as deleted at its old path, where the new one is.
    let program = program.to_string_lossy().trim_end_matches(" (deleted)").to_owned();
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--takeover") {
        arguments.extend(["--takeover".into(), "true".into()]);
    }
    let child = Command::new(&program).args(arguments).stdin(Stdio::null()).spawn();
    let mut child = child.with_context(|| format!("cannot start {program}"))?;
    tracing::info!(pid = child.id(), "started a successor");
    tokio::spawn(async move {
        // Collected if it ends before we do; else it has another parent by then.
        if let Ok(status) = child.wait().await {
            tracing::warn!(%status, "the successor ended");
        }
    });
    Ok(())
}
