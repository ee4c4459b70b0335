//! Functions: looking them up and taking them down. How they come up is in `deploy`.

use std::sync::Arc;

use edge_api::Function;
use edge_store::FunctionRecord;
use pool_model::{ErrorCode, TeamId};

use crate::{ApiError, Control};

impl Control {
    /// A team's functions.
    pub(crate) async fn functions(&self, team: TeamId) -> Result<Vec<Function>, ApiError> {
        let records = self.store().functions(team).await?;
        records.into_iter().map(|record| self.function_of(record)).collect()
    }

    /// A team's function.
    pub(crate) async fn function(&self, team: TeamId, name: &str) -> Result<Function, ApiError> {
        self.function_of(self.owned_function(team, name).await?)
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
            let removed = control.store().remove_function(team, &name).await?;
            let removed = removed.ok_or_else(|| no_function(&name))?;
            control.directory().forget_function(&name).await;
            let cleaned = control.agent().remove_pool(removed.id).await;
            drop(pools);
            let cleaned = match cleaned {
                Ok(_) => control.collect_snapshots().await,
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

    pub(crate) async fn owned_function(
        &self,
        team: TeamId,
        name: &str,
    ) -> Result<FunctionRecord, ApiError> {
        self.store().function(team, name).await?.ok_or_else(|| no_function(name))
    }

    pub(crate) fn function_of(&self, record: FunctionRecord) -> Result<Function, ApiError> {
        Ok(Function {
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
