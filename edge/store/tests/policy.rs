//! What a pool aims for, on disk: the JSON column, the columns before it, and the way between.

#![allow(clippy::unwrap_used, reason = "fixtures may fail loudly")]

mod support;

use std::error::Error;

use edge_store::{NewVersion, StoreError};
use jiff::Timestamp;
use pool_model::{PoolPolicy, Prefetch, Reuse, TeamId};
use sqlx::{Row, migrate::Migrator};
use support::TestDb;

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");
/// The migration before the JSON column.
const BEFORE: i64 = 20_261_122_000_000;
const TEAM: TeamId = TeamId::from_u128(1);

#[tokio::test]
async fn every_setting_survives_a_publish_a_change_and_a_restart() {
    let db = TestDb::new().await;
    db.store.publish(&version("hello", 1, all_set())).await.unwrap();
    let found = db.store.function(TEAM, "hello").await.unwrap().unwrap();
    assert_eq!(found.policy, all_set());

    let changed = PoolPolicy { burst: 0, schedule: Vec::new(), ..all_set() };
    let answered = db.store.set_policy(TEAM, "hello", &changed).await.unwrap().unwrap();
    assert_eq!(answered.policy, changed);
    let store = db.reopen().await;
    assert_eq!(store.all_functions().await.unwrap()[0].policy, changed);
    // A new version replaces what was changed.
    store.publish(&version("hello", 2, all_set())).await.unwrap();
    assert_eq!(store.function_by_name("hello").await.unwrap().unwrap().policy, all_set());
}

#[tokio::test]
async fn a_row_from_before_the_json_is_read_from_its_columns() {
    let db = TestDb::new().await;
    db.store.publish(&version("old", 1, all_set())).await.unwrap();
    db.run("UPDATE functions SET pool_policy = NULL, min_warm = 0, max_warm = 3").await;
    let found = db.store.function(TEAM, "old").await.unwrap().unwrap();
    let idle_ttl_ms = all_set().idle_ttl_ms;
    let expected = PoolPolicy { min_warm: 0, max_warm: 3, idle_ttl_ms, ..PoolPolicy::default() };
    assert_eq!(found.policy, expected);
    // The first change writes the JSON.
    let changed = PoolPolicy { burst: 1, ..found.policy };
    db.store.set_policy(TEAM, "old", &changed).await.unwrap().unwrap();
    assert_eq!(db.store.function(TEAM, "old").await.unwrap().unwrap().policy, changed);
}

#[tokio::test]
async fn going_back_loses_the_new_settings_only_and_coming_again_works() {
    let db = TestDb::new().await;
    db.store.publish(&version("published", 1, all_set())).await.unwrap();
    db.store.publish(&version("changed", 2, PoolPolicy::default())).await.unwrap();
    db.store.set_policy(TEAM, "changed", &all_set()).await.unwrap().unwrap();
    db.store.close().await;

    let raw = db.raw().await;
    MIGRATIONS.undo(&raw, BEFORE).await.unwrap();
    let rows = sqlx::query("SELECT * FROM functions").fetch_all(&raw).await.unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert!(row.try_get::<Option<String>, _>("pool_policy").is_err(), "the column is gone");
        let column = |name: &str| row.get::<i64, _>(name);
        let old = (column("min_warm"), column("max_warm"), column("idle_ttl_ms"));
        assert_eq!(old, (2, 5, 7_000), "what an older version reads");
    }
    raw.close().await;

    let store = db.reopen().await;
    let expected =
        PoolPolicy { min_warm: 2, max_warm: 5, idle_ttl_ms: 7_000, ..Default::default() };
    for function in store.all_functions().await.unwrap() {
        assert_eq!(function.policy, expected, "{}", function.name);
    }
}

#[tokio::test]
async fn a_damaged_policy_is_an_error_that_names_its_function() {
    let db = TestDb::new().await;
    db.store.publish(&version("whole", 1, all_set())).await.unwrap();
    db.store.publish(&version("broken", 2, all_set())).await.unwrap();
    for damaged in ["{", "", "7", r#"{"min_warm":-1}"#, r#"{"reuse":"always"}"#] {
        let update =
            format!("UPDATE functions SET pool_policy = '{damaged}' WHERE name = 'broken'");
        db.run(&update).await;
        for error in [
            db.store.function(TEAM, "broken").await.unwrap_err(),
            db.store.functions(TEAM).await.unwrap_err(),
            db.store.all_functions().await.unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::DamagedPolicy { .. }), "{damaged}: {error:?}");
            assert!(error.to_string().contains("`broken`"), "{damaged}: {error}");
            assert!(error.source().is_some(), "{damaged}: what is wrong is told too");
        }
    }
    assert!(db.store.function(TEAM, "whole").await.unwrap().is_some(), "the others are read");
    // It can be got rid of, which is how it is mended.
    db.store.remove_function(TEAM, "broken").await.unwrap_err();
    assert_eq!(db.store.functions(TEAM).await.unwrap().len(), 1);
}

/// A policy with no default in it.
fn all_set() -> PoolPolicy {
    let time = |text: &str| text.parse().unwrap();
    PoolPolicy {
        min_warm: 2,
        max_warm: 5,
        idle_ttl_ms: 7_000,
        max_age_ms: 60_000,
        burst: 1,
        refill_concurrency: 3,
        prefetch: Prefetch::Full,
        reuse: Reuse::Sequential,
        max_requests: 10,
        memory_budget_mib: 4_096,
        schedule: vec![pool_model::Schedule {
            days: vec![pool_model::Day::Mon, pool_model::Day::Fri],
            from: time("08:00"),
            until: time("18:30"),
            min_warm: 4,
        }],
    }
}

fn version(name: &str, number: u128, policy: PoolPolicy) -> NewVersion {
    let version = support::version(TEAM, name, number, Timestamp::UNIX_EPOCH);
    NewVersion { policy, ..version }
}
