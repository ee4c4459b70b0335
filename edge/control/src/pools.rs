//! Pools: what they aim for is ours, how they are is the agent's.

use std::{collections::HashMap, sync::Arc};

use edge_api::{Drained, PoolInfo, PoolPatch, PoolStats, Prewarm};
use edge_store::FunctionRecord;
use pool_model::{ErrorCode, TeamId};

use crate::{
    ApiError, Control,
    functions::no_function,
    pool_wire::{Detail, pool_stats},
    validate,
};

impl Control {
    /// A team's pools with their numbers, in as much detail as asked for.
    pub(crate) async fn list_pools(
        &self,
        team: TeamId,
        detail: Detail,
    ) -> Result<Vec<PoolInfo>, ApiError> {
        let functions = self.store().functions(team).await?;
        self.pools_of(&functions, detail).await
    }

    /// The pools of these functions with their numbers: one question to the agent for all of them.
    pub(crate) async fn pools_of(
        &self,
        functions: &[FunctionRecord],
        detail: Detail,
    ) -> Result<Vec<PoolInfo>, ApiError> {
        if functions.is_empty() {
            return Ok(Vec::new());
        }
        let mut stats: HashMap<String, PoolStats> = HashMap::new();
        for mut pool in self.agent().pools().await? {
            let id = pool.pool.take().map(|pool| pool.function_id).unwrap_or_default();
            if let Some(numbers) = pool.stats.take() {
                stats.insert(id, pool_stats(numbers, detail));
            }
        }
        functions.iter().map(|f| info(f, stats.remove(&f.id.to_string()))).collect()
    }

    /// A team's function's pool with its numbers.
    pub(crate) async fn pool(&self, team: TeamId, name: &str) -> Result<PoolInfo, ApiError> {
        let function = self.owned_function(team, name).await?;
        self.pool_of(&function, Detail::Whole).await
    }

    /// A function's pool with its numbers, if the agent has them.
    pub(crate) async fn pool_of(
        &self,
        function: &FunctionRecord,
        detail: Detail,
    ) -> Result<PoolInfo, ApiError> {
        let stats = match self.agent().pool(function.id).await {
            Ok(mut pool) => pool.stats.take().map(|stats| pool_stats(stats, detail)),
            Err(error) if error.is_not_found() => None, // not there yet: the reconciler's work
            Err(error) => return Err(error),
        };
        info(function, stats)
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
            let before = control.owned_live(team, &name).await?;
            let mut after = before.clone();
            after.function.policy = patch.over(after.function.policy);
            validate::policy(&after.function.policy)?;
            let commit = async {
                let policy = &after.function.policy;
                let changed = control.store().set_policy(team, &name, policy).await?;
                changed.ok_or_else(|| no_function(&name))
            };
            let changed = control.roll_out(Some(&before), &after, commit).await?;
            let stats = control.agent().pool(changed.id).await.ok();
            let stats = stats.and_then(|mut pool| pool.stats.take());
            info(&changed, stats.map(|stats| pool_stats(stats, Detail::Whole)))
        })
        .await
    }

    /// Has the agent make warm sandboxes for a team's function now.
    pub(crate) async fn prewarm_pool(
        self: &Arc<Self>,
        team: TeamId,
        name: &str,
        Prewarm { count }: Prewarm,
    ) -> Result<PoolInfo, ApiError> {
        let function = self.owned_function(team, name).await?;
        validate::prewarm(count, &function.policy)?;
        let control = Arc::clone(self);
        self.to_the_end(async move {
            let mut pool = control.agent().prewarm_pool(function.id, count).await?;
            let stats = pool.stats.take().map(|stats| pool_stats(stats, Detail::Whole));
            info(&function, stats)
        })
        .await
        .map_err(not_there_yet)
    }

    /// Has the agent destroy the warm sandboxes of a team's function.
    pub(crate) async fn drain_pool(
        self: &Arc<Self>,
        team: TeamId,
        name: &str,
    ) -> Result<Drained, ApiError> {
        let function = self.owned_function(team, name).await?;
        let control = Arc::clone(self);
        let drained =
            self.to_the_end(async move { control.agent().drain_pool(function.id).await }).await;
        Ok(Drained { drained: drained.map_err(not_there_yet)? })
    }
}

/// The function is there, so that the agent has no pool of it is a matter of seconds.
fn not_there_yet(error: ApiError) -> ApiError {
    if error.is_not_found() {
        let why = "the agent does not have this pool yet; try again in a few seconds";
        return ApiError::new(ErrorCode::Conflict, why).with_source(error);
    }
    error
}

fn info(function: &FunctionRecord, stats: Option<PoolStats>) -> Result<PoolInfo, ApiError> {
    Ok(PoolInfo {
        function: function.name.parse().map_err(ApiError::internal)?,
        policy: function.policy.clone(),
        stats,
    })
}
