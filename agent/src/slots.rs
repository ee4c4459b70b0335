//! The host's slots: made on demand, kept for a while after use, then taken apart.
//!
//! # Invariants
//!
//! - A slot is given out once at a time; one that could not be reset is destroyed, not reused.
//! - A slot that could not be destroyed stays marked as used, so that nothing is built on its ruins;
//!   the sweep of the next start removes it.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agent_slot::{Host, Limits, Slot, SlotIndex};
use tokio::time::Instant;

use crate::error::{AgentError, chain};

/// Processes and threads in one slot: QEMU's own, with room for its I/O workers.
const PIDS_MAX: u32 = 128;

/// All slots of this installation.
#[derive(Debug)]
pub struct Slots {
    host: Host,
    idle_ttl: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    used: BTreeSet<SlotIndex>,
    free: Vec<(Slot, Instant)>,
}

impl Slots {
    /// Takes over the host's set-up.
    #[must_use]
    pub fn new(host: Host, idle_ttl: Duration) -> Self {
        Self { host, idle_ttl, inner: Mutex::default() }
    }

    /// The host's set-up.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Names the slot that [`Slots::build`] will make or reuse, so that it can be journalled first.
    ///
    /// # Errors
    ///
    /// [`AgentError::NoCapacity`] when every index is taken.
    pub fn reserve(&self) -> Result<Reserved, AgentError> {
        let mut inner = self.inner();
        if let Some((slot, _)) = inner.free.pop() {
            return Ok(Reserved { index: slot.index(), slot: Some(slot) });
        }
        let free = (0..=agent_slot::MAX_INDEX)
            .filter_map(|index| SlotIndex::new(index).ok())
            .find(|index| !inner.used.contains(index));
        let Some(index) = free else {
            return Err(AgentError::NoCapacity { reason: "every network slot is used".to_owned() });
        };
        inner.used.insert(index);
        Ok(Reserved { index, slot: None })
    }

    /// Makes a reserved slot ready for a guest.
    ///
    /// # Errors
    ///
    /// [`AgentError::Slot`]; the index is free again then, or known to be in ruins.
    pub async fn build(
        &self,
        reserved: Reserved,
        memory_bytes: u64,
        internet: bool,
    ) -> Result<Slot, AgentError> {
        let limits = Limits { memory_bytes, pids: PIDS_MAX };
        let slot = match reserved.slot {
            Some(slot) => slot,
            None => match Slot::create(&self.host, reserved.index, limits).await {
                Ok(slot) => slot,
                Err(error) => {
                    self.inner().used.remove(&reserved.index);
                    return Err(AgentError::Slot(error));
                }
            },
        };
        let ready = async {
            slot.set_limits(limits).await?;
            slot.set_internet(internet).await
        };
        if let Err(error) = ready.await {
            self.give(slot).await;
            return Err(AgentError::Slot(error));
        }
        Ok(slot)
    }

    /// Gives up a reservation that was not built.
    pub async fn cancel(&self, reserved: Reserved) {
        match reserved.slot {
            Some(slot) => self.give(slot).await,
            None => {
                self.inner().used.remove(&reserved.index);
            }
        }
    }

    /// Marks a slot as used that was found on the system.
    pub fn adopted(&self, index: SlotIndex) {
        self.inner().used.insert(index);
    }

    /// Takes a slot back. Its VMM must be gone.
    pub async fn give(&self, slot: Slot) {
        match slot.reset().await {
            Ok(()) => self.inner().free.push((slot, Instant::now())),
            Err(error) => {
                let slot_index = slot.index();
                tracing::warn!(slot.index = %slot_index, "slot is not reusable: {}", chain(&error));
                self.destroy(slot).await;
            }
        }
    }

    /// Takes apart what has been free for the idle TTL.
    pub async fn reap_idle(&self) {
        let now = Instant::now();
        let idle: Vec<Slot> = {
            let mut inner = self.inner();
            let old = |(_, since): &mut (Slot, Instant)| now - *since >= self.idle_ttl;
            inner.free.extract_if(.., old).map(|(slot, _)| slot).collect()
        };
        for slot in idle {
            self.destroy(slot).await;
        }
    }

    async fn destroy(&self, slot: Slot) {
        let index = slot.index();
        match slot.destroy().await {
            Ok(()) => {
                self.inner().used.remove(&index);
            }
            Err(error) => {
                tracing::error!(slot.index = %index, "slot is not removable: {}", chain(&error));
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot that is named but not yet ready.
#[derive(Debug)]
pub struct Reserved {
    index: SlotIndex,
    slot: Option<Slot>,
}

impl Reserved {
    /// Which one.
    #[must_use]
    pub fn index(&self) -> SlotIndex {
        self.index
    }
}
