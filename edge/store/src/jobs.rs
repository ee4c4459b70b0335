//! Invocations that nobody waits for: submitting one, looking them up, retrying, removing.
//!
//! How they are run is in `jobs/claim.rs`, what the clock made in `jobs/fires.rs`, what is to be
//! posted in `jobs/posts.rs`, how many wait in `jobs/waiting.rs`.

mod claim;
mod fires;
mod posts;
mod record;
mod waiting;

use jiff::Timestamp;
use pool_model::{FunctionId, TeamId};
use sqlx::SqliteConnection;

pub use claim::{Answer, End};
pub use fires::{CronFire, CronOwner};
pub use record::{
    BadInvocationId, InvocationBody, InvocationId, InvocationRecord, InvocationSource,
    InvocationState, NewInvocation, WebhookState,
};

use crate::{
    Store, StoreError,
    row::{Typed, bigint},
};
use record::{COLUMNS, encode, headers_json, read};

/// A statement that has the columns of [`record::read`] in it.
fn statement(before: &str, after: &str) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(format!("{before} {COLUMNS} {after}"))
}

impl Store {
    /// Records an invocation; false if `pending_max` of its function wait already. What is recorded
    /// survives the process and the machine: this waits for the disk.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn submit_invocation(
        &self,
        new: &NewInvocation,
        pending_max: u32,
    ) -> Result<bool, StoreError> {
        // The other connections leave the write-ahead log to the kernel (see `Store::open`): enough
        // against a crash of the process, not against one of the machine.
        let mut connection =
            self.pool.acquire().await.map_err(StoreError::query("take a connection"))?;
        pragma(&mut connection, "PRAGMA synchronous = FULL").await?;
        let done = submit(&mut connection, new, pending_max).await;
        let back = pragma(&mut connection, "PRAGMA synchronous = NORMAL").await;
        let taken = done?;
        back.map(|()| taken)
    }

    /// A team's invocation.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn invocation(
        &self,
        team: TeamId,
        id: InvocationId,
    ) -> Result<Option<InvocationRecord>, StoreError> {
        let row =
            sqlx::query(statement("SELECT", "FROM invocations WHERE team_id = $1 AND id = $2"))
                .bind(team.to_string())
                .bind(id.to_string())
                .fetch_optional(&self.pool)
                .await
                .map_err(StoreError::query("look an invocation up"))?;
        row.map(|row| read(&row)).transpose()
    }

    /// The answer that an invocation has, if it has one.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn invocation_answer(
        &self,
        team: TeamId,
        id: InvocationId,
    ) -> Result<Option<InvocationBody>, StoreError> {
        let row = sqlx::query(
            "SELECT response_headers, response_body FROM invocations \
             WHERE team_id = $1 AND id = $2 AND response_headers IS NOT NULL",
        )
        .bind(team.to_string())
        .bind(id.to_string())
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::query("look an answer up"))?;
        row.map(|row| record::read_answer(&Typed(&row))).transpose()
    }

    /// A function's invocations, newest first: at most `limit`, those of one state, those older
    /// than `before`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn invocations(
        &self,
        function: FunctionId,
        state: Option<InvocationState>,
        before: Option<InvocationId>,
        limit: u32,
    ) -> Result<Vec<InvocationRecord>, StoreError> {
        // Every id begins with a letter before `~`.
        let before = before.map_or_else(|| "~".to_owned(), |id| id.to_string());
        let rows = sqlx::query(statement(
            "SELECT",
            "FROM invocations WHERE function_id = $1 AND id < $2 \
             AND ($3 = '' OR state = $3) ORDER BY id DESC LIMIT $4",
        ))
        .bind(function.to_string())
        .bind(before)
        .bind(state.map_or("", InvocationState::as_str))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::query("list the invocations"))?;
        rows.iter().map(read).collect()
    }

    /// Puts a team's dead letter back into the queue with all its attempts. `None` if it isn't
    /// there or isn't dead.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn retry_invocation(
        &self,
        team: TeamId,
        id: InvocationId,
        now: Timestamp,
    ) -> Result<Option<InvocationRecord>, StoreError> {
        let mut tx = self.write().await?;
        let row = sqlx::query(statement(
            "UPDATE invocations SET state = 'queued', attempts = 0, next_attempt_at_ms = $3, \
             lease_until_ms = NULL, error = NULL, webhook_state = NULL, webhook_attempts = 0, \
             webhook_next_at_ms = NULL, webhook_error = NULL, finished_at_ms = NULL, \
             expires_at_ms = NULL, updated_at_ms = $3 \
             WHERE team_id = $1 AND id = $2 AND state = 'dead' RETURNING",
            "",
        ))
        .bind(team.to_string())
        .bind(id.to_string())
        .bind(now.as_millisecond())
        .fetch_optional(&mut *tx)
        .await
        .map_err(StoreError::query("retry an invocation"))?;
        let record = row.map(|row| read(&row)).transpose()?;
        if let Some(record) = &record {
            waiting::one_again(&mut tx, record.function).await?;
        }
        tx.commit().await.map_err(StoreError::query("commit"))?;
        Ok(record)
    }

    /// Cancels a team's invocation if it waits. False if there is none that does.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn cancel_invocation(
        &self,
        team: TeamId,
        id: InvocationId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let rows = sqlx::query(
            "UPDATE invocations SET state = 'cancelled', error = 'cancelled', \
             finished_at_ms = $3, updated_at_ms = $3, expires_at_ms = $3 + result_ttl_ms \
             WHERE team_id = $1 AND id = $2 AND state = 'queued' \
             RETURNING function_id",
        )
        .bind(team.to_string())
        .bind(id.to_string())
        .bind(now.as_millisecond())
        .fetch_all(&mut *tx)
        .await
        .map_err(StoreError::query("cancel an invocation"))?;
        waiting::fewer(&mut tx, functions(&rows)?).await?;
        tx.commit().await.map_err(StoreError::query("commit"))?;
        Ok(!rows.is_empty())
    }

    /// Removes a team's invocation if it is finished. False if there is none that is.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn remove_invocation(
        &self,
        team: TeamId,
        id: InvocationId,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "DELETE FROM invocations WHERE team_id = $1 AND id = $2 \
             AND state IN ('succeeded', 'dead', 'cancelled')",
        )
        .bind(team.to_string())
        .bind(id.to_string())
        .execute(&self.pool)
        .await
        .map_err(StoreError::query("remove an invocation"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Forgets at most `limit` finished invocations whose time is over and whose result is not still
    /// to be posted; says how many. For the sweeper.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn expire_invocations(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM invocations WHERE id IN \
             (SELECT id FROM invocations WHERE expires_at_ms <= $1 \
             AND (webhook_state IS NULL OR webhook_state <> 'due') LIMIT $2)",
        )
        .bind(now.as_millisecond())
        .bind(i64::from(limit))
        .execute(&self.pool)
        .await
        .map_err(StoreError::query("forget old invocations"))?;
        Ok(done.rows_affected())
    }

    /// Cancels what waits for functions that were deleted; says how many. For the sweeper.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn cancel_orphans(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let rows = sqlx::query(
            "UPDATE invocations SET state = 'cancelled', error = 'its function was deleted', \
             finished_at_ms = $1, updated_at_ms = $1, expires_at_ms = $1 + result_ttl_ms \
             WHERE state = 'queued' AND NOT EXISTS \
             (SELECT 1 FROM functions WHERE functions.id = invocations.function_id) \
             RETURNING function_id",
        )
        .bind(now.as_millisecond())
        .fetch_all(&mut *tx)
        .await
        .map_err(StoreError::query("cancel what waits for deleted functions"))?;
        waiting::fewer(&mut tx, functions(&rows)?).await?;
        tx.commit().await.map_err(StoreError::query("commit"))?;
        Ok(rows.len() as u64)
    }
}

/// Whose the rows are.
fn functions(rows: &[sqlx::sqlite::SqliteRow]) -> Result<Vec<String>, StoreError> {
    rows.iter().map(|row| Typed(row).text("function_id")).collect()
}

async fn pragma(
    connection: &mut SqliteConnection,
    statement: &'static str,
) -> Result<(), StoreError> {
    let done = sqlx::query(statement).execute(connection).await;
    done.map(|_| ()).map_err(StoreError::query("set how writes reach the disk"))
}

async fn submit(
    connection: &mut SqliteConnection,
    new: &NewInvocation,
    pending_max: u32,
) -> Result<bool, StoreError> {
    use sqlx::Connection as _;
    let mut tx = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(StoreError::query("start a transaction"))?;
    let taken = insert(&mut tx, new, pending_max).await?;
    tx.commit().await.map_err(StoreError::query("commit"))?;
    Ok(taken)
}

/// Inserts within a transaction that writes, unless too many wait.
async fn insert(
    tx: &mut SqliteConnection,
    new: &NewInvocation,
    pending_max: u32,
) -> Result<bool, StoreError> {
    if !waiting::one_more(tx, new.function, pending_max).await? {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO invocations (id, team_id, function_id, function_name, tag, source, state, \
         method, path, headers, body, attempts_max, backoff_ms, result_ttl_ms, webhook, attempts, \
         claims, next_attempt_at_ms, truncated, webhook_attempts, created_at_ms, updated_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, 'queued', $7, $8, $9, $10, $11, $12, $13, $14, 0, 0, $15, \
         0, 0, $15, $15)",
    )
    .bind(new.id.to_string())
    .bind(new.team.to_string())
    .bind(new.function.to_string())
    .bind(&new.name)
    .bind(&new.tag)
    .bind(new.source.as_str())
    .bind(&new.method)
    .bind(&new.path)
    .bind(headers_json(&new.headers))
    .bind(encode(&new.body))
    .bind(i64::from(new.attempts_max))
    .bind(bigint(new.backoff_ms))
    .bind(bigint(new.result_ttl_ms))
    .bind(&new.webhook)
    .bind(new.at.as_millisecond())
    .execute(tx)
    .await
    .map_err(StoreError::query("record an invocation"))?;
    Ok(true)
}
