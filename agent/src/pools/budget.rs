//! Who of the pools may have how much of the host's memory.
//!
//! # Invariants
//!
//! - A floor is accepted only if all floors fit into the host's budget together.
//! - Above the floors memory is shared out anew every [`SHARE_EVERY`], fairly, so that one
//!   function's rush gives up its surplus when another one needs it.

use std::time::Duration;

use pool::budget::{self, Minimum};
use tokio::time::{MissedTickBehavior, interval};

use super::{PoolSpec, Pools};
use crate::error::AgentError;

/// How often memory is shared out.
const SHARE_EVERY: Duration = Duration::from_millis(500);

impl Pools {
    /// Shares the host's memory out among the pools until the agent stops.
    pub async fn run_budget(self) {
        let mut ticks = interval(SHARE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let cancel = self.host.cancel.clone();
        while cancel.run_until_cancelled(ticks.tick()).await.is_some() {
            self.share_memory().await;
        }
    }

    async fn share_memory(&self) {
        let entries = self.list();
        let mut wants = Vec::with_capacity(entries.len());
        for entry in &entries {
            wants.push(entry.pool.want(entry.memory_bytes).await);
        }
        let caps = budget::share(&wants, self.host.capacity.for_pools_bytes());
        for (entry, cap) in entries.iter().zip(caps) {
            entry.pool.set_cap(cap).await;
        }
    }

    /// Refuses a floor that does not fit beside the other pools' floors.
    pub(super) fn check_budget(&self, spec: &PoolSpec, bytes_each: u64) -> Result<(), AgentError> {
        let minimum = |name: String, spec: &PoolSpec, bytes_each| Minimum {
            name,
            count: spec.policy.floor_max(),
            bytes_each,
        };
        let others = self.list();
        let mut minimums: Vec<Minimum> = others
            .iter()
            .filter(|entry| entry.spec.function != spec.function)
            .map(|entry| minimum(entry.spec.function.to_string(), &entry.spec, entry.memory_bytes))
            .collect();
        minimums.push(minimum("this pool".to_owned(), spec, bytes_each));
        let budget_bytes = self.host.capacity.memory_bytes_max();
        budget::check_minimums(&minimums, budget_bytes).map_err(AgentError::OverBudget)?;
        let own = u64::from(spec.policy.floor_max()) * bytes_each;
        let limit = spec.policy.memory_budget_mib << 20;
        if limit > 0 && own > limit {
            let reason = format!(
                "{} MiB is less than its floor needs: {} x {} MiB = {} MiB",
                limit >> 20,
                spec.policy.floor_max(),
                bytes_each >> 20,
                own >> 20
            );
            return Err(AgentError::InvalidArgument { field: "memory_budget_mib", reason });
        }
        Ok(())
    }

    /// Guest memory of each of a pool's sandboxes. The snapshot is brought here if it is not.
    pub(super) async fn memory_of(
        &self,
        agent: &crate::agent::Agent,
        spec: &PoolSpec,
    ) -> Result<u64, AgentError> {
        Ok(agent.obtain(spec.snapshot, spec.team).await?.manifest.memory.bytes)
    }
}
