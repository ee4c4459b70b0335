//! Reads and writes a function with its versions and tags, always in one transaction.

use std::collections::HashMap;

use pool_model::{FunctionId, TeamId};
use sqlx::{Sqlite, SqliteConnection, Transaction, sqlite::SqliteRow};

use crate::{
    Change, FunctionRecord, LiveFunction, Store, StoreError, TagRecord, VersionRecord,
    functions::{read, upsert},
    row::{Typed, bigint},
};

impl Store {
    /// A team's function with its versions and tags.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], and what [`Store::function`] says of a row that can't be read.
    pub async fn live_function(
        &self,
        team: TeamId,
        name: &str,
    ) -> Result<Option<LiveFunction>, StoreError> {
        let mut tx = self.read().await?;
        let found = by_name(&mut tx, name).await?;
        Ok(found.filter(|live| live.function.team == team))
    }

    /// Any team's function with its versions and tags. For the router: host names are not scoped by
    /// team.
    ///
    /// # Errors
    ///
    /// As [`Store::live_function`].
    pub async fn live_function_by_name(
        &self,
        name: &str,
    ) -> Result<Option<LiveFunction>, StoreError> {
        let mut tx = self.read().await?;
        by_name(&mut tx, name).await
    }

    /// The functions of a team, or every team's for the reconciler, with versions and tags, oldest
    /// first.
    ///
    /// # Errors
    ///
    /// As [`Store::live_function`].
    pub async fn live_functions(
        &self,
        team: Option<TeamId>,
    ) -> Result<Vec<LiveFunction>, StoreError> {
        let mut tx = self.read().await?;
        let of = "(SELECT id FROM functions WHERE $1 IS NULL OR team_id = $1)";
        let functions = rows(
            &mut tx,
            "SELECT * FROM functions WHERE $1 IS NULL OR team_id = $1 ORDER BY created_at_ms, id",
            team,
        )
        .await?;
        let versions = rows(
            &mut tx,
            &format!("SELECT * FROM function_versions WHERE function_id IN {of} ORDER BY version"),
            team,
        )
        .await?;
        let tags = rows(
            &mut tx,
            &format!("SELECT * FROM function_tags WHERE function_id IN {of} ORDER BY tag"),
            team,
        )
        .await?;
        let mut of_function: HashMap<FunctionId, (Vec<_>, Vec<_>)> = HashMap::new();
        for row in &versions {
            let id = Typed(row).parse("function_id")?;
            of_function.entry(id).or_default().0.push(read_version(row)?);
        }
        for row in &tags {
            let id = Typed(row).parse("function_id")?;
            of_function.entry(id).or_default().1.push(read_tag(row)?);
        }
        let whole = |row| {
            let function = read(row)?;
            let (versions, tags) = of_function.remove(&function.id).unwrap_or_default();
            Ok(assemble(function, versions, tags))
        };
        functions.iter().map(whole).collect()
    }

    /// Changes a team's function's versions, in one step. `None` if there is no such function.
    ///
    /// # Errors
    ///
    /// [`StoreError::Change`] if it can't be; else as [`Store::live_function`].
    pub async fn change_versions(
        &self,
        team: TeamId,
        name: &str,
        change: &Change,
    ) -> Result<Option<LiveFunction>, StoreError> {
        let mut tx = self.write().await?;
        let found = by_name(&mut tx, name).await?.filter(|live| live.function.team == team);
        let Some(before) = found else { return Ok(None) };
        let after = before.change(change)?;
        save(&mut tx, &after).await?;
        tx.commit().await.map_err(StoreError::query("commit"))?;
        Ok(Some(after))
    }

    /// The pools of a team's function, one of them its id; none if there is no such function. Says
    /// so of one that can't be read, too.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`], [`StoreError::Corrupt`].
    pub async fn pools_of(&self, team: TeamId, name: &str) -> Result<Vec<FunctionId>, StoreError> {
        let rows = sqlx::query(
            "SELECT id AS pool FROM functions WHERE team_id = $1 AND name = $2 UNION \
             SELECT v.pool_id AS pool FROM function_versions v \
             JOIN functions f ON f.id = v.function_id WHERE f.team_id = $1 AND f.name = $2",
        )
        .bind(team.to_string())
        .bind(name)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::query("list a function's pools"))?;
        rows.iter().map(|row| Typed(row).parse("pool")).collect()
    }
}

/// Looks a function up with all that belongs to it.
pub(crate) async fn by_name(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<LiveFunction>, StoreError> {
    let row = sqlx::query("SELECT * FROM functions WHERE name = $1")
        .bind(name)
        .fetch_optional(&mut *connection)
        .await
        .map_err(StoreError::query("look a function up"))?;
    let Some(row) = row else { return Ok(None) };
    let function = read(&row)?;
    let id = function.id.to_string();
    let versions =
        sqlx::query("SELECT * FROM function_versions WHERE function_id = $1 ORDER BY version")
            .bind(&id)
            .fetch_all(&mut *connection)
            .await
            .map_err(StoreError::query("list the versions"))?;
    let tags = sqlx::query("SELECT * FROM function_tags WHERE function_id = $1 ORDER BY tag")
        .bind(&id)
        .fetch_all(&mut *connection)
        .await
        .map_err(StoreError::query("list the tags"))?;
    let versions = versions.iter().map(read_version).collect::<Result<_, _>>()?;
    let tags = tags.iter().map(read_tag).collect::<Result<_, _>>()?;
    Ok(Some(assemble(function, versions, tags)))
}

async fn rows(
    tx: &mut Transaction<'static, Sqlite>,
    statement: &str,
    team: Option<TeamId>,
) -> Result<Vec<SqliteRow>, StoreError> {
    sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())) // put together of constants
        .bind(team.map(|team| team.to_string()))
        .fetch_all(&mut **tx)
        .await
        .map_err(StoreError::query("list the functions"))
}

/// Puts a function together. What is in `functions` wins: an edge of before the other tables may
/// have written it. A version whose pool that edge gave to a newer one is lost, and so are its tags.
fn assemble(
    function: FunctionRecord,
    mut versions: Vec<VersionRecord>,
    mut tags: Vec<TagRecord>,
) -> LiveFunction {
    versions.retain(|found| found.version != function.version && found.pool != function.id);
    versions.push(function.as_version());
    versions.sort_unstable_by_key(|found| found.version);
    tags.retain(|tag| versions.iter().any(|found| found.version == tag.version));
    LiveFunction { function, versions, tags }
}

/// Writes all of it over what is there.
pub(crate) async fn save(
    connection: &mut SqliteConnection,
    live: &LiveFunction,
) -> Result<(), StoreError> {
    upsert(connection, &live.function).await?;
    let id = live.function.id.to_string();
    for statement in [
        "DELETE FROM function_versions WHERE function_id = $1",
        "DELETE FROM function_tags WHERE function_id = $1",
    ] {
        sqlx::query(statement)
            .bind(&id)
            .execute(&mut *connection)
            .await
            .map_err(StoreError::query("replace the versions"))?;
    }
    for version in &live.versions {
        insert_version(connection, &id, version).await?;
    }
    for tag in &live.tags {
        sqlx::query(
            "INSERT INTO function_tags (function_id, tag, version, weight) VALUES ($1, $2, $3, $4)",
        )
        .bind(&id)
        .bind(&tag.tag)
        .bind(i64::from(tag.version))
        .bind(i64::from(tag.weight))
        .execute(&mut *connection)
        .await
        .map_err(StoreError::query("record a tag"))?;
    }
    Ok(())
}

async fn insert_version(
    connection: &mut SqliteConnection,
    function: &str,
    version: &VersionRecord,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO function_versions (function_id, version, pool_id, template_id, snapshot_id, \
         port, start_command, ready_path, timeout_ms, internet, created_at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(function)
    .bind(i64::from(version.version))
    .bind(version.pool.to_string())
    .bind(version.template.to_string())
    .bind(version.snapshot.to_string())
    .bind(i64::from(version.port.get()))
    .bind(&version.start)
    .bind(&version.ready_path)
    .bind(bigint(version.timeout_ms))
    .bind(i64::from(version.internet))
    .bind(version.created_at.as_millisecond())
    .execute(connection)
    .await
    .map_err(StoreError::query("record a version"))?;
    Ok(())
}

fn read_version(row: &SqliteRow) -> Result<VersionRecord, StoreError> {
    let row = Typed(row);
    Ok(VersionRecord {
        version: row.number("version")?,
        pool: row.parse("pool_id")?,
        template: row.parse("template_id")?,
        snapshot: row.parse("snapshot_id")?,
        port: row.port("port")?,
        start: row.text("start_command")?,
        ready_path: row.text("ready_path")?,
        timeout_ms: row.number("timeout_ms")?,
        internet: row.flag("internet")?,
        created_at: row.time("created_at_ms")?,
    })
}

fn read_tag(row: &SqliteRow) -> Result<TagRecord, StoreError> {
    let row = Typed(row);
    Ok(TagRecord {
        tag: row.text("tag")?,
        version: row.number("version")?,
        weight: row.number("weight")?,
    })
}
