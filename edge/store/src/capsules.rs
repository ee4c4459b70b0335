//! Capsules: what of them only the edge knows.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pool_model::{SandboxId, TeamId};
use sqlx::sqlite::SqliteRow;

use crate::{Store, StoreError, row::Typed};

/// A capsule's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapsuleRecord {
    /// Its id.
    pub id: SandboxId,
    /// Whose it is.
    pub team: TeamId,
    /// The caller's notes.
    pub metadata: BTreeMap<String, String>,
    /// When it was asked for.
    pub created_at: Timestamp,
}

impl Store {
    /// Records a capsule, before it is asked from an agent.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn add_capsule(&self, capsule: &CapsuleRecord) -> Result<(), StoreError> {
        // A map of texts always has a JSON form.
        let metadata = serde_json::to_string(&capsule.metadata).unwrap_or_else(|_| "{}".to_owned());
        sqlx::query(
            "INSERT INTO capsules (id, team_id, metadata, created_at_ms) VALUES ($1, $2, $3, $4)",
        )
        .bind(capsule.id.to_string())
        .bind(capsule.team.to_string())
        .bind(metadata)
        .bind(capsule.created_at.as_millisecond())
        .execute(&self.pool)
        .await
        .map_err(StoreError::query("record a capsule"))?;
        Ok(())
    }

    /// Looks a team's capsule up.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn capsule(
        &self,
        team: TeamId,
        id: SandboxId,
    ) -> Result<Option<CapsuleRecord>, StoreError> {
        let row = sqlx::query("SELECT * FROM capsules WHERE team_id = $1 AND id = $2")
            .bind(team.to_string())
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::query("look a capsule up"))?;
        row.map(|row| read(&row)).transpose()
    }

    /// A team's capsules, oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn capsules(&self, team: TeamId) -> Result<Vec<CapsuleRecord>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM capsules WHERE team_id = $1 ORDER BY created_at_ms, id")
                .bind(team.to_string())
                .fetch_all(&self.pool)
                .await
                .map_err(StoreError::query("list the capsules"))?;
        rows.iter().map(read).collect()
    }

    /// Whether any team has this capsule. For the router: host names are not scoped by team.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn capsule_exists(&self, id: SandboxId) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT id FROM capsules WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::query("look a capsule up"))?;
        Ok(row.is_some())
    }

    /// Capsules of any team that were recorded before `before`. For the reconciler.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn capsules_before(&self, before: Timestamp) -> Result<Vec<SandboxId>, StoreError> {
        let rows = sqlx::query("SELECT id FROM capsules WHERE created_at_ms < $1")
            .bind(before.as_millisecond())
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::query("list the capsules"))?;
        rows.iter().map(|row| Typed(row).parse("id")).collect()
    }

    /// Forgets a capsule. False if there was none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn remove_capsule(&self, id: SandboxId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM capsules WHERE id = $1")
            .bind(id.to_string())
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("forget a capsule"))?;
        Ok(done.rows_affected() > 0)
    }
}

fn read(row: &SqliteRow) -> Result<CapsuleRecord, StoreError> {
    let row = Typed(row);
    let metadata = row.text("metadata")?;
    Ok(CapsuleRecord {
        id: row.parse("id")?,
        team: row.parse("team_id")?,
        metadata: serde_json::from_str(&metadata).map_err(|_| StoreError::Corrupt {
            column: "metadata",
            found: metadata.chars().take(64).collect(),
        })?,
        created_at: row.time("created_at_ms")?,
    })
}
