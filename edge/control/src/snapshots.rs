//! Snapshots that users ask for, and templates.

use std::sync::Arc;

use agent_api::v1;
use edge_api::{CreateSnapshot, SnapshotInfo, TemplateInfo};
use edge_store::{OperationKind, OperationRecord, SnapshotKind, SnapshotRecord};
use jiff::Timestamp;
use pool_model::{ErrorCode, RequestId, SandboxId, SnapshotId, TeamId};

use crate::{ApiError, Control, capsules::no_snapshot, control::now, validate};

impl Control {
    /// Makes a snapshot of a team's capsule.
    pub(crate) async fn snapshot(
        self: &Arc<Self>,
        request: RequestId,
        team: TeamId,
        id: SandboxId,
        wish: CreateSnapshot,
    ) -> Result<SnapshotInfo, ApiError> {
        validate::snapshot(&wish)?;
        self.owned_capsule(team, id).await?;
        let operation = OperationRecord {
            id: request,
            team,
            kind: OperationKind::Snapshot,
            function: None,
            sandbox: id,
            step: "snapshotting".to_owned(),
            created_at: now(),
        };
        let control = Arc::clone(self);
        self.to_the_end(async move {
            control.store().begin_operation(&operation).await?;
            let made = control.snapshot_recorded(team, id, wish.name).await;
            control.store().end_operation(operation.id).await?;
            made
        })
        .await
    }

    async fn snapshot_recorded(
        &self,
        team: TeamId,
        id: SandboxId,
        name: Option<String>,
    ) -> Result<SnapshotInfo, ApiError> {
        let _unswept = self.snapshots.read().await;
        let made = self.seen(id, self.agent().snapshot(id).await).await?;
        let record = snapshot_record(&made, team, SnapshotKind::User, name, id)?;
        if let Err(error) = self.store().add_snapshot(&record).await {
            // Without a record nobody could ever delete it.
            self.agent().delete_snapshot(record.id).await?;
            return Err(error.into());
        }
        Ok(info(record))
    }

    /// A team's snapshots.
    pub(crate) async fn list_snapshots(&self, team: TeamId) -> Result<Vec<SnapshotInfo>, ApiError> {
        Ok(self.store().snapshots(team).await?.into_iter().map(info).collect())
    }

    /// Deletes a team's snapshot that nothing uses.
    pub(crate) async fn delete_snapshot(
        self: &Arc<Self>,
        team: TeamId,
        id: SnapshotId,
    ) -> Result<(), ApiError> {
        self.store().snapshot(team, id).await?.ok_or_else(|| no_snapshot(id))?;
        if self.store().snapshot_is_used(id).await? {
            let why = format!("snapshot {id} is a function's: delete the function");
            return Err(ApiError::new(ErrorCode::Conflict, why));
        }
        let control = Arc::clone(self);
        self.to_the_end(async move {
            control.agent().delete_snapshot(id).await?;
            control.store().remove_snapshot(id).await?;
            Ok(())
        })
        .await
    }

    /// The templates that a team may use: its own and the platform's.
    pub(crate) async fn templates(&self, team: TeamId) -> Result<Vec<TemplateInfo>, ApiError> {
        let mut found = self.agent().templates(team).await?;
        // The team's own first: they win by name.
        found.sort_by_key(|template| template.team_id != team.to_string());
        let allowed = [team.to_string(), TeamId::PLATFORM.to_string()];
        found.retain(|template| allowed.contains(&template.team_id));
        found.into_iter().map(template).collect()
    }

    /// Deletes functions' snapshots that no function points to any more. One that is still in use
    /// (a request of the old version is under way) stays for the next time.
    pub(crate) async fn collect_snapshots(&self) -> Result<(), ApiError> {
        let mut first = Ok(());
        for id in self.store().orphan_snapshots().await? {
            match self.agent().delete_snapshot(id).await {
                Ok(_) => {
                    self.store().remove_snapshot(id).await?;
                    tracing::info!(snapshot.id = %id, "deleted an unused snapshot");
                }
                Err(error) if error.code() == ErrorCode::Conflict => {
                    tracing::debug!(snapshot.id = %id, "an unused snapshot is still held");
                }
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }
}

pub(crate) fn snapshot_record(
    made: &v1::Snapshot,
    team: TeamId,
    kind: SnapshotKind,
    name: Option<String>,
    sandbox: SandboxId,
) -> Result<SnapshotRecord, ApiError> {
    Ok(SnapshotRecord {
        id: made.snapshot_id.parse().map_err(ApiError::internal)?,
        team,
        kind,
        name,
        sandbox: Some(sandbox),
        template: made.template_id.parse().map_err(ApiError::internal)?,
        memory_bytes: made.memory_bytes,
        stored_bytes: made.stored_bytes,
        created_at: Timestamp::from_millisecond(made.created_at_ms).map_err(ApiError::internal)?,
    })
}

fn info(record: SnapshotRecord) -> SnapshotInfo {
    SnapshotInfo {
        id: record.id,
        kind: match record.kind {
            SnapshotKind::User => edge_api::SnapshotKind::User,
            SnapshotKind::Function | SnapshotKind::Internal => edge_api::SnapshotKind::Function,
        },
        name: record.name,
        sandbox: record.sandbox,
        template: record.template,
        memory_mib: u32::try_from(record.memory_bytes >> 20).unwrap_or(u32::MAX),
        size_bytes: record.stored_bytes,
        created_at: record.created_at,
    }
}

fn template(found: v1::Template) -> Result<TemplateInfo, ApiError> {
    Ok(TemplateInfo {
        id: found.template_id.parse().map_err(ApiError::internal)?,
        name: found.name,
        memory_mib: found.memory_mib,
        vcpus: found.vcpus,
        kernel: found.kernel,
        envd_version: found.envd_version,
    })
}
