//! A database of its own for each test, and what is published into it.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "fixtures may fail loudly")]

use edge_store::{ApiKey, NewVersion, SnapshotKind, SnapshotRecord, Store};
use jiff::Timestamp;
use pool_model::{FunctionId, InvocationPolicy, PoolPolicy, Port, SnapshotId, TeamId, TemplateId};
use sqlx::{SqlitePool, sqlite::SqliteConnectOptions};

/// A database with the teams 1 and 2.
pub(crate) struct TestDb {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
}

impl TestDb {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("wrenn.db")).await.unwrap();
        for n in [1, 2] {
            let (key, at) = (ApiKey::generate(), Timestamp::UNIX_EPOCH);
            store.create_team(TeamId::from_u128(n), "test", &key, at).await.unwrap();
        }
        Self { dir, store }
    }

    pub(crate) async fn reopen(&self) -> Store {
        self.store.close().await;
        Store::open(&self.dir.path().join("wrenn.db")).await.unwrap()
    }

    /// The database as it is, without the store before it.
    pub(crate) async fn raw(&self) -> SqlitePool {
        let options = SqliteConnectOptions::new().filename(self.dir.path().join("wrenn.db"));
        SqlitePool::connect_with(options).await.unwrap()
    }

    /// Changes one row behind the store's back.
    pub(crate) async fn run(&self, statement: &str) {
        let raw = self.raw().await;
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        assert_eq!(sqlx::query(statement).execute(&raw).await.unwrap().rows_affected(), 1);
        raw.close().await;
    }
}

/// A version of a function; it, its snapshot and what is spare have ids made of `number`.
pub(crate) fn version(team: TeamId, name: &str, number: u128, at: Timestamp) -> NewVersion {
    NewVersion {
        id: FunctionId::from_u128(number),
        team,
        name: name.to_owned(),
        template: TemplateId::DEFAULT,
        snapshot: SnapshotRecord {
            id: SnapshotId::from_u128(number),
            team,
            kind: SnapshotKind::Function,
            name: None,
            sandbox: None,
            template: TemplateId::DEFAULT,
            memory_bytes: 256 << 20,
            stored_bytes: 1 << 20,
            created_at: at,
        },
        port: Port::try_from(8080).unwrap(),
        start: "./run".to_owned(),
        ready_path: "/".to_owned(),
        timeout_ms: 30_000,
        internet: true,
        policy: PoolPolicy::default(),
        invocation: InvocationPolicy::default(),
        tag: None,
        promote: true,
        spare: FunctionId::from_u128(number + 1000),
        at,
    }
}
