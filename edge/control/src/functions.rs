//! Functions: looking them up and taking them down. How they come up is in `deploy`.

use std::sync::Arc;

use edge_api::Function;
use edge_store::{FunctionRecord, LiveFunction};
use pool_model::{ErrorCode, FunctionId, TeamId};

use crate::{ApiError, Control};

impl Control {
    /// A team's functions.
    pub(crate) async fn functions(&self, team: TeamId) -> Result<Vec<Function>, ApiError> {
        let found = self.store().live_functions(Some(team)).await?;
        found.into_iter().map(|live| self.function_of(live)).collect()
    }

    /// A team's function.
    pub(crate) async fn function(&self, team: TeamId, name: &str) -> Result<Function, ApiError> {
        self.function_of(self.owned_live(team, name).await?)
    }

    /// Takes a team's function down: no new request reaches it once this has returned. What the
    /// agent still has of it and can't delete now, the reconciler deletes later.
    pub(crate) async fn delete_function(
        self: &Arc<Self>,
        team: TeamId,
        name: &str,
    ) -> Result<(), ApiError> {
        let (control, name) = (Arc::clone(self), name.to_owned());
        self.to_the_end(async move {
            let pools = control.pools.lock().await;
            let removed = control.remove_recorded(team, &name).await?;
            let mut cleaned = Ok(());
            for pool in removed {
                let done = control.agent().remove_pool(pool).await;
                cleaned = cleaned.and(done.map(|_| ()));
            }
            drop(pools);
            let cleaned = match cleaned {
                Ok(()) => control.collect_snapshots().await,
                Err(error) => Err(error),
            };
            if let Err(error) = cleaned {
                tracing::warn!(
                    function.name = name,
                    error = &error as &dyn std::error::Error,
                    "the agent still has parts of a deleted function"
                );
            }
            Ok(())
        })
        .await
    }

    /// Forgets a team's function, here and in the directory. Says which pools it leaves behind.
    async fn remove_recorded(&self, team: TeamId, name: &str) -> Result<Vec<FunctionId>, ApiError> {
        let mut pools = self.store().pools_of(team, name).await?;
        let mut domains = Vec::new();
        for &pool in &pools {
            // One of them is the function's id; the others have no domains.
            domains.extend(self.store().domains(pool).await?);
        }
        let removed = self.store().remove_function(team, name).await;
        self.directory().forget_function(name);
        for domain in domains {
            self.directory().forget_domain(&domain.name);
        }
        let removed = removed?.ok_or_else(|| no_function(name))?;
        pools.extend(self.retired.take(removed.id));
        Ok(pools)
    }

    pub(crate) async fn owned_function(
        &self,
        team: TeamId,
        name: &str,
    ) -> Result<FunctionRecord, ApiError> {
        self.store().function(team, name).await?.ok_or_else(|| no_function(name))
    }

    pub(crate) fn function_of(&self, live: LiveFunction) -> Result<Function, ApiError> {
        let tags = self.tags_of(&live)?;
        let record = live.function;
        Ok(Function {
            tags,
            url: self.public().function_url(&record.name),
            id: record.id,
            name: record.name.parse().map_err(ApiError::internal)?,
            version: record.version,
            template: record.template,
            snapshot: record.snapshot,
            port: record.port,
            start: record.start,
            ready_path: record.ready_path,
            timeout_ms: record.timeout_ms,
            created_at: record.created_at,
            updated_at: record.updated_at,
            pool: record.policy,
        })
    }
}

pub(crate) fn no_function(name: &str) -> ApiError {
    let shown: String = name.chars().take(80).collect();
    ApiError::new(ErrorCode::FunctionNotFound, format!("there is no function `{shown}`"))
}
