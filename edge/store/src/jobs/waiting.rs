//! How many invocations of a function wait, without counting them?
//!
//! A number per function, changed in the transaction that changes whether an invocation waits. An
//! edge of an older version beside this one does not keep it, so that it is set right now and then.

use std::collections::BTreeMap;

use pool_model::FunctionId;
use sqlx::SqliteConnection;

use crate::{Store, StoreError};

impl Store {
    /// Counts what waits and sets the numbers right; says how many were not. For the sweeper.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn recount_waiting(&self) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let none = sqlx::query(
            "UPDATE invocations_waiting SET waiting = 0 WHERE waiting <> 0 AND NOT EXISTS \
             (SELECT 1 FROM invocations \
             WHERE function_id = invocations_waiting.function_id AND state = 'queued')",
        )
        .execute(&mut *tx)
        .await
        .map_err(StoreError::query("find who has nothing that waits"))?;
        sqlx::query("DELETE FROM invocations_waiting WHERE waiting = 0")
            .execute(&mut *tx)
            .await
            .map_err(StoreError::query("forget who has nothing that waits"))?;
        // `WHERE true` tells SQLite that ON is not of a join.
        let wrong = sqlx::query(
            "INSERT INTO invocations_waiting (function_id, waiting) \
             SELECT function_id, n FROM (SELECT function_id, COUNT(*) AS n FROM invocations \
             WHERE state = 'queued' GROUP BY function_id) AS counted WHERE true \
             ON CONFLICT (function_id) DO UPDATE SET waiting = excluded.waiting \
             WHERE invocations_waiting.waiting <> excluded.waiting",
        )
        .execute(&mut *tx)
        .await
        .map_err(StoreError::query("recount what waits"))?;
        tx.commit().await.map_err(StoreError::query("commit"))?;
        Ok(none.rows_affected() + wrong.rows_affected())
    }
}

/// Counts one more that waits; false if `max` do already.
pub(super) async fn one_more(
    tx: &mut SqliteConnection,
    function: FunctionId,
    max: u32,
) -> Result<bool, StoreError> {
    if max == 0 {
        return Ok(false);
    }
    let done = sqlx::query(
        "INSERT INTO invocations_waiting (function_id, waiting) VALUES ($1, 1) \
         ON CONFLICT (function_id) DO UPDATE SET waiting = invocations_waiting.waiting + 1 \
         WHERE invocations_waiting.waiting < $2",
    )
    .bind(function.to_string())
    .bind(i64::from(max))
    .execute(tx)
    .await
    .map_err(StoreError::query("count what waits"))?;
    Ok(done.rows_affected() > 0)
}

/// Counts one more that waits again: it was taken before, whatever waits by now.
pub(super) async fn one_again(
    tx: &mut SqliteConnection,
    function: FunctionId,
) -> Result<(), StoreError> {
    one_more(tx, function, u32::MAX).await.map(drop)
}

/// These wait no longer.
pub(super) async fn fewer(
    tx: &mut SqliteConnection,
    functions: impl IntoIterator<Item = String>,
) -> Result<(), StoreError> {
    let mut counts = BTreeMap::<String, i64>::new();
    for function in functions {
        *counts.entry(function).or_default() += 1;
    }
    for (function, count) in counts {
        sqlx::query(
            "UPDATE invocations_waiting \
             SET waiting = CASE WHEN waiting > $2 THEN waiting - $2 ELSE 0 END \
             WHERE function_id = $1",
        )
        .bind(function)
        .bind(count)
        .execute(&mut *tx)
        .await
        .map_err(StoreError::query("count what waits no longer"))?;
    }
    Ok(())
}
