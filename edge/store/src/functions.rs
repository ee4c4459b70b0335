//! Functions: their records, each as its current version is.

use jiff::Timestamp;
use pool_model::{FunctionId, InvocationPolicy, PoolPolicy, Port, SnapshotId, TeamId, TemplateId};
use sqlx::{Row, sqlite::SqliteRow};

use crate::{
    Secret, Store, StoreError, VersionRecord,
    row::{Typed, bigint},
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
    /// The current version; 1 for the first.
    pub version: u32,
    /// The highest version ever made, current or not.
    pub version_max: u32,
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
    /// How it may be invoked.
    pub invocation: InvocationPolicy,
    /// What its URLs and webhooks are signed with, once something is.
    pub signing_secret: Option<Secret>,
    /// When it was first deployed.
    pub created_at: Timestamp,
    /// When this version was.
    pub updated_at: Timestamp,
}

impl FunctionRecord {
    /// The current version as one among the others.
    #[must_use]
    pub fn as_version(&self) -> VersionRecord {
        VersionRecord {
            version: self.version,
            pool: self.id,
            template: self.template,
            snapshot: self.snapshot,
            port: self.port,
            start: self.start.clone(),
            ready_path: self.ready_path.clone(),
            timeout_ms: self.timeout_ms,
            internet: self.internet,
            created_at: self.updated_at,
        }
    }

    /// Makes a version the current one.
    pub(crate) fn take(&mut self, version: &VersionRecord) {
        self.version = version.version;
        self.template = version.template;
        self.snapshot = version.snapshot;
        self.port = version.port;
        self.start.clone_from(&version.start);
        self.ready_path.clone_from(&version.ready_path);
        self.timeout_ms = version.timeout_ms;
        self.internet = version.internet;
        self.updated_at = version.created_at;
    }
}

impl Store {
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

    /// Sets how a team's function may be invoked. `None` if there is no such function.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`], [`StoreError::DamagedPolicy`].
    pub async fn set_invocation(
        &self,
        team: TeamId,
        name: &str,
        policy: &InvocationPolicy,
    ) -> Result<Option<FunctionRecord>, StoreError> {
        let row = sqlx::query(
            "UPDATE functions SET invocation_policy = $3 \
             WHERE team_id = $1 AND name = $2 RETURNING *",
        )
        .bind(team.to_string())
        .bind(name)
        .bind(invocation_json(policy))
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::query("set an invocation policy"))?;
        row.map(|row| read(&row)).transpose()
    }

    /// What a function's URLs and webhooks are signed with: what it has, or else a new one, which it
    /// keeps. `None` if there is no such function.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn signing_secret(&self, id: FunctionId) -> Result<Option<Secret>, StoreError> {
        let row = sqlx::query(
            "UPDATE functions SET signing_secret = COALESCE(signing_secret, $2) \
             WHERE id = $1 RETURNING signing_secret",
        )
        .bind(id.to_string())
        .bind(Secret::generate().expose().to_string())
        .fetch_optional(&self.pool)
        .await
        .map_err(StoreError::query("make a signing secret"))?;
        row.map(|row| Typed(&row).text("signing_secret").map(Secret::stored)).transpose()
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

pub(crate) async fn upsert(
    connection: &mut sqlx::SqliteConnection,
    function: &FunctionRecord,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO functions (id, team_id, name, version, template_id, snapshot_id, port, \
         start_command, ready_path, timeout_ms, internet, min_warm, max_warm, idle_ttl_ms, \
         pool_policy, created_at_ms, updated_at_ms, invocation_policy, version_max) VALUES ($1, \
         $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) \
         ON CONFLICT (id) DO UPDATE SET version = excluded.version, \
         template_id = excluded.template_id, snapshot_id = excluded.snapshot_id, \
         port = excluded.port, start_command = excluded.start_command, \
         ready_path = excluded.ready_path, timeout_ms = excluded.timeout_ms, \
         internet = excluded.internet, min_warm = excluded.min_warm, \
         max_warm = excluded.max_warm, idle_ttl_ms = excluded.idle_ttl_ms, \
         pool_policy = excluded.pool_policy, \
         updated_at_ms = excluded.updated_at_ms, \
         invocation_policy = excluded.invocation_policy, version_max = excluded.version_max",
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
    .bind(invocation_json(&function.invocation))
    .bind(i64::from(function.version_max))
    .execute(connection)
    .await
    .map_err(StoreError::query("record a function"))?;
    Ok(())
}

/// The column `pool_policy`. Written together with the three columns that it will replace.
fn policy_json(policy: &PoolPolicy) -> String {
    serde_json::to_string(policy).expect("numbers, words and lists of them are JSON")
}

/// The column `invocation_policy`; NULL for what is nothing but defaults.
fn invocation_json(policy: &InvocationPolicy) -> Option<String> {
    let json = || serde_json::to_string(policy).expect("texts, numbers and lists of them are JSON");
    (*policy != InvocationPolicy::default()).then(json)
}

fn read_invocation(row: &Typed<'_>) -> Result<InvocationPolicy, StoreError> {
    let Some(json) = row.optional_text("invocation_policy")? else {
        return Ok(InvocationPolicy::default());
    };
    let function = row.text("name")?;
    serde_json::from_str(&json).map_err(|source| StoreError::DamagedInvocation { function, source })
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

pub(crate) fn read(row: &SqliteRow) -> Result<FunctionRecord, StoreError> {
    let row = Typed(row);
    let version: u32 = row.number("version")?;
    Ok(FunctionRecord {
        id: row.parse("id")?,
        team: row.parse("team_id")?,
        name: row.text("name")?,
        version,
        version_max: row.optional_number("version_max")?.unwrap_or(version).max(version),
        template: row.parse("template_id")?,
        snapshot: row.parse("snapshot_id")?,
        port: row.port("port")?,
        start: row.text("start_command")?,
        ready_path: row.text("ready_path")?,
        timeout_ms: row.number("timeout_ms")?,
        internet: row.flag("internet")?,
        policy: read_policy(&row)?,
        invocation: read_invocation(&row)?,
        signing_secret: row.optional_text("signing_secret")?.map(Secret::stored),
        created_at: row.time("created_at_ms")?,
        updated_at: row.time("updated_at_ms")?,
    })
}
