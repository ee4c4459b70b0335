//! Work under way at an agent, noted down first so that a crash can be cleaned up after.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use pool_model::{RequestId, SandboxId, TeamId};
use sqlx::sqlite::SqliteRow;

use crate::{Store, StoreError, row::Typed};

/// What kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    /// A deploy: its build sandbox is destroyed on clean-up.
    Deploy,
    /// A snapshot of a capsule, which stays.
    Snapshot,
}

impl OperationKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Snapshot => "snapshot",
        }
    }
}

impl fmt::Display for OperationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OperationKind {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Deploy, Self::Snapshot].into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// A piece of work's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationRecord {
    /// The request that asked for it.
    pub id: RequestId,
    /// Whose it is.
    pub team: TeamId,
    /// What kind.
    pub kind: OperationKind,
    /// A deploy's function.
    pub function: Option<String>,
    /// The sandbox it works on.
    pub sandbox: SandboxId,
    /// How far it is.
    pub step: String,
    /// When it began.
    pub created_at: Timestamp,
}

impl Store {
    /// Notes that work begins.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] if the same function is being deployed; [`StoreError::Query`].
    pub async fn begin_operation(&self, operation: &OperationRecord) -> Result<(), StoreError> {
        let done = sqlx::query(
            "INSERT INTO operations (id, team_id, kind, function_name, sandbox_id, step, \
             created_at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(operation.id.to_string())
        .bind(operation.team.to_string())
        .bind(operation.kind.as_str())
        .bind(operation.function.clone())
        .bind(operation.sandbox.to_string())
        .bind(&operation.step)
        .bind(operation.created_at.as_millisecond())
        .execute(&self.pool)
        .await;
        match (done, &operation.function) {
            (Ok(_), _) => Ok(()),
            (Err(sqlx::Error::Database(error)), Some(name)) if error.is_unique_violation() => {
                Err(StoreError::Busy { name: name.clone() })
            }
            (Err(source), _) => Err(StoreError::Query { action: "note an operation", source }),
        }
    }

    /// Notes how far the work is.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn operation_step(&self, id: RequestId, step: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE operations SET step = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(step)
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("note a step"))?;
        Ok(())
    }

    /// Forgets work that ended and left nothing behind.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn end_operation(&self, id: RequestId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM operations WHERE id = $1")
            .bind(id.to_string())
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("forget an operation"))?;
        Ok(())
    }

    /// All work under way, of any team, oldest first. For the clean-up at start.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn operations(&self) -> Result<Vec<OperationRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM operations ORDER BY created_at_ms, id")
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::query("list the operations"))?;
        rows.iter().map(read).collect()
    }
}

fn read(row: &SqliteRow) -> Result<OperationRecord, StoreError> {
    let row = Typed(row);
    Ok(OperationRecord {
        id: row.parse("id")?,
        team: row.parse("team_id")?,
        kind: row.parse("kind")?,
        function: row.optional_text("function_name")?,
        sandbox: row.parse("sandbox_id")?,
        step: row.text("step")?,
        created_at: row.time("created_at_ms")?,
    })
}
