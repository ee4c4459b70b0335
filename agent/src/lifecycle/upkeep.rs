//! What snapshots need behind their users' backs: fewer layers, no orphans, a working set.
//!
//! # Invariants
//!
//! - An image is replaced only while its sandbox is paused on exactly it, and the record that names
//!   the new one is on the disk before the old one goes.
//! - A layer is deleted only when no snapshot, image or draft of this host names it.

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pool_model::{SandboxState, SnapshotId};
use pool_store::{LAYERS_MAX, LayerId, OpenError, Snapshot, SnapshotStore};
use tokio::time::sleep;

use crate::{
    agent::Agent,
    error::{AgentError, chain},
    guest::Guest,
    host::{Host, blocking},
    journal::{self, Durability, Record},
    sandbox::Sandbox,
};

/// Layers of an image that a pause does not leave to the background any more.
const LAYERS_OVERDUE: usize = 2 * LAYERS_MAX;
/// After this a sandbox's guest has done what it does after a restore.
const SETTLED: Duration = Duration::from_secs(2);

/// Snapshots whose files were compared with their digests by this process, once each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verified(Arc<Mutex<HashSet<SnapshotId>>>);

impl Verified {
    /// Compares device state and disk with their digests at the first use; memory is verified block
    /// by block by the page server. Blocks on the disk.
    pub(crate) fn check(&self, snapshot: &Snapshot) -> Result<(), AgentError> {
        let id = snapshot.manifest.snapshot;
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id) {
            return Ok(());
        }
        snapshot.verify_files().map_err(|error| damaged(id, error))?;
        self.add(id);
        Ok(())
    }

    /// Takes a snapshot's files as whole.
    pub(crate) fn add(&self, id: SnapshotId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }
}

/// A damaged snapshot is told apart from a disk that cannot be read.
pub(crate) fn damaged(snapshot: SnapshotId, error: OpenError) -> AgentError {
    match error {
        OpenError::NotFound { .. } => AgentError::SnapshotNotFound(snapshot),
        error if pool_store::is_damage(&error) => {
            AgentError::Incompatible { snapshot, reason: chain(&error) }
        }
        error => AgentError::store("open the snapshot")(error),
    }
}

impl Agent {
    /// Merges the layers of a paused sandbox's image, in the background, if there are too many.
    pub(super) fn compact_later(&self, sandbox: &Arc<Sandbox>) {
        let (agent, sandbox) = (self.clone(), Arc::clone(sandbox));
        self.host.tasks.spawn(async move {
            if let Err(error) = agent.compact(&sandbox).await {
                tracing::warn!(sandbox.id = %sandbox.id, "image not compacted: {}", chain(&error));
            }
        });
    }

    /// Merges the layers of an image that has far too many: its sandbox is always resumed before
    /// [`Agent::compact_later`] has ended. The caller holds the turn.
    pub(super) async fn compact_if_overdue(&self, sandbox: &Arc<Sandbox>, layers: usize) {
        if layers <= LAYERS_OVERDUE {
            return;
        }
        let merged = async {
            match self.merge_layers(sandbox).await? {
                Some((old, new)) => self.replace_image(sandbox, old, new).await,
                None => Ok(()),
            }
        };
        if let Err(error) = merged.await {
            tracing::warn!(sandbox.id = %sandbox.id, "image not compacted: {}", chain(&error));
        }
    }

    async fn compact(&self, sandbox: &Arc<Sandbox>) -> Result<(), AgentError> {
        // Without the turn: a request that resumes the sandbox must not wait for this.
        let Some((old, new)) = self.merge_layers(sandbox).await? else { return Ok(()) };
        let _turn = sandbox.turn().await;
        self.replace_image(sandbox, old, new).await
    }

    /// Makes an image of fewer layers beside a sandbox's own. Both, if that was needed.
    async fn merge_layers(
        &self,
        sandbox: &Arc<Sandbox>,
    ) -> Result<Option<(SnapshotId, SnapshotId)>, AgentError> {
        let Some(old) = sandbox.record().image else { return Ok(None) };
        let store = self.host.images(sandbox.id);
        let compacted = blocking(move || {
            let image = store.open(old).map_err(AgentError::store("open the pause image"))?;
            store.compacted(&image).map_err(AgentError::store("compact the pause image"))
        });
        Ok(compacted.await?.map(|manifest| (old, manifest.snapshot)))
    }

    /// Puts `new` in the place of `old`, if the sandbox still is paused on that. The caller holds
    /// the turn.
    async fn replace_image(
        &self,
        sandbox: &Arc<Sandbox>,
        old: SnapshotId,
        new: SnapshotId,
    ) -> Result<(), AgentError> {
        let images = self.host.images(sandbox.id);
        let record = sandbox.record();
        let same = record.state == SandboxState::Paused && record.image == Some(old);
        let unneeded = if same && self.sandbox(sandbox.id).is_ok() {
            let record = Record { image: Some(new), ..record };
            sandbox.store(record, Durability::Host).await?;
            self.verified.add(new);
            old
        } else {
            new
        };
        let deleted = blocking(move || images.delete(unneeded)).await;
        deleted.map_err(AgentError::store("delete an image"))?;
        self.collect_layers();
        Ok(())
    }

    /// Deletes layers that nothing names, in the background. Many calls are one collection.
    pub(crate) fn collect_layers(&self) {
        let host = Arc::clone(&self.host);
        let Ok(permit) = Arc::clone(&self.collecting).try_acquire_owned() else { return };
        self.host.tasks.spawn(async move {
            sleep(Duration::from_millis(200)).await; // what ends together is collected together
            drop(permit); // a call from now on may be about something this one does not see
            let collected = blocking(move || host.layers.gc(|| live_layers(&host))).await;
            match collected {
                Ok(report) if report.layers > 0 => {
                    tracing::debug!(layers = report.layers, bytes = report.bytes, "layers deleted");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!("layers not collected: {}", chain(&error)),
            }
        });
    }

    /// Has the page server note what a restored guest has touched, once it has settled.
    pub(super) fn record_working_set_later(&self, guest: &Arc<Guest>) {
        // A pool's guest is noted when it has served.
        if guest.backing.is_none() || guest.of_pool {
            return;
        }
        let (guest, host) = (Arc::downgrade(guest), Arc::clone(&self.host));
        self.host.tasks.spawn(async move {
            let cancel = host.cancel.clone();
            if cancel.run_until_cancelled(sleep(SETTLED)).await.is_none() {
                return;
            }
            if let Some(guest) = guest.upgrade() {
                host.pager.record(guest.record().pid).await;
            }
        });
    }
}

/// Every layer that a snapshot or an image of this host names.
fn live_layers(host: &Host) -> io::Result<BTreeSet<LayerId>> {
    let mut live = host.snapshots().live_layers()?;
    for entry in fs::read_dir(host.layout.sandboxes_dir())? {
        let images = journal::images_dir(&entry?.path());
        if images.is_dir() {
            live.append(&mut SnapshotStore::new(images, host.layers.clone()).live_layers()?);
        }
    }
    Ok(live)
}
