//! Snapshots: whose they are and why they exist.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use pool_model::{SandboxId, SnapshotId, TeamId, TemplateId};
use sqlx::{SqliteExecutor, sqlite::SqliteRow};

use crate::{
    Store, StoreError,
    row::{Typed, bigint},
};

/// Why a snapshot exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotKind {
    /// Someone asked for it.
    User,
    /// A function's sandboxes are restored from it.
    Function,
    /// Ours; never listed.
    Internal,
}

impl SnapshotKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Function => "function",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for SnapshotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SnapshotKind {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::User, Self::Function, Self::Internal]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(())
    }
}

/// A snapshot's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// Its id.
    pub id: SnapshotId,
    /// Whose it is.
    pub team: TeamId,
    /// Why it exists.
    pub kind: SnapshotKind,
    /// The caller's name for it.
    pub name: Option<String>,
    /// The sandbox it was taken of.
    pub sandbox: Option<SandboxId>,
    /// The template that sandbox was booted from.
    pub template: TemplateId,
    /// Memory of a sandbox restored from it.
    pub memory_bytes: u64,
    /// What it takes on disk.
    pub stored_bytes: u64,
    /// When it was taken.
    pub created_at: Timestamp,
}

impl Store {
    /// Records a snapshot. One that is recorded already stays as it is.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn add_snapshot(&self, snapshot: &SnapshotRecord) -> Result<(), StoreError> {
        insert(&self.pool, snapshot).await
    }

    /// Looks a team's snapshot up.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn snapshot(
        &self,
        team: TeamId,
        id: SnapshotId,
    ) -> Result<Option<SnapshotRecord>, StoreError> {
        let row = sqlx::query(
            "SELECT * FROM snapshots WHERE team_id = $1 AND id = $2 AND kind <> 'internal'",
        )
        .bind(team.to_string())
        .bind(id.to_string())
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::query("look a snapshot up"))?;
        row.map(|row| read(&row)).transpose()
    }

    /// A team's snapshots, oldest first, without those of our own use.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn snapshots(&self, team: TeamId) -> Result<Vec<SnapshotRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM snapshots WHERE team_id = $1 AND kind <> 'internal' \
             ORDER BY created_at_ms, id",
        )
        .bind(team.to_string())
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::query("list the snapshots"))?;
        rows.iter().map(read).collect()
    }

    /// Whether any version of any team's function is restored from it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn snapshot_is_used(&self, id: SnapshotId) -> Result<bool, StoreError> {
        let row = sqlx::query(
            "SELECT id FROM functions WHERE snapshot_id = $1 UNION ALL \
             SELECT function_id AS id FROM function_versions WHERE snapshot_id = $1 LIMIT 1",
        )
        .bind(id.to_string())
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::query("look for a snapshot's users"))?;
        Ok(row.is_some())
    }

    /// Whether a snapshot has a record, whoever owns it. For cleaning up.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn snapshot_is_known(&self, id: SnapshotId) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT id FROM snapshots WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::query("look a snapshot up"))?;
        Ok(row.is_some())
    }

    /// Functions' snapshots, of any team, that no version points to any more: to be deleted.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn orphan_snapshots(&self) -> Result<Vec<SnapshotId>, StoreError> {
        let rows = sqlx::query(
            "SELECT id FROM snapshots WHERE kind = 'function' \
             AND id NOT IN (SELECT snapshot_id FROM functions) \
             AND id NOT IN (SELECT snapshot_id FROM function_versions) ORDER BY created_at_ms, id",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::query("list the unused snapshots"))?;
        rows.iter().map(|row| Typed(row).parse("id")).collect()
    }

    /// Forgets a snapshot that no function uses. False if there was none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`]: also when a function uses it.
    pub async fn remove_snapshot(&self, id: SnapshotId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM snapshots WHERE id = $1")
            .bind(id.to_string())
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("forget a snapshot"))?;
        Ok(done.rows_affected() > 0)
    }
}

pub(crate) async fn insert(
    executor: impl SqliteExecutor<'_>,
    snapshot: &SnapshotRecord,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO snapshots (id, team_id, kind, name, sandbox_id, template_id, memory_bytes, \
         stored_bytes, created_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(snapshot.id.to_string())
    .bind(snapshot.team.to_string())
    .bind(snapshot.kind.as_str())
    .bind(snapshot.name.clone())
    .bind(snapshot.sandbox.map(|id| id.to_string()))
    .bind(snapshot.template.to_string())
    .bind(bigint(snapshot.memory_bytes))
    .bind(bigint(snapshot.stored_bytes))
    .bind(snapshot.created_at.as_millisecond())
    .execute(executor)
    .await
    .map_err(StoreError::query("record a snapshot"))?;
    Ok(())
}

fn read(row: &SqliteRow) -> Result<SnapshotRecord, StoreError> {
    let row = Typed(row);
    Ok(SnapshotRecord {
        id: row.parse("id")?,
        team: row.parse("team_id")?,
        kind: row.parse("kind")?,
        name: row.optional_text("name")?,
        sandbox: row.parse_optional("sandbox_id")?,
        template: row.parse("template_id")?,
        memory_bytes: row.number("memory_bytes")?,
        stored_bytes: row.number("stored_bytes")?,
        created_at: row.time("created_at_ms")?,
    })
}
