//! One sandbox as the agent knows it: its record, its guest when it has one, its turn-taking.
//!
//! # Invariants
//!
//! - Lifecycle operations take turns through [`Sandbox::turn`]; requests don't.
//! - Requests see the guest from its acknowledged init until an operation takes it away, and
//!   connections into it are kept for as long and no longer.
//! - The record in memory is never ahead of the one on disk.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use pool_model::{SandboxId, SandboxState};
use tokio::sync::OwnedMutexGuard;

use crate::{
    background::Background,
    error::AgentError,
    flight::Flight,
    guest::Guest,
    host::blocking,
    journal::{self, Durability, Record},
    reaper::Reaper,
};

/// One sandbox.
#[derive(Debug)]
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    dir: PathBuf,
    record: Mutex<Record>,
    serving: Mutex<Option<Arc<Guest>>>,
    /// Its processes that nobody listens to.
    pub background: Background,
    reaper: Reaper,
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The resume that requests wait for.
    pub(crate) waking: Flight<Result<(), Arc<AgentError>>>,
}

/// The right to change a sandbox. Held for a whole lifecycle operation.
#[derive(Debug)]
pub struct Turn(#[allow(dead_code, reason = "held, not read")] OwnedMutexGuard<()>);

impl Sandbox {
    /// A sandbox whose record is already on disk.
    #[must_use]
    pub fn new(dir: PathBuf, record: Record, reaper: Reaper) -> Self {
        reaper.set(record.sandbox, end_of(&record));
        Self {
            id: record.sandbox,
            dir,
            record: Mutex::new(record),
            serving: Mutex::default(),
            background: Background::default(),
            reaper,
            turn: Arc::default(),
            waking: Flight::default(),
        }
    }

    /// Waits for the running operation to end and keeps others out.
    pub async fn turn(&self) -> Turn {
        Turn(Arc::clone(&self.turn).lock_owned().await)
    }

    /// A copy of what is remembered about it.
    #[must_use]
    pub fn record(&self) -> Record {
        self.lock().clone()
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> SandboxState {
        self.lock().state
    }

    /// Its guest, if it serves requests.
    #[must_use]
    pub fn serving(&self) -> Option<Arc<Guest>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets requests through to this guest, or to none. What was kept open into the one before is
    /// closed when this returns.
    pub fn set_serving(&self, guest: Option<Arc<Guest>>) {
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = serving.take() {
            before.links().drain();
        }
        if let Some(guest) = &guest {
            guest.links().admit();
        }
        *serving = guest;
    }

    /// Replaces the record, on disk first.
    ///
    /// # Errors
    ///
    /// [`AgentError::NoSpace`] or [`AgentError::Io`]; the old record stands then.
    pub async fn store(&self, record: Record, durability: Durability) -> Result<(), AgentError> {
        let (dir, copy) = (self.dir.clone(), record.clone());
        blocking(move || journal::write(&dir, &copy, durability))
            .await
            .map_err(AgentError::io("write the journal"))?;
        self.reaper.set(self.id, end_of(&record));
        *self.lock() = record;
        Ok(())
    }

    /// Changes the record in memory only: for the transient states that a restart resolves anyway.
    pub fn show(&self, state: SandboxState) {
        self.lock().state = state;
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.reaper.set(self.id, None);
    }
}

/// When the reaper must look at it.
fn end_of(record: &Record) -> Option<Timestamp> {
    record.expires_at.filter(|_| record.state == SandboxState::Running)
}
