//! Snapshots beside this host's disk: sent to the object store when they are made, brought from
//! there when they are asked for and not here.
//!
//! # Invariants
//!
//! - A snapshot is served from this host's disk whether or not the object store can be reached.
//! - A mark beside the manifest says that it was sent; what has none at a start is sent again, and
//!   sending twice sends nothing twice.

use std::{fs::File, path::PathBuf, time::Duration};

use pool_model::{SnapshotId, TeamId};
use pool_remote::RemoteError;
use pool_store::Snapshot;
use tokio::time::sleep;

use crate::{
    agent::Agent,
    base_disk,
    error::{AgentError, chain},
    host::blocking,
    lifecycle::damaged,
};

/// Name of the mark in a snapshot's directory.
const MARK: &str = "published";
/// First pause before a snapshot that could not be sent is sent again; doubles.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(60);

impl Agent {
    /// Opens a team's snapshot, which is brought from the object store if it is not on this host.
    ///
    /// # Errors
    ///
    /// [`AgentError::SnapshotNotFound`] if it is nowhere or another team's;
    /// [`AgentError::Incompatible`] with the reason if it is damaged.
    pub async fn obtain(&self, id: SnapshotId, team: TeamId) -> Result<Snapshot, AgentError> {
        let snapshot = self.find(id).await?;
        if snapshot.manifest.team != team {
            return Err(AgentError::SnapshotNotFound(id));
        }
        Ok(snapshot)
    }

    async fn find(&self, id: SnapshotId) -> Result<Snapshot, AgentError> {
        match self.open_here(id).await {
            Err(AgentError::SnapshotNotFound(_)) if self.host.remote.is_some() => {}
            opened => return opened,
        }
        // One at a time: many sandboxes of one new snapshot bring it once.
        let _bringing = self.bringing.lock().await;
        match self.open_here(id).await {
            Err(AgentError::SnapshotNotFound(_)) => {}
            opened => return opened,
        }
        self.bring(id).await?;
        self.open_here(id).await
    }

    async fn open_here(&self, id: SnapshotId) -> Result<Snapshot, AgentError> {
        let store = self.host.snapshots();
        blocking(move || store.open(id)).await.map_err(|error| damaged(id, error))
    }

    async fn bring(&self, id: SnapshotId) -> Result<(), AgentError> {
        let Some(remote) = &self.host.remote else { return Err(AgentError::SnapshotNotFound(id)) };
        let layout = self.host.layout.clone();
        let at = move |digest: &str| base_disk::place(&layout, digest);
        let brought = remote.fetch(id, &self.host.snapshots(), at).await;
        match brought {
            Ok(manifest) => {
                tracing::info!(snapshot.id = %manifest.snapshot, "snapshot brought from the object store");
                let mark = self.mark(id);
                blocking(move || File::create(mark))
                    .await
                    .map(drop)
                    .map_err(AgentError::io("mark a snapshot"))
            }
            Err(RemoteError::NotPublished { .. }) => Err(AgentError::SnapshotNotFound(id)),
            Err(source) => {
                Err(AgentError::Remote { step: "bring a snapshot", source: Box::new(source) })
            }
        }
    }

    /// Sends a snapshot to the object store in the background, until it is there.
    pub(crate) fn publish_later(&self, id: SnapshotId) {
        if self.host.remote.is_none() {
            return;
        }
        let agent = self.clone();
        self.host.tasks.spawn(async move {
            let cancel = agent.host.cancel.clone();
            cancel.run_until_cancelled(agent.publish_until_there(id)).await;
        });
    }

    async fn publish_until_there(&self, id: SnapshotId) {
        let mut pause = RETRY_MIN;
        loop {
            match self.publish(id).await {
                // Deleted meanwhile: there is nothing to send any more.
                Ok(()) | Err(AgentError::SnapshotNotFound(_)) => return,
                Err(error) => {
                    tracing::warn!(snapshot.id = %id, "not sent to the object store: {}", chain(&error));
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn publish(&self, id: SnapshotId) -> Result<(), AgentError> {
        let Some(remote) = &self.host.remote else { return Ok(()) };
        let snapshot = self.open_here(id).await?;
        let digest = &snapshot.manifest.base_disk_digest;
        let base_disk = base_disk::place(&self.host.layout, digest);
        let sent = remote.publish(&snapshot, &self.host.layers, &base_disk).await;
        let sent = sent.map_err(|source| AgentError::Remote {
            step: "send a snapshot",
            source: Box::new(source),
        })?;
        tracing::info!(snapshot.id = %id, sent_bytes = sent.sent_bytes, skipped_bytes = sent.skipped_bytes, "snapshot sent to the object store");
        let mark = self.mark(id);
        blocking(move || File::create(mark))
            .await
            .map(drop)
            .map_err(AgentError::io("mark a snapshot"))
    }

    /// Sends what an earlier agent had not sent.
    pub async fn publish_unsent(&self) -> Result<(), AgentError> {
        let store = self.host.snapshots();
        if self.host.remote.is_none() {
            return Ok(());
        }
        let ids = blocking(move || store.list()).await;
        for id in ids.map_err(AgentError::store("list snapshots"))? {
            if !self.mark(id).exists() {
                self.publish_later(id);
            }
        }
        Ok(())
    }

    /// Takes a deleted snapshot out of the object store, in the background, once.
    pub(crate) fn unpublish_later(&self, id: SnapshotId) {
        let Some(remote) = self.host.remote.clone() else { return };
        self.host.tasks.spawn(async move {
            if let Err(error) = remote.delete(id).await {
                tracing::warn!(snapshot.id = %id, "not deleted from the object store: {}", chain(&error));
            }
        });
    }

    fn mark(&self, id: SnapshotId) -> PathBuf {
        self.host.layout.snapshot_dir(id).join(MARK)
    }
}
