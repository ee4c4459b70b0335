//! Which results are to be posted to webhooks, and how that went.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    InvocationBody, InvocationId, InvocationRecord, WebhookState,
    claim::millis,
    record::{COLUMNS, read, read_answer},
};
use crate::{Store, StoreError, row::Typed};

impl Store {
    /// Takes at most `limit` results that are to be posted; each is due again after `lease` unless
    /// [`Store::end_post`] says otherwise. For webhooks: over all teams.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn claim_posts(
        &self,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<(InvocationRecord, InvocationBody)>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "UPDATE invocations SET webhook_attempts = webhook_attempts + 1, \
             webhook_next_at_ms = $2 \
             WHERE webhook_state = 'due' AND webhook_next_at_ms <= $1 AND id IN \
             (SELECT id FROM invocations WHERE webhook_state = 'due' AND webhook_next_at_ms <= $1 \
             ORDER BY webhook_next_at_ms, id LIMIT $3) \
             RETURNING {COLUMNS}, COALESCE(response_headers, '[]') AS response_headers, \
             COALESCE(response_body, '') AS response_body"
        )))
        .bind(now.as_millisecond())
        .bind(now.as_millisecond().saturating_add(millis(lease)))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::query("take results to post"))?;
        rows.iter().map(|row| Ok((read(row)?, read_answer(&Typed(row))?))).collect()
    }

    /// When the next result is to be posted. For webhooks: over all teams.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn next_post_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let row = sqlx::query(
            "SELECT MIN(webhook_next_at_ms) AS at FROM invocations WHERE webhook_state = 'due'",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(StoreError::query("find what is to be posted next"))?;
        Typed(&row).optional_time("at")
    }

    /// Notes how posting a result went; `Due` with the time of the next try.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn end_post(
        &self,
        id: InvocationId,
        attempt: u32,
        state: WebhookState,
        next: Option<Timestamp>,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE invocations SET webhook_state = $3, webhook_next_at_ms = $4, \
             webhook_error = $5 WHERE id = $1 AND webhook_state = 'due' AND webhook_attempts = $2",
        )
        .bind(id.to_string())
        .bind(i64::from(attempt))
        .bind(state.as_str())
        .bind(next.map(|at| at.as_millisecond()))
        .bind(error)
        .execute(&self.pool)
        .await
        .map_err(StoreError::query("note how a post went"))?;
        Ok(())
    }
}
