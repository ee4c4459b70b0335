//! Makes an immutable snapshot of a sandbox, which goes on in the state it was in.

use std::{sync::Arc, time::Duration};

use pool_model::{SandboxId, SandboxState, SnapshotId};

use crate::{
    agent::Agent,
    error::{AgentError, chain},
    guest::Guest,
    host::blocking,
    journal::{Durability, Purpose, Record},
    lifecycle::pause::{Capture, DiskBy},
    sandbox::Sandbox,
};

/// Longest for a guest to come back after its snapshot was taken.
const THAW_MAX: Duration = Duration::from_secs(30);

impl Agent {
    /// Snapshots a sandbox. A running one stands still for as long as its memory is copied.
    ///
    /// # Errors
    ///
    /// [`AgentError`]; no snapshot is left of the attempt, and the sandbox goes on.
    pub async fn snapshot(&self, id: SandboxId) -> Result<SnapshotId, AgentError> {
        let (agent, sandbox) = (self.clone(), self.sandbox(id)?);
        self.detached(async move {
            let _turn = sandbox.turn().await;
            let record = sandbox.record();
            if record.state == SandboxState::Paused {
                return agent.snapshot_image(record).await;
            }
            let Some(guest) = sandbox.serving() else {
                return Err(AgentError::SandboxNotFound(id));
            };
            agent.snapshot_running(&sandbox, guest, record).await
        })
        .await
    }

    /// Deletes a snapshot that nothing uses.
    ///
    /// # Errors
    ///
    /// [`AgentError::SnapshotInUse`] or [`AgentError::SnapshotNotFound`].
    pub async fn delete_snapshot(&self, id: SnapshotId) -> Result<(), AgentError> {
        if let Some(function) = self.pools.user_of(id) {
            let user = format!("the pool of {function}");
            return Err(AgentError::SnapshotInUse { snapshot: id, user });
        }
        let uses =
            |record: &Record| record.backing.as_ref().is_some_and(|base| base.snapshot == id);
        let user = self.sandboxes(None).into_iter().find(|sandbox| uses(&sandbox.record()));
        if let Some(user) = user {
            let user = user.id.to_string();
            return Err(AgentError::SnapshotInUse { snapshot: id, user });
        }
        let store = self.host.snapshots();
        blocking(move || store.delete(id)).await.map_err(|error| match error {
            pool_store::DeleteError::NotFound { .. } => AgentError::SnapshotNotFound(id),
            other => AgentError::store("delete the snapshot")(other),
        })?;
        self.host.pager.drop_base(id).await;
        self.unpublish_later(id);
        self.collect_layers();
        Ok(())
    }

    async fn snapshot_running(
        &self,
        sandbox: &Arc<Sandbox>,
        guest: Arc<Guest>,
        record: Record,
    ) -> Result<SnapshotId, AgentError> {
        debug_assert_eq!(record.purpose, Purpose::Sandbox);
        sandbox.set_serving(None);
        // A crash from here on finds a guest that stands still: `Pausing` lets it run again.
        let pausing = Record { state: SandboxState::Pausing, ..record.clone() };
        sandbox
            .store(pausing, Durability::Process)
            .await
            .inspect_err(|_| sandbox.set_serving(Some(Arc::clone(&guest))))?;
        let capture = self.capture(&guest, &record, self.host.snapshots(), DiskBy::Copy).await;
        // What follows is slow (digests, fsync) and needs no guest that stands still.
        self.go_on(sandbox, guest, &record).await?;
        self.commit_shared(capture?, &record).await
    }

    async fn go_on(
        &self,
        sandbox: &Arc<Sandbox>,
        guest: Arc<Guest>,
        record: &Record,
    ) -> Result<(), AgentError> {
        let back = async {
            guest.resume().await?;
            guest.init(record, THAW_MAX).await?;
            sandbox.store(record.clone(), Durability::Process).await
        };
        let result = back.await;
        sandbox.set_serving(Some(guest));
        if let Err(error) = &result {
            tracing::error!(sandbox.id = %sandbox.id, "guest lost in a snapshot: {}", chain(error));
            self.erase(sandbox).await;
        }
        result
    }

    /// A paused sandbox's image under a new name: the same memory blocks, copies of the rest.
    async fn snapshot_image(&self, record: Record) -> Result<SnapshotId, AgentError> {
        let Some(image) = record.image else { return Err(AgentError::SandboxGone(record.sandbox)) };
        let (images, store) = (self.host.images(record.sandbox), self.host.snapshots());
        let step = "copy the pause image";
        let capture = blocking(move || {
            let image = images.open(image).map_err(AgentError::store(step))?;
            let draft = store.begin().map_err(AgentError::store(step))?;
            for (from, to) in
                [(image.state_path(), draft.state()), (image.scratch_path(), draft.scratch())]
            {
                pool_store::copy_sparse(&from, &to).map_err(AgentError::io(step))?;
            }
            Ok::<_, AgentError>(Capture {
                draft,
                map: image.map().clone(),
                parent: image.manifest.parent,
            })
        })
        .await?;
        self.commit_shared(capture, &record).await
    }

    /// Commits a snapshot that others may use, and has it sent to the object store.
    async fn commit_shared(
        &self,
        capture: Capture,
        record: &Record,
    ) -> Result<SnapshotId, AgentError> {
        let snapshot = self.commit(capture, record).await?;
        self.publish_later(snapshot);
        Ok(snapshot)
    }
}
