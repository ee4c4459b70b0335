//! What a starting agent does with what the last one left: adopt or reap.
//!
//! # Invariants
//!
//! - A sandbox whose id was acknowledged comes back: running ones are adopted, paused ones stay
//!   paused, and one caught in between falls back to the last state that is whole.
//! - Everything else is removed: warm and leased sandboxes, half-made ones, machines without a
//!   record, slots without a sandbox, drafts of snapshots.

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc, time::Duration};

use agent_slot::{Slot, SlotIndex};
use agent_vmm::{Machine, MemoryRecord, MemoryReport};
use pool_model::SandboxState;

use crate::{
    agent::Agent,
    base_disk,
    error::{AgentError, chain},
    guest::Guest,
    host::blocking,
    journal::{self, Durability, Purpose, Record},
    lifecycle::remove_dir,
    sandbox::Sandbox,
};

/// Longest for an adopted guest to answer. It was running, or it stands still and is resumed.
const INIT_MAX: Duration = Duration::from_secs(20);

/// What was found and what became of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Running sandboxes taken over.
    pub adopted: usize,
    /// Paused sandboxes found.
    pub paused: usize,
    /// Sandboxes removed.
    pub reaped: usize,
    /// Slots removed.
    pub slots: usize,
}

impl Agent {
    /// Adopts or reaps everything the last agent left.
    ///
    /// # Errors
    ///
    /// [`AgentError`] if the host itself cannot be looked at; single sandboxes that fail are
    /// reaped.
    pub async fn recover(&self) -> Result<Recovered, AgentError> {
        self.sweep_drafts().await?;
        let mut found = Recovered::default();
        let mut keep = Vec::new();
        for (dir, record) in self.records().await? {
            let id = record.sandbox;
            match self.recover_one(record).await {
                Ok(Some(slot)) => {
                    found.adopted += 1;
                    keep.push(slot);
                }
                Ok(None) => found.paused += 1,
                Err(error) => {
                    tracing::info!(sandbox.id = %id, "reaping what is left: {}", chain(&error));
                    self.reap_dir(dir).await;
                    found.reaped += 1;
                }
            }
        }
        self.sweep_base_disks().await?;
        self.collect_layers();
        let swept = self
            .host
            .slots
            .host()
            .sweep(&keep)
            .await
            .map_err(|error| AgentError::Host(Box::new(error)))?;
        found.slots = swept.len();
        Ok(found)
    }

    /// Destroys everything of this installation, adopted or not.
    ///
    /// # Errors
    ///
    /// [`AgentError`]; what could be removed was.
    pub async fn reap_all(&self) -> Result<usize, AgentError> {
        let host = self.host.slots.host();
        let swept = host.sweep(&[]).await.map_err(|error| AgentError::Host(Box::new(error)))?;
        let records = self.records().await?;
        for (dir, _) in &records {
            self.reap_dir(dir.clone()).await;
        }
        self.sweep_drafts().await?;
        host.teardown().await.map_err(|error| AgentError::Host(Box::new(error)))?;
        Ok(swept.len().max(records.len()))
    }

    async fn recover_one(&self, record: Record) -> Result<Option<SlotIndex>, AgentError> {
        let id = record.sandbox;
        let whole = matches!(record.purpose, Purpose::Sandbox);
        match record.state {
            SandboxState::Paused if whole => self.keep_paused(record).await,
            // Its image is untouched until the next pause.
            SandboxState::Resuming if whole => {
                self.reap_machine(&record).await;
                self.keep_paused(Record {
                    state: SandboxState::Paused,
                    expires_at: None,
                    slot: None,
                    machine: None,
                    backing: None,
                    ..record
                })
                .await
            }
            SandboxState::Running | SandboxState::Pausing if whole => {
                match self.adopt(record.clone()).await {
                    Ok(slot) => Ok(Some(slot)),
                    Err(error) => {
                        self.reap_machine(&record).await;
                        Err(error)
                    }
                }
            }
            state => {
                self.reap_machine(&record).await;
                Err(AgentError::Conflict { sandbox: id, state, action: "adopt" })
            }
        }
    }

    async fn keep_paused(&self, record: Record) -> Result<Option<SlotIndex>, AgentError> {
        let Some(image) = record.image else { return Err(AgentError::SandboxGone(record.sandbox)) };
        let store = self.host.images(record.sandbox);
        blocking(move || store.open(image))
            .await
            .map_err(AgentError::store("open the pause image"))?;
        let dir = self.host.dir(record.sandbox);
        let sandbox = Arc::new(Sandbox::new(dir, record.clone(), self.host.reaper.clone()));
        sandbox.store(record, Durability::Process).await?;
        let _ = self.insert(sandbox);
        Ok(None)
    }

    async fn adopt(&self, record: Record) -> Result<SlotIndex, AgentError> {
        let sandbox_id = record.sandbox;
        let gone = || AgentError::SandboxGone(sandbox_id);
        let (index, machine) = record.slot.zip(record.machine.as_ref()).ok_or_else(gone)?;
        let machine = self.host.vmm.adopt(machine).await.map_err(|source| AgentError::Adopt {
            sandbox: sandbox_id,
            source: Box::new(source),
        })?;
        let host = self.host.slots.host();
        let slot = Slot::adopt(host, index).await.map_err(AgentError::Slot)?;
        self.host.slots.adopted(index);
        let share = self.host.capacity.take(record.memory_bytes, record.purpose)?;
        self.reattach(&record, machine.as_ref()).await?;
        let record = Record { state: SandboxState::Running, ..record };
        let guest = Guest::adopted(&self.host, &record, machine, slot, share);
        // It may stand still in the middle of a pause; both are no-ops otherwise.
        guest.resume().await?;
        guest.init(&record, INIT_MAX).await?;
        let dir = self.host.dir(sandbox_id);
        let sandbox = Arc::new(Sandbox::new(dir, record.clone(), self.host.reaper.clone()));
        let end = record.expires_at;
        let turn = sandbox.turn().await;
        sandbox.store(record, Durability::Process).await?;
        let _ = self.insert(Arc::clone(&sandbox));
        self.serve(&sandbox, guest);
        drop(turn);
        // Its end may have passed, and who looked for it before it was in the list found nobody.
        self.host.reaper.set(sandbox_id, end);
        Ok(index)
    }

    /// The page server may have died with the agent, or it serves the clone still.
    async fn reattach(&self, record: &Record, machine: &dyn Machine) -> Result<(), AgentError> {
        let machine = machine.record();
        let MemoryRecord::Clone { uffd_fd, base_fd, addr, len } = machine.memory else {
            return Ok(());
        };
        let Some(backing) = &record.backing else {
            return Err(AgentError::SandboxGone(record.sandbox));
        };
        let report = MemoryReport {
            pid: machine.pid,
            start_ticks: machine.start_ticks,
            uffd_fd,
            base_fd,
            addr,
            len,
        };
        self.host.pager.attach(backing, report).await
    }

    async fn reap_machine(&self, record: &Record) {
        let Some(machine) = &record.machine else { return };
        if let Err(error) = self.host.vmm.reap(machine).await {
            // The sweep of its slot kills what is left in the cgroup.
            tracing::warn!(sandbox.id = %record.sandbox, "machine not reaped: {}", chain(&error));
        }
        self.host.pager.detach(machine.pid).await;
    }

    async fn reap_dir(&self, dir: PathBuf) {
        let name = dir.display().to_string();
        if let Err(error) = blocking(move || remove_dir(&dir)).await {
            tracing::error!("{name} is not removed: {}", chain(&error));
        }
    }

    /// Every record that can be read, and where. Directories without one were never acknowledged.
    async fn records(&self) -> Result<Vec<(PathBuf, Record)>, AgentError> {
        let dir = self.host.layout.sandboxes_dir();
        blocking(move || {
            let mut records = Vec::new();
            for entry in fs::read_dir(dir)? {
                let path = entry?.path();
                match journal::read(&path) {
                    Ok(record) => records.push((path, record)),
                    // Its id was never acknowledged: the record is written first.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        remove_dir(&path)?;
                    }
                    // Somebody's data: left for a person to look at.
                    Err(error) => {
                        tracing::error!("unreadable record in {}: {error}", path.display());
                    }
                }
            }
            Ok(records)
        })
        .await
        .map_err(AgentError::io("read the journal"))
    }

    /// Base disks are kept for as long as a sandbox or a snapshot stands on them.
    async fn sweep_base_disks(&self) -> Result<(), AgentError> {
        let mut named: BTreeSet<String> =
            self.sandboxes(None).iter().map(|sandbox| sandbox.record().base_disk).collect();
        let (store, layout) = (self.host.snapshots(), self.host.layout.clone());
        blocking(move || {
            let step = "sweep base disks";
            for id in store.list().map_err(AgentError::store(step))? {
                match store.open(id) {
                    Ok(snapshot) => named.insert(snapshot.manifest.base_disk_digest),
                    // Somebody's data that cannot be read: then nothing is safe to remove.
                    Err(error) => {
                        tracing::error!(snapshot.id = %id, "snapshot unreadable: {}", chain(&error));
                        return Ok(());
                    }
                };
            }
            base_disk::sweep(&layout, &named).map_err(AgentError::io(step))?;
            Ok(())
        })
        .await
    }

    async fn sweep_drafts(&self) -> Result<(), AgentError> {
        let (snapshots, sandboxes) = (self.host.snapshots(), self.host.layout.sandboxes_dir());
        let layers = self.host.layers.clone();
        blocking(move || {
            snapshots.sweep_drafts().map_err(AgentError::store("remove drafts"))?;
            let entries = fs::read_dir(sandboxes).map_err(AgentError::io("remove drafts"))?;
            for entry in entries.flatten() {
                let images = journal::images_dir(&entry.path());
                if images.is_dir() {
                    let store = pool_store::SnapshotStore::new(images, layers.clone());
                    store.sweep_drafts().map_err(AgentError::store("remove drafts"))?;
                }
            }
            Ok(())
        })
        .await
    }
}
