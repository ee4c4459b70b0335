//! What the clock made: which minute of which schedule was the last.

use jiff::Timestamp;
use pool_model::{FunctionId, InvocationPolicy, TeamId};

use super::{NewInvocation, insert};
use crate::{Store, StoreError, row::Typed};

/// A function that has requests made by the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronOwner {
    /// The function.
    pub function: FunctionId,
    /// Whose it is.
    pub team: TeamId,
    /// Its name.
    pub name: String,
    /// How it may be invoked.
    pub policy: InvocationPolicy,
}

/// What is known of one schedule's past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CronFire {
    /// The function.
    pub function: FunctionId,
    /// The entry's name.
    pub name: String,
    /// The schedule and time zone that the times are of.
    pub schedule: String,
    /// When the clock first saw it.
    pub since: Timestamp,
    /// The last minute it fired for.
    pub last_fired: Option<Timestamp>,
}

impl Store {
    /// Every function with requests made by the clock. One whose policy can't be read is left out:
    /// it must not stop the others' clocks. For the clock: over all teams.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn cron_owners(&self) -> Result<Vec<CronOwner>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, team_id, name, invocation_policy FROM functions \
             WHERE invocation_policy IS NOT NULL ORDER BY id",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::query("find the schedules"))?;
        let mut owners = Vec::new();
        for row in &rows {
            let row = Typed(row);
            let json = row.text("invocation_policy")?;
            let Ok(policy) = serde_json::from_str::<InvocationPolicy>(&json) else { continue };
            if !policy.cron.is_empty() {
                let (function, team) = (row.parse("id")?, row.parse("team_id")?);
                owners.push(CronOwner { function, team, name: row.text("name")?, policy });
            }
        }
        Ok(owners)
    }

    /// The past of one function's schedules, or of all.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn cron_fires(
        &self,
        function: Option<FunctionId>,
    ) -> Result<Vec<CronFire>, StoreError> {
        let rows = sqlx::query("SELECT * FROM cron_fires WHERE $1 = '' OR function_id = $1")
            .bind(function.map(|id| id.to_string()).unwrap_or_default())
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::query("read what the clock did"))?;
        let read = |row| {
            let row = Typed(row);
            Ok(CronFire {
                function: row.parse("function_id")?,
                name: row.text("name")?,
                schedule: row.text("schedule")?,
                since: row.time("since_ms")?,
                last_fired: row.optional_time("last_fired_ms")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Notes that the clock sees a schedule for the first time. What is known of another schedule
    /// of the same name is forgotten; of the same one, it stays. Nothing happens if the function is
    /// gone.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn saw_schedule(
        &self,
        function: FunctionId,
        name: &str,
        schedule: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO cron_fires (function_id, name, schedule, since_ms) \
             SELECT id, $2, $3, $4 FROM functions WHERE id = $1 \
             ON CONFLICT (function_id, name) DO UPDATE SET schedule = excluded.schedule, \
             since_ms = excluded.since_ms, last_fired_ms = NULL \
             WHERE cron_fires.schedule <> excluded.schedule",
        )
        .bind(function.to_string())
        .bind(name)
        .bind(schedule)
        .bind(now.as_millisecond())
        .execute(&self.pool)
        .await
        .map_err(StoreError::query("note a schedule"))?;
        Ok(())
    }

    /// Makes the invocation of one minute of a schedule. `None` if it was made before, by whomever,
    /// or if the schedule is another by now; `Some(false)` if as many wait as may: that minute is
    /// lost then.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn fire(
        &self,
        fire: &CronFire,
        minute: Timestamp,
        new: &NewInvocation,
        pending_max: u32,
    ) -> Result<Option<bool>, StoreError> {
        let mut tx = self.write().await?;
        let newer = sqlx::query(
            "UPDATE cron_fires SET last_fired_ms = $4 WHERE function_id = $1 AND name = $2 \
             AND schedule = $3 AND (last_fired_ms IS NULL OR last_fired_ms < $4)",
        )
        .bind(fire.function.to_string())
        .bind(&fire.name)
        .bind(&fire.schedule)
        .bind(minute.as_millisecond())
        .execute(&mut *tx)
        .await
        .map_err(StoreError::query("note what the clock did"))?;
        if newer.rows_affected() == 0 {
            return Ok(None);
        }
        let taken = insert(&mut tx, new, pending_max).await?;
        tx.commit().await.map_err(StoreError::query("commit"))?;
        Ok(Some(taken))
    }

    /// Forgets a schedule that its function has no more.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn forget_schedule(
        &self,
        function: FunctionId,
        name: &str,
    ) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM cron_fires WHERE function_id = $1 AND name = $2")
            .bind(function.to_string())
            .bind(name)
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("forget a schedule"))?;
        Ok(())
    }
}
