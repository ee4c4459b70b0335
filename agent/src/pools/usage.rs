//! What a pool's sandboxes take of the host's memory, by kind.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agent_vmm::{MachineRecord, vmm_usage};
use pool_model::FunctionId;
use tokio::time::Instant;

use super::Entry;
use crate::{agent::Agent, host::blocking, journal::Purpose};

/// For how long a measurement is given again: looking costs about a millisecond per sandbox.
const FRESH: Duration = Duration::from_secs(2);

/// Memory of all sandboxes of one pool, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolMemory {
    /// Guest memory, as promised.
    pub promised_bytes: u64,
    /// Base memory in memory, which all of them share.
    pub base_bytes: u64,
    /// Guest pages of their own.
    pub private_bytes: u64,
    /// The VMM processes themselves, page tables included.
    pub vmm_bytes: u64,
}

/// The last measurement of one pool.
pub(super) type Measured = Arc<Mutex<Option<(Instant, PoolMemory)>>>;

impl Agent {
    /// Measures a pool's memory, or gives the last figures if they are fresh.
    pub async fn pool_memory(&self, entry: &Entry) -> PoolMemory {
        let last = *entry.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, memory)) = last.filter(|(at, _)| at.elapsed() < FRESH) {
            tracing::trace!(age = ?at.elapsed(), "figures are fresh");
            return memory;
        }
        let memory = self.measure(entry).await;
        let measured = Some((Instant::now(), memory));
        *entry.measured.lock().unwrap_or_else(PoisonError::into_inner) = measured;
        memory
    }

    async fn measure(&self, entry: &Entry) -> PoolMemory {
        let machines = self.machines_of(entry.spec.function);
        let promised_bytes = machines.len() as u64 * entry.memory_bytes;
        let base_bytes = self.host.pager.stats().await.map_or(0, |stats| {
            let of_pool = |base: &&pool_pager::BaseStats| base.snapshot == entry.spec.snapshot;
            stats.bases.iter().filter(of_pool).map(|base| base.resident_bytes).sum()
        });
        let summed = blocking(move || {
            let mut memory = PoolMemory { promised_bytes, base_bytes, ..PoolMemory::default() };
            // One that has just ended takes nothing any more.
            for usage in machines.iter().filter_map(|machine| vmm_usage(machine).ok()) {
                memory.private_bytes += usage.guest_private;
                memory.vmm_bytes += usage.vmm_private + usage.page_tables;
            }
            Ok::<_, std::convert::Infallible>(memory)
        });
        summed.await.unwrap_or_else(|never| match never {})
    }

    fn machines_of(&self, function: FunctionId) -> Vec<MachineRecord> {
        let sandboxes = self.sandboxes(None);
        let of_pool =
            sandboxes.iter().filter(|sandbox| sandbox.record().purpose == Purpose::Warm(function));
        of_pool.filter_map(|sandbox| Some(sandbox.serving()?.record())).collect()
    }
}
