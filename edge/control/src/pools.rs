//! Pools: what they aim for is ours, how they are is the agent's.

use std::{collections::HashMap, sync::Arc};

use agent_api::v1;
use edge_api::{PoolInfo, PoolPatch, PoolPolicy, PoolStats};
use edge_store::{FunctionRecord, Policy};
use pool_model::TeamId;

use crate::{ApiError, Control, functions::no_function, validate};

/// What a lease may take on top of the invocation's timeout before it is reaped.
const LEASE_GRACE_MS: u64 = 60_000;

impl Control {
    /// A team's pools with their numbers.
    pub(crate) async fn list_pools(&self, team: TeamId) -> Result<Vec<PoolInfo>, ApiError> {
        let functions = self.store().functions(team).await?;
        if functions.is_empty() {
            return Ok(Vec::new());
        }
        let mut stats: HashMap<String, PoolStats> = HashMap::new();
        for mut pool in self.agent().pools().await? {
            let id = pool.pool.take().map(|pool| pool.function_id).unwrap_or_default();
            if let Some(numbers) = pool.stats.take() {
                stats.insert(id, pool_stats(numbers));
            }
        }
        functions.iter().map(|f| info(f, stats.remove(&f.id.to_string()))).collect()
    }

    /// A team's function's pool with its numbers.
    pub(crate) async fn pool(&self, team: TeamId, name: &str) -> Result<PoolInfo, ApiError> {
        let function = self.owned_function(team, name).await?;
        let stats = match self.agent().pool(function.id).await {
            Ok(mut pool) => pool.stats.take().map(pool_stats),
            Err(error) if error.is_not_found() => None, // not there yet: the reconciler's work
            Err(error) => return Err(error),
        };
        info(&function, stats)
    }

    /// Changes what a team's function's pool aims for: at the agent first, because it can refuse.
    pub(crate) async fn patch_pool(
        self: &Arc<Self>,
        team: TeamId,
        name: &str,
        patch: PoolPatch,
    ) -> Result<PoolInfo, ApiError> {
        let (control, name) = (Arc::clone(self), name.to_owned());
        self.to_the_end(async move {
            let _pools = control.pools.lock().await;
            let mut function = control.owned_function(team, &name).await?;
            let policy = validate::patched(api_policy(function.policy), patch);
            validate::policy(&policy)?;
            function.policy = store_policy(policy);
            control.agent().set_pool(rpc_pool(&function)).await?;
            let changed = control.store().set_policy(team, &name, function.policy).await?;
            let changed = changed.ok_or_else(|| no_function(&name))?;
            let stats = control.agent().pool(changed.id).await.ok();
            info(&changed, stats.and_then(|mut pool| pool.stats.take()).map(pool_stats))
        })
        .await
    }
}

pub(crate) fn rpc_pool(function: &FunctionRecord) -> v1::Pool {
    v1::Pool {
        function_id: function.id.to_string(),
        snapshot_id: function.snapshot.to_string(),
        team_id: function.team.to_string(),
        policy: v1::PoolPolicy {
            min_warm: function.policy.min_warm,
            max_warm: function.policy.max_warm,
            idle_ttl_ms: function.policy.idle_ttl_ms,
            lease_max_ms: function.timeout_ms.saturating_add(LEASE_GRACE_MS),
            ..Default::default()
        }
        .into(),
        internet: function.internet,
        port: u32::from(function.port.get()),
        ..Default::default()
    }
}

pub(crate) const fn store_policy(policy: PoolPolicy) -> Policy {
    let PoolPolicy { min_warm, max_warm, idle_ttl_ms } = policy;
    Policy { min_warm, max_warm, idle_ttl_ms }
}

pub(crate) const fn api_policy(policy: Policy) -> PoolPolicy {
    let Policy { min_warm, max_warm, idle_ttl_ms } = policy;
    PoolPolicy { min_warm, max_warm, idle_ttl_ms }
}

fn info(function: &FunctionRecord, stats: Option<PoolStats>) -> Result<PoolInfo, ApiError> {
    Ok(PoolInfo {
        function: function.name.parse().map_err(ApiError::internal)?,
        policy: api_policy(function.policy),
        stats,
    })
}

fn pool_stats(stats: v1::PoolStats) -> PoolStats {
    PoolStats {
        warm: stats.warm,
        restoring: stats.restoring,
        leased: stats.leased,
        reaping: stats.reaping,
        hits: stats.hits,
        misses: stats.misses,
        refused: stats.refused,
        restored: stats.restored,
        failed: stats.failed,
        reaped_idle: stats.reaped_idle,
        reaped_lease: stats.reaped_lease,
        lease_wait_p50_ms: ms_of_us(stats.lease_wait_us_p50),
        lease_wait_p99_ms: ms_of_us(stats.lease_wait_us_p99),
        restore_p50_ms: to_f64(stats.restore_ms_p50),
        restore_p99_ms: to_f64(stats.restore_ms_p99),
        last_error: Some(stats.last_error).filter(|error| !error.is_empty()),
    }
}

fn ms_of_us(us: u64) -> f64 {
    to_f64(us) / 1000.0
}

/// Times over 49 days don't occur; were one to, it would read as that.
fn to_f64(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
