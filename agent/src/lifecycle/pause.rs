//! Pauses a sandbox: memory, device state and disk to its own image, then nothing runs.
//!
//! ```text
//! quiesce guest ─► stop processors ─► state + memory ─► commit image ─► journal ─► kill VMM
//!      └──────────────── any failure: processors run, guest thaws, still Running ─┘
//! ```
//!
//! # Invariants
//!
//! - The VMM is killed only after the image and the record that names it are on the disk.
//! - The writable disk is in the image by a hard link: it is not copied, and a failure leaves it
//!   where it was.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use pool_model::{SandboxId, SandboxState, SnapshotId};
use pool_store::{Draft, NewManifest, PageMap, Snapshot, SnapshotStore};

use crate::{
    agent::Agent,
    error::{AgentError, chain},
    guest::{Ending, Guest},
    host::blocking,
    journal::{self, Backing, Durability, Record},
    memory,
    sandbox::Sandbox,
    template,
};

/// Longest for a guest to come back after a pause that failed.
const THAW_MAX: Duration = Duration::from_secs(30);

/// How the writable disk gets into an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskBy {
    /// It stays the sandbox's: copied, holes kept, shared where the file system can.
    Copy,
    /// The sandbox ends here: linked.
    Link,
}

/// What was written of a guest that stands still.
#[derive(Debug)]
pub(crate) struct Capture {
    /// Device state and writable disk.
    pub(crate) draft: Draft,
    /// Its memory.
    pub(crate) map: PageMap,
    /// What it had been restored from.
    pub(crate) parent: Option<SnapshotId>,
}

impl Agent {
    /// Pauses a sandbox to disk and frees its memory. A paused one stays paused.
    ///
    /// # Errors
    ///
    /// [`AgentError`]; the sandbox runs on then, unless its guest is dead.
    pub async fn pause(&self, id: SandboxId) -> Result<Arc<Sandbox>, AgentError> {
        let (agent, sandbox) = (self.clone(), self.sandbox(id)?);
        self.detached(async move {
            let _turn = sandbox.turn().await;
            agent.pause_here(&sandbox).await?;
            Ok(sandbox)
        })
        .await
    }

    /// Pauses; the caller holds the turn.
    pub(crate) async fn pause_here(&self, sandbox: &Arc<Sandbox>) -> Result<(), AgentError> {
        let record = sandbox.record();
        if record.state == SandboxState::Paused {
            return Ok(());
        }
        let Some(guest) = sandbox.serving() else {
            return Err(AgentError::SandboxNotFound(sandbox.id));
        };
        sandbox.set_serving(None);
        sandbox
            .store(Record { state: SandboxState::Pausing, ..record.clone() }, Durability::Process)
            .await
            .inspect_err(|_| sandbox.set_serving(Some(Arc::clone(&guest))))?;
        let saved = self.save(&guest, &record, self.host.images(sandbox.id)).await;
        match saved {
            Ok((image, layers)) => {
                self.finish_pause(sandbox, &guest, record, image).await?;
                self.compact_if_overdue(sandbox, layers).await;
                self.compact_later(sandbox);
                Ok(())
            }
            Err(error) => {
                self.undo_pause(sandbox, guest, record).await;
                Err(error)
            }
        }
    }

    /// Quiesces the guest, stops it and writes it to `store`. The guest stays stopped. Also says
    /// how many layers its memory is made of.
    async fn save(
        &self,
        guest: &Arc<Guest>,
        record: &Record,
        store: SnapshotStore,
    ) -> Result<(SnapshotId, usize), AgentError> {
        let captured = self.capture(guest, record, store, DiskBy::Link).await?;
        let layers = captured.map.layers().len();
        Ok((self.commit(captured, record).await?, layers))
    }

    /// All of saving that needs the guest to stand still.
    pub(crate) async fn capture(
        &self,
        guest: &Arc<Guest>,
        record: &Record,
        store: SnapshotStore,
        disk_by: DiskBy,
    ) -> Result<Capture, AgentError> {
        guest.quiesce(&record.access_token).await?;
        guest.pause().await?;
        let draft =
            blocking(move || store.begin()).await.map_err(AgentError::store("begin a snapshot"))?;
        let sandbox = guest.sandbox;
        let state = std::fs::File::create(draft.state())
            .map_err(AgentError::io("write the device state"))?;
        guest.machine().save_state(state).await.map_err(|source| AgentError::Vmm {
            sandbox,
            step: "save its state",
            source: Box::new(source),
        })?;
        let parent = match guest.backing.clone() {
            Some(backing) => Some(self.map_of(backing).await?),
            None => None,
        };
        let saved = memory::save(&guest.record(), &self.host.layers, parent).await?;
        tracing::debug!(sandbox.id = %sandbox, captured = ?saved.captured, written = ?saved.written, "memory saved");
        let (from, to) = (journal::scratch_disk(&self.host.dir(sandbox)), draft.scratch());
        blocking(move || put_disk(&from, &to, disk_by))
            .await
            .map_err(AgentError::io("save the writable disk"))?;
        let parent = guest.backing.as_ref().map(|backing| backing.snapshot);
        Ok(Capture { draft, map: saved.map, parent })
    }

    /// The memory map of what a guest was restored from.
    async fn map_of(&self, backing: Backing) -> Result<PageMap, AgentError> {
        blocking(move || Snapshot::open_at(&backing.dir, backing.snapshot))
            .await
            .map(|snapshot| snapshot.map().clone())
            .map_err(AgentError::store("open what the guest was restored from"))
    }

    /// Makes a draft a snapshot.
    pub(crate) async fn commit(
        &self,
        capture: Capture,
        record: &Record,
    ) -> Result<SnapshotId, AgentError> {
        let template = template::open(&self.host.layout, record.team, record.template)?;
        let manifest = NewManifest {
            parent: capture.parent,
            template: record.template,
            team: record.team,
            base_disk_digest: record.base_disk.clone(),
            kernel: record.kernel.clone(),
            memory_bytes: record.memory_bytes,
            vcpus: record.vcpus,
            vmm: self.host.vmm.name(),
            accel: self.host.vmm.accel().to_owned(),
            cpu: self.host.vmm.cpu().to_owned(),
            cpu_fingerprint: self.host.vmm.cpu_fingerprint().to_owned(),
            envd_version: template.envd_version,
            generation: record.generation,
            created_at: Timestamp::now(),
        };
        let Capture { draft, map, .. } = capture;
        let committed = blocking(move || draft.commit(manifest, &map)).await;
        let manifest = committed.map_err(AgentError::store("commit the snapshot"))?;
        self.verified.add(manifest.snapshot); // we have just computed the digests
        Ok(manifest.snapshot)
    }

    async fn finish_pause(
        &self,
        sandbox: &Arc<Sandbox>,
        guest: &Arc<Guest>,
        record: Record,
        image: SnapshotId,
    ) -> Result<(), AgentError> {
        let old = record.backing.as_ref().map(|backing| backing.snapshot);
        let paused = Record {
            state: SandboxState::Paused,
            image: Some(image),
            expires_at: None,
            slot: None,
            machine: None,
            backing: None,
            ..record.clone()
        };
        if let Err(error) = sandbox.store(paused, Durability::Host).await {
            self.undo_pause(sandbox, Arc::clone(guest), record).await;
            return Err(error);
        }
        guest.end(Ending::Paused);
        guest.stop().await;
        self.drop_old_image(sandbox.id, old, image).await;
        tracing::info!(sandbox.id = %sandbox.id, "sandbox paused");
        Ok(())
    }

    /// The image that the paused guest was restored from is no longer needed by anyone.
    async fn drop_old_image(&self, sandbox: SandboxId, old: Option<SnapshotId>, new: SnapshotId) {
        let images = self.host.images(sandbox);
        let scratch = journal::scratch_disk(&self.host.dir(sandbox));
        let removed = blocking(move || {
            // The disk lives on in the image.
            std::fs::remove_file(scratch).or_else(ignore_missing)?;
            for image in images.list().map_err(std::io::Error::other)? {
                if image != new {
                    images.delete(image).map_err(std::io::Error::other)?;
                }
            }
            Ok::<_, std::io::Error>(())
        });
        if let Err(error) = removed.await {
            tracing::warn!(sandbox.id = %sandbox, "old image not removed: {}", chain(&error));
        }
        if let Some(old) = old.filter(|old| *old != new) {
            // Refused by the page server while another clone uses it: then it is a shared one.
            self.host.pager.drop_base(old).await;
        }
        self.collect_layers();
    }

    /// Lets a guest run on whose pause failed. If it can't, the sandbox is lost and says so.
    async fn undo_pause(&self, sandbox: &Arc<Sandbox>, guest: Arc<Guest>, record: Record) {
        let back = async {
            guest.resume().await?;
            guest.init(&record, THAW_MAX).await?;
            sandbox.store(record, Durability::Process).await
        };
        match back.await {
            Ok(()) => sandbox.set_serving(Some(guest)),
            Err(error) => {
                tracing::error!(sandbox.id = %sandbox.id, "guest lost in a failed pause: {}", chain(&error));
                sandbox.set_serving(Some(guest));
                self.erase(sandbox).await;
            }
        }
    }
}

fn put_disk(from: &Path, to: &Path, by: DiskBy) -> std::io::Result<()> {
    match by {
        DiskBy::Copy => pool_store::copy_sparse(from, to).map(drop),
        DiskBy::Link => {
            std::fs::remove_file(to).or_else(ignore_missing)?;
            std::fs::hard_link(from, to)
        }
    }
}

fn ignore_missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
