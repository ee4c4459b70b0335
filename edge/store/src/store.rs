//! Opens the database and holds the connections.

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use pool_model::{HostId, TeamId};
use sqlx::{
    Sqlite, SqlitePool, Transaction,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{ApiKey, StoreError, row::Typed};

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// Connections kept; SQLite has one writer at a time anyway.
const CONNECTIONS: u32 = 4;
/// Longest wait for the writer before.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The edge's records. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: SqlitePool,
}

impl Store {
    /// Opens the database, makes it if there is none and brings its tables up to date.
    ///
    /// # Errors
    ///
    /// [`StoreError::Open`] and [`StoreError::Migrate`].
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(BUSY_TIMEOUT * 2)
            .connect_with(options)
            .await
            .map_err(|source| StoreError::Open { path: path.display().to_string(), source })?;
        MIGRATIONS.run(&pool).await.map_err(StoreError::Migrate)?;
        Ok(Self { pool })
    }

    /// Undoes every migration. For tests and for going back to an older version.
    ///
    /// # Errors
    ///
    /// [`StoreError::Migrate`].
    pub async fn undo_migrations(&self) -> Result<(), StoreError> {
        MIGRATIONS.undo(&self.pool, 0).await.map_err(StoreError::Migrate)
    }

    /// Ends every connection once it is idle.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// The first team, if there is one: its absence means that this is the first start.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn first_team(&self) -> Result<Option<TeamId>, StoreError> {
        let row = sqlx::query("SELECT id FROM teams ORDER BY created_at_ms, id LIMIT 1")
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::query("read the teams"))?;
        row.map(|row| Typed(&row).parse("id")).transpose()
    }

    /// Makes a team with its first key.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn create_team(
        &self,
        id: TeamId,
        name: &str,
        key: &ApiKey,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sqlx::query("INSERT INTO teams (id, name, created_at_ms) VALUES ($1, $2, $3)")
            .bind(id.to_string())
            .bind(name)
            .bind(now.as_millisecond())
            .execute(&mut *tx)
            .await
            .map_err(StoreError::query("add a team"))?;
        sqlx::query("INSERT INTO api_keys (hash, team_id, created_at_ms) VALUES ($1, $2, $3)")
            .bind(key.hash())
            .bind(id.to_string())
            .bind(now.as_millisecond())
            .execute(&mut *tx)
            .await
            .map_err(StoreError::query("add an API key"))?;
        tx.commit().await.map_err(StoreError::query("commit"))
    }

    /// Whose key it is.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn team_of_key(&self, key: &ApiKey) -> Result<Option<TeamId>, StoreError> {
        let row = sqlx::query("SELECT team_id FROM api_keys WHERE hash = $1")
            .bind(key.hash())
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::query("look an API key up"))?;
        row.map(|row| Typed(&row).parse("team_id")).transpose()
    }

    /// Notes that a host was seen.
    ///
    /// # Errors
    ///
    /// [`StoreError::Query`].
    pub async fn saw_host(
        &self,
        id: HostId,
        rpc_url: &str,
        version: &str,
        vmm: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO hosts (id, rpc_url, version, vmm, seen_at_ms) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (id) DO UPDATE SET rpc_url = excluded.rpc_url, \
             version = excluded.version, vmm = excluded.vmm, seen_at_ms = excluded.seen_at_ms",
        )
        .bind(id.to_string())
        .bind(rpc_url)
        .bind(version)
        .bind(vmm)
        .bind(now.as_millisecond())
        .execute(&self.pool)
        .await
        .map_err(StoreError::query("note a host"))?;
        Ok(())
    }

    /// Starts a transaction that sees one state of everything.
    pub(crate) async fn read(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.pool.begin().await.map_err(StoreError::query("start a transaction"))
    }

    /// Starts a transaction that writes. `IMMEDIATE`: it waits for its turn at the start, where the
    /// busy timeout works, and not half-way, where SQLite can only fail.
    pub(crate) async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.pool
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(StoreError::query("start a transaction"))
    }
}
