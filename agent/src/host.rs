//! What every part of the agent shares: settings, the VMM, slots, the page server, stores.

use std::{path::PathBuf, sync::Arc};

use agent_vmm::Vmm;
use pool_config::Layout;
use pool_model::SandboxId;
use pool_remote::Remote;
use pool_store::{LayerStore, SnapshotStore};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    blanks::Blanks, capacity::Capacity, config::AgentConfig, pager::Pager, reaper::Reaper,
    slots::Slots,
};

/// One host, as the agent uses it.
#[derive(Debug)]
pub struct Host {
    /// Where things are.
    pub layout: Layout,
    /// What was configured.
    pub config: AgentConfig,
    /// What makes machines.
    pub vmm: Arc<dyn Vmm>,
    /// Where machines run.
    pub slots: Slots,
    /// Who answers their page faults.
    pub pager: Pager,
    /// Machines without a snapshot.
    pub blanks: Blanks,
    /// What may be promised.
    pub capacity: Capacity,
    /// Starts that may run at once. A stampede of restores is slower than a queue.
    pub starts: Semaphore,
    /// How many that are.
    pub starts_max: usize,
    /// Content of all snapshots' memory.
    pub layers: LayerStore,
    /// Where snapshots are kept beside this host's disk.
    pub remote: Option<Remote>,
    /// Who ends sandboxes whose time is over.
    pub reaper: Reaper,
    /// Stops everything.
    pub cancel: CancellationToken,
    /// Work that must not be cut in half, and the watchers of running machines.
    pub tasks: TaskTracker,
}

impl Host {
    /// The store of shared snapshots.
    #[must_use]
    pub fn snapshots(&self) -> SnapshotStore {
        SnapshotStore::new(self.layout.snapshots_dir(), self.layers.clone())
    }

    /// The store of one sandbox's pause images.
    #[must_use]
    pub fn images(&self, sandbox: SandboxId) -> SnapshotStore {
        SnapshotStore::new(crate::journal::images_dir(&self.dir(sandbox)), self.layers.clone())
    }

    /// A sandbox's directory.
    #[must_use]
    pub fn dir(&self, sandbox: SandboxId) -> PathBuf {
        self.layout.sandbox_dir(sandbox)
    }
}

/// Runs disk work on a thread that may block.
///
/// # Errors
///
/// Whatever `work` returns.
///
/// # Panics
///
/// If `work` panics.
pub async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
