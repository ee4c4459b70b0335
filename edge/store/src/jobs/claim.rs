//! Who runs which invocation: claims, leases and how an attempt ends.
//!
//! What is claimed changes its state in the statement that finds it, so two runners never have the
//! same row. Whoever has claimed one holds it by its number of claims: what is written with an old
//! number changes nothing.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    InvocationBody, InvocationRecord, functions, headers_json,
    record::{COLUMNS, encode, read, read_request},
    waiting,
};
use crate::{Store, StoreError, row::Typed};

/// An answer to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its header fields.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its body, or the beginning of it.
    pub body: Vec<u8>,
    /// Whether it is the beginning only.
    pub truncated: bool,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With what is final.
    Succeeded,
    /// Badly, and it was the last.
    Dead,
    /// Badly; the next one is due then.
    Again(Timestamp),
    /// It was broken off by whoever ran it and does not count.
    GivenBack,
}

impl Store {
    /// Claims at most `limit` invocations, those whose runner was lost and then those that are due,
    /// the longest due first, each until `now + lease`. One whose runner was lost in its last
    /// attempt becomes a dead letter, and so does one that cannot be read. For runners: over all
    /// teams.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`]: then nothing is claimed.
    pub async fn claim_invocations(
        &self,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<(InvocationRecord, InvocationBody)>, StoreError> {
        let until = now.as_millisecond().saturating_add(millis(lease));
        let mut tx = self.write().await?;
        sqlx::query(
            "UPDATE invocations SET state = 'dead', lease_until_ms = NULL, \
             error = 'whoever ran it was lost', finished_at_ms = $1, updated_at_ms = $1, \
             expires_at_ms = $1 + result_ttl_ms, \
             webhook_state = CASE WHEN webhook IS NULL THEN NULL ELSE 'due' END, \
             webhook_next_at_ms = $1 \
             WHERE state = 'running' AND lease_until_ms <= $1 AND attempts >= attempts_max",
        )
        .bind(now.as_millisecond())
        .execute(&mut *tx)
        .await
        .map_err(StoreError::query("bury invocations"))?;
        // Those of lost runners first: they were due before, and are no more than ran at once.
        let mut rows = take(&mut tx, "running", "lease_until_ms", (now, until), limit).await?;
        let left = limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        let due = take(&mut tx, "queued", "next_attempt_at_ms", (now, until), left).await?;
        waiting::fewer(&mut tx, functions(&due)?).await?;
        rows.extend(due);
        let mut claimed = Vec::with_capacity(rows.len());
        for row in &rows {
            match read(row).and_then(|record| Ok((record, read_request(&Typed(row))?))) {
                Ok(invocation) => claimed.push(invocation),
                Err(error) => bury(&mut tx, row, &error, now).await?,
            }
        }
        tx.commit().await.map_err(StoreError::query("commit"))?;
        claimed.sort_by_key(|(record, _)| (record.next_attempt_at, record.id));
        Ok(claimed)
    }

    /// When the next invocation is due, or the next lease over. For runners: over all teams.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn next_invocation_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let row = sqlx::query(
            "SELECT MIN(at) AS at FROM \
             (SELECT MIN(next_attempt_at_ms) AS at FROM invocations WHERE state = 'queued' \
             UNION ALL \
             SELECT MIN(lease_until_ms) AS at FROM invocations WHERE state = 'running') AS due",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(StoreError::query("find what is due next"))?;
        Typed(&row).optional_time("at")
    }

    /// Holds a claim until then. False if it is lost.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn renew_claim(
        &self,
        claim: &InvocationRecord,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE invocations SET lease_until_ms = $3 \
             WHERE id = $1 AND claims = $2 AND state = 'running'",
        )
        .bind(claim.id.to_string())
        .bind(crate::row::bigint(claim.claims))
        .bind(until.as_millisecond())
        .execute(&self.pool)
        .await
        .map_err(StoreError::query("renew a claim"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Ends an attempt with the answer it had or why it had none; the answer of an attempt before it
    /// stays then. False if the claim was lost: nothing is written then.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn end_attempt(
        &self,
        claim: &InvocationRecord,
        end: End,
        answer: Option<&Answer>,
        error: Option<&str>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (state, next) = match end {
            End::Succeeded => ("succeeded", None),
            End::Dead => ("dead", None),
            End::Again(at) => ("queued", Some(at.as_millisecond())),
            End::GivenBack => ("queued", Some(now.as_millisecond())),
        };
        let finished = next.is_none().then(|| now.as_millisecond());
        let post = finished.filter(|_| claim.webhook.is_some());
        let expires = finished.map(|at| at.saturating_add(crate::row::bigint(claim.result_ttl_ms)));
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "UPDATE invocations SET state = $3, lease_until_ms = NULL, \
             attempts = attempts - $4, next_attempt_at_ms = COALESCE($5, next_attempt_at_ms), \
             status = COALESCE($6, status), \
             response_headers = COALESCE($7, response_headers), \
             response_body = COALESCE($8, response_body), \
             truncated = COALESCE($9, truncated), error = $10, \
             webhook_state = $11, webhook_attempts = 0, webhook_next_at_ms = $12, \
             finished_at_ms = $13, expires_at_ms = $14, updated_at_ms = $15 \
             WHERE id = $1 AND claims = $2 AND state = 'running'",
        )
        .bind(claim.id.to_string())
        .bind(crate::row::bigint(claim.claims))
        .bind(state)
        .bind(i64::from(end == End::GivenBack))
        .bind(next)
        .bind(answer.map(|answer| i64::from(answer.status)))
        .bind(answer.map(|answer| headers_json(&answer.headers)))
        .bind(answer.map(|answer| encode(&answer.body)))
        .bind(answer.map(|answer| i64::from(answer.truncated)))
        .bind(error)
        .bind(post.map(|_| "due"))
        .bind(post)
        .bind(finished)
        .bind(expires)
        .bind(now.as_millisecond())
        .execute(&mut *tx)
        .await
        .map_err(StoreError::query("end an attempt"))?;
        let held = done.rows_affected() > 0;
        if held && next.is_some() {
            waiting::one_again(&mut tx, claim.function).await?;
        }
        tx.commit().await.map_err(StoreError::query("commit"))?;
        Ok(held)
    }
}

/// Claims at most `limit` rows in this `state`, the least `by` first if it is past.
async fn take(
    tx: &mut SqliteConnection,
    state: &str,
    by: &str,
    (now, until): (Timestamp, i64),
    limit: u32,
) -> Result<Vec<SqliteRow>, StoreError> {
    // The state stands outside too: another database than SQLite looks at it again when it has
    // waited for another writer. As an expression, or SQLite goes through all that is in this state
    // by its index instead of looking up the few ids.
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "UPDATE invocations SET state = 'running', attempts = attempts + 1, \
         claims = claims + 1, lease_until_ms = $2, started_at_ms = $1, updated_at_ms = $1 \
         WHERE COALESCE(state, '') = '{state}' AND id IN \
         (SELECT id FROM invocations WHERE state = '{state}' AND {by} <= $1 \
         ORDER BY {by}, id LIMIT $3) RETURNING {COLUMNS}, headers, body"
    )))
    .bind(now.as_millisecond())
    .bind(until)
    .bind(i64::from(limit))
    .fetch_all(tx)
    .await
    .map_err(StoreError::query("claim invocations"))
}

/// Makes a dead letter of what cannot be read: no attempt would fare better.
async fn bury(
    tx: &mut SqliteConnection,
    row: &SqliteRow,
    error: &StoreError,
    now: Timestamp,
) -> Result<(), StoreError> {
    let id = Typed(row).text("id")?;
    sqlx::query(
        "UPDATE invocations SET state = 'dead', lease_until_ms = NULL, error = $3, \
         finished_at_ms = $2, updated_at_ms = $2, expires_at_ms = $2 + result_ttl_ms \
         WHERE id = $1",
    )
    .bind(id)
    .bind(now.as_millisecond())
    .bind(format!("it cannot be read: {error}"))
    .execute(tx)
    .await
    .map_err(StoreError::query("bury an invocation"))?;
    Ok(())
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
