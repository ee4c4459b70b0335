//! Brings a change of a function's versions to the agent and into the store, so that requests are
//! answered throughout.
//!
//! ```text
//! set pools that are new or different -> commit -> forget in the directory -> retire the others
//!        \__________________________________/
//!             a failure: they are set back
//! ```
//!
//! A crash in between leaves the agent with pools that the store doesn't know, or the store with
//! pools that the agent hasn't: the reconciler makes them what the store says.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use agent_api::v1;
use edge_store::{FunctionRecord, LiveFunction, VersionRecord};
use pool_model::{FunctionId, PoolPolicy};
use tokio::time::Instant;

use crate::{ApiError, Control, directory, pool_wire::rpc_pool};

/// How long a pool that nothing leads to any more goes on serving: requests that were routed before
/// the change are on their way to it, other edges may not know of the change yet.
const RETIRE_AFTER: Duration = directory::TTL.saturating_add(Duration::from_secs(1));
/// Most pools that wait to go; over that the oldest goes at once.
const RETIRED_MAX: usize = 1024;

/// Pools that are still at the agent though nothing leads to them.
#[derive(Debug, Default)]
pub(crate) struct Retired(Mutex<Vec<RetiredPool>>);

#[derive(Debug)]
struct RetiredPool {
    function: FunctionId,
    pool: v1::Pool,
    until: Instant,
}

impl Retired {
    fn add(&self, function: FunctionId, pool: v1::Pool) {
        let mut retired = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if retired.len() >= RETIRED_MAX {
            retired.remove(0);
        }
        retired.push(RetiredPool { function, pool, until: Instant::now() + RETIRE_AFTER });
    }

    /// The pools whose time is not over; the others are forgotten.
    pub(crate) fn pools(&self) -> Vec<v1::Pool> {
        let mut retired = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        retired.retain(|pool| pool.until > now);
        retired.iter().map(|pool| pool.pool.clone()).collect()
    }

    /// Forgets a function's pools and says which they are.
    pub(crate) fn take(&self, function: FunctionId) -> Vec<FunctionId> {
        let mut retired = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_function = retired.extract_if(.., |pool| pool.function == function);
        of_function.filter_map(|pool| pool.pool.function_id.parse().ok()).collect()
    }
}

impl Control {
    /// Brings a function from `before` to `after`; `commit` writes it down. Whoever calls it holds
    /// the lock of the pools.
    pub(crate) async fn roll_out<T>(
        &self,
        before: Option<&LiveFunction>,
        after: &LiveFunction,
        commit: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let old = before.map(pools).unwrap_or_default();
        let new = pools(after);
        let changed = new.iter().filter(|pool| !old.contains(pool));
        let mut touched = Vec::new();
        let mut done = Ok(());
        for pool in changed {
            touched.push(pool);
            done = self.agent().set_pool(pool.clone()).await;
            if done.is_err() {
                break;
            }
        }
        let committed = match done {
            Ok(()) => commit.await,
            Err(error) => Err(error),
        };
        self.directory().forget_function(&after.function.name);
        if committed.is_err() {
            self.set_back(&old, &touched).await;
            return committed;
        }
        for pool in old {
            if new.iter().all(|kept| kept.function_id != pool.function_id) {
                self.retired.add(after.function.id, cold(pool));
            }
        }
        committed
    }

    /// Undoes what was done to pools.
    async fn set_back(&self, old: &[v1::Pool], touched: &[&v1::Pool]) {
        for pool in touched {
            let before = old.iter().find(|before| before.function_id == pool.function_id);
            let undone = match (before, pool.function_id.parse()) {
                (Some(before), _) => self.agent().set_pool(before.clone()).await,
                (None, Ok(id)) => self.agent().remove_pool(id).await.map(|_| ()),
                (None, Err(_)) => Ok(()),
            };
            if let Err(error) = undone {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "a pool was not set back; the reconciler will");
            }
        }
    }
}

/// The pools that a function should have, the current version's last: whoever sets them in this
/// order has the others ready when the plain name changes.
pub(crate) fn pools(live: &LiveFunction) -> Vec<v1::Pool> {
    let LiveFunction { function, versions, tags } = live;
    let is_current = |version: &&VersionRecord| version.version == function.version;
    let (current, others): (Vec<_>, Vec<_>) = versions.iter().partition(is_current);
    let of_other = |version: &VersionRecord| {
        let shares = tags.iter().any(|tag| tag.version == version.version && tag.weight > 0);
        let policy = if shares { function.policy.clone() } else { unasked(&function.policy) };
        rpc_pool(&FunctionRecord { policy, ..function.clone() }, version)
    };
    let others = others.into_iter().map(of_other);
    others.chain(current.into_iter().map(|version| rpc_pool(function, version))).collect()
}

/// The function's policy for a version that only those ask for who name it: nothing is kept warm
/// before the first one does.
fn unasked(policy: &PoolPolicy) -> PoolPolicy {
    PoolPolicy { min_warm: 0, schedule: Vec::new(), ..policy.clone() }
}

/// A pool that makes nothing new unless it is asked.
fn cold(mut pool: v1::Pool) -> v1::Pool {
    if let Some(policy) = pool.policy.as_option_mut() {
        policy.min_warm = 0;
        policy.schedule.clear();
    }
    pool
}
