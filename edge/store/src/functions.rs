//! Functions and how a new version replaces an old one.

use jiff::Timestamp;
use pool_model::{FunctionId, PoolPolicy, Port, SnapshotId, TeamId, TemplateId};
use sqlx::{Row, sqlite::SqliteRow};

use crate::{
    SnapshotRecord, Store, StoreError,
    row::{Typed, bigint},
    snapshots,
};

/// A function's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionRecord {
    /// Its id, the same over all versions.
    pub id: FunctionId,
    /// Whose it is.
    pub team: TeamId,
    /// Its name, unique over all teams.
    pub name: String,
    /// 1 for the first.
    pub version: u32,
    /// The template it was built in.
    pub template: TemplateId,
    /// What its sandboxes are restored from.
    pub snapshot: SnapshotId,
    /// Where its server listens.
    pub port: Port,
    /// What started the server.
    pub start: String,
    /// What was asked until it answered.
    pub ready_path: String,
    /// Longest time of one invocation, milliseconds.
    pub timeout_ms: u64,
    /// Whether invocations may reach the internet.
    pub internet: bool,
    /// What its pool aims for.
    pub policy: PoolPolicy,
    /// When it was first deployed.
    pub created_at: Timestamp,
    /// When this version was.
    pub updated_at: Timestamp,
}

/// A version that is ready to be published.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// The id if the name is new.
    pub id: FunctionId,
    /// Whose it is.
    pub team: TeamId,
    /// Its name.
    pub name: String,
    /// The template it was built in.
    pub template: TemplateId,
    /// Its snapshot, recorded in the same transaction.
    pub snapshot: SnapshotRecord,
    /// Where its server listens.
    pub port: Port,
    /// What started the server.
    pub start: String,
    /// What was asked until it answered.
    pub ready_path: String,
    /// Longest time of one invocation, milliseconds.
    pub timeout_ms: u64,
    /// Whether invocations may reach the internet.
    pub internet: bool,
    /// What its pool aims for.
    pub policy: PoolPolicy,
    /// Now.
    pub at: Timestamp,
}

/// What publishing did.
#[derive(Debug, Clone)]
pub struct Published {
    /// The function as it is now.
    pub function: FunctionRecord,
    /// The snapshot that it pointed to before: to be deleted once its pool is off it.
    pub replaced: Option<SnapshotId>,
}

impl Store {
    /// Makes a function or gives it a new version, in one step.
    ///
    /// # Errors
    ///
    /// [`StoreError::NameTaken`] if another team has the name; [`StoreError::Query`];
    /// [`StoreError::Corrupt`] and [`StoreError::DamagedPolicy`] of the version before.
    pub async fn publish(&self, new: &NewVersion) -> Result<Published, StoreError> {
        let mut tx = self.write().await?;
        let old = sqlx::query("SELECT * FROM functions WHERE name = $1")
            .bind(&new.name)
            .fetch_optional(&mut *tx)
            .await
            .map_err(StoreError::query("look a function up"))?;
        let old = old.map(|row| read(&row)).transpose()?;
        if old.as_ref().is_some_and(|old| old.team != new.team) {
            return Err(StoreError::NameTaken { name: new.name.clone() });
        }
        snapshots::insert(&mut *tx, &new.snapshot).await?;
        let function = FunctionRecord {
            id: old.as_ref().map_or(new.id, |old| old.id),
            team: new.team,
            name: new.name.clone(),
            version: old.as_ref().map_or(1, |old| old.version.saturating_add(1)),
            template: new.template,
            snapshot: new.snapshot.id,
            port: new.port,
            start: new.start.clone(),
            ready_path: new.ready_path.clone(),
            timeout_ms: new.timeout_ms,
            internet: new.internet,
            policy: new.policy.clone(),
            created_at: old.as_ref().map_or(new.at, |old| old.created_at),
            updated_at: new.at,
        };
        upsert(&mut tx, &function).await?;
        tx.commit().await.map_err(StoreError::query("commit"))?;
        let replaced = old.map(|old| old.snapshot).filter(|old| *old != function.snapshot);
        Ok(Published { function, replaced })
    }

    /// Looks a team's function up.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`], [`StoreError::DamagedPolicy`].
    pub async fn function(
        &self,
        team: TeamId,
        name: &str,
    ) -> Result<Option<FunctionRecord>, StoreError> {
        let row = sqlx::query("SELECT * FROM functions WHERE team_id = $1 AND name = $2")
            .bind(team.to_string())
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::query("look a function up"))?;
        row.map(|row| read(&row)).transpose()
    }

    /// Looks any team's function up. For the router: host names are not scoped by team.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`], [`StoreError::DamagedPolicy`].
    pub async fn function_by_name(&self, name: &str) -> Result<Option<FunctionRecord>, StoreError> {
        let row = sqlx::query("SELECT * FROM functions WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::query("look a function up"))?;
        row.map(|row| read(&row)).transpose()
    }

    /// A team's functions, oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`], [`StoreError::DamagedPolicy`].
    pub async fn functions(&self, team: TeamId) -> Result<Vec<FunctionRecord>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM functions WHERE team_id = $1 ORDER BY created_at_ms, id")
                .bind(team.to_string())
                .fetch_all(&self.pool)
                .await
                .map_err(StoreError::query("list the functions"))?;
        rows.iter().map(read).collect()
    }

    /// Every team's functions. For the reconciler.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`], [`StoreError::DamagedPolicy`].
    pub async fn all_functions(&self) -> Result<Vec<FunctionRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM functions ORDER BY created_at_ms, id")
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::query("list the functions"))?;
        rows.iter().map(read).collect()
    }

    /// Sets what a team's pool aims for. `None` if there is no such function.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`], [`StoreError::DamagedPolicy`].
    pub async fn set_policy(
        &self,
        team: TeamId,
        name: &str,
        policy: &PoolPolicy,
    ) -> Result<Option<FunctionRecord>, StoreError> {
        let row = sqlx::query(
            "UPDATE functions SET min_warm = $3, max_warm = $4, idle_ttl_ms = $5, \
             pool_policy = $6 WHERE team_id = $1 AND name = $2 RETURNING *",
        )
        .bind(team.to_string())
        .bind(name)
        .bind(i64::from(policy.min_warm))
        .bind(i64::from(policy.max_warm))
        .bind(bigint(policy.idle_ttl_ms))
        .bind(policy_json(policy))
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::query("set a pool's policy"))?;
        row.map(|row| read(&row)).transpose()
    }

    /// Forgets a team's function and says what it was. One that can't be read is forgotten too.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`], [`StoreError::DamagedPolicy`].
    pub async fn remove_function(
        &self,
        team: TeamId,
        name: &str,
    ) -> Result<Option<FunctionRecord>, StoreError> {
        let row = sqlx::query("DELETE FROM functions WHERE team_id = $1 AND name = $2 RETURNING *")
            .bind(team.to_string())
            .bind(name)
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::query("forget a function"))?;
        row.map(|row| read(&row)).transpose()
    }

    /// Counts functions, capsules and snapshots, for the metrics.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn counts(&self) -> Result<[(&'static str, i64); 3], StoreError> {
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM functions) AS functions, \
             (SELECT COUNT(*) FROM capsules) AS capsules, \
             (SELECT COUNT(*) FROM snapshots) AS snapshots",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(StoreError::query("count"))?;
        let count = |column| row.try_get(column).map_err(StoreError::query("count"));
        Ok([
            ("functions", count("functions")?),
            ("capsules", count("capsules")?),
            ("snapshots", count("snapshots")?),
        ])
    }
}

async fn upsert(
    connection: &mut sqlx::SqliteConnection,
    function: &FunctionRecord,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO functions (id, team_id, name, version, template_id, snapshot_id, port, \
         start_command, ready_path, timeout_ms, internet, min_warm, max_warm, idle_ttl_ms, \
         pool_policy, created_at_ms, updated_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) \
         ON CONFLICT (id) DO UPDATE SET version = excluded.version, \
         template_id = excluded.template_id, snapshot_id = excluded.snapshot_id, \
         port = excluded.port, start_command = excluded.start_command, \
         ready_path = excluded.ready_path, timeout_ms = excluded.timeout_ms, \
         internet = excluded.internet, min_warm = excluded.min_warm, \
         max_warm = excluded.max_warm, idle_ttl_ms = excluded.idle_ttl_ms, \
         pool_policy = excluded.pool_policy, \
         updated_at_ms = excluded.updated_at_ms",
    )
    .bind(function.id.to_string())
    .bind(function.team.to_string())
    .bind(&function.name)
    .bind(i64::from(function.version))
    .bind(function.template.to_string())
    .bind(function.snapshot.to_string())
    .bind(i64::from(function.port.get()))
    .bind(&function.start)
    .bind(&function.ready_path)
    .bind(bigint(function.timeout_ms))
    .bind(i64::from(function.internet))
    .bind(i64::from(function.policy.min_warm))
    .bind(i64::from(function.policy.max_warm))
    .bind(bigint(function.policy.idle_ttl_ms))
    .bind(policy_json(&function.policy))
    .bind(function.created_at.as_millisecond())
    .bind(function.updated_at.as_millisecond())
    .execute(connection)
    .await
    .map_err(StoreError::query("record a function"))?;
    Ok(())
}

/// The column `pool_policy`. Written together with the three columns that it will replace.
fn policy_json(policy: &PoolPolicy) -> String {
    serde_json::to_string(policy).expect("numbers, words and lists of them are JSON")
}

/// What a pool aims for: from the JSON, or from the columns before it if the row is older than it.
fn read_policy(row: &Typed<'_>) -> Result<PoolPolicy, StoreError> {
    let Some(json) = row.optional_text("pool_policy")? else {
        return Ok(PoolPolicy {
            min_warm: row.number("min_warm")?,
            max_warm: row.number("max_warm")?,
            idle_ttl_ms: row.number("idle_ttl_ms")?,
            ..PoolPolicy::default()
        });
    };
    let function = row.text("name")?;
    serde_json::from_str(&json).map_err(|source| StoreError::DamagedPolicy { function, source })
}

fn read(row: &SqliteRow) -> Result<FunctionRecord, StoreError> {
    let row = Typed(row);
    let port: u16 = row.number("port")?;
    Ok(FunctionRecord {
        id: row.parse("id")?,
        team: row.parse("team_id")?,
        name: row.text("name")?,
        version: row.number("version")?,
        template: row.parse("template_id")?,
        snapshot: row.parse("snapshot_id")?,
        port: Port::try_from(port)
            .map_err(|_| StoreError::Corrupt { column: "port", found: port.to_string() })?,
        start: row.text("start_command")?,
        ready_path: row.text("ready_path")?,
        timeout_ms: row.number("timeout_ms")?,
        internet: row.flag("internet")?,
        policy: read_policy(&row)?,
        created_at: row.time("created_at_ms")?,
        updated_at: row.time("updated_at_ms")?,
    })
}
