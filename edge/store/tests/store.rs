//! The store on a real SQLite file.

#![allow(clippy::unwrap_used, reason = "fixtures may fail loudly")]

mod support;

use std::collections::BTreeMap;

use edge_store::{ApiKey, CapsuleRecord, NewVersion, OperationKind, OperationRecord, StoreError};
use jiff::Timestamp;
use pool_model::{PoolPolicy, RequestId, SandboxId, SnapshotId, TeamId, TrafficPolicy};
use support::TestDb;

#[tokio::test]
async fn a_key_opens_its_team_and_is_stored_only_as_a_hash() {
    let db = TestDb::new().await;
    let key = ApiKey::generate();
    db.store.create_team(team(9), "nine", &key, at(1)).await.unwrap();
    assert_eq!(db.store.team_of_key(&key).await.unwrap(), Some(team(9)));
    assert_eq!(db.store.team_of_key(&ApiKey::generate()).await.unwrap(), None);

    db.store.close().await;
    for entry in std::fs::read_dir(db.dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let secret = key.expose().trim_start_matches("wrenn_").as_bytes();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
}

#[tokio::test]
async fn a_second_version_keeps_the_id_and_names_what_it_replaced() {
    let db = TestDb::new().await;
    let first = db.store.publish(&version(1, "hello", 10, 100)).await.unwrap();
    assert_eq!((first.function.version, first.replaced), (1, None));

    let second = db.store.publish(&version(1, "hello", 11, 200)).await.unwrap();
    assert_eq!(second.function.version, 2);
    assert_eq!(second.function.id, first.function.id);
    assert_eq!(second.function.created_at, first.function.created_at);
    assert_eq!(second.replaced, Some(snapshot_id(10)));
    assert_eq!(db.store.orphan_snapshots().await.unwrap(), [snapshot_id(10)]);

    let found = db.store.function(team(1), "hello").await.unwrap();
    assert_eq!(found, Some(second.function));
}

#[tokio::test]
async fn a_name_of_another_team_is_taken_and_its_function_unseen() {
    let db = TestDb::new().await;
    db.store.publish(&version(1, "hello", 10, 100)).await.unwrap();
    let refused = db.store.publish(&version(2, "hello", 11, 200)).await.unwrap_err();
    assert!(matches!(refused, StoreError::NameTaken { .. }), "{refused:?}");
    assert!(!db.store.snapshot_is_known(snapshot_id(11)).await.unwrap(), "nothing half-made");

    assert_eq!(db.store.function(team(2), "hello").await.unwrap(), None);
    assert_eq!(db.store.functions(team(2)).await.unwrap(), []);
    assert_eq!(db.store.remove_function(team(2), "hello").await.unwrap(), None);
    assert_eq!(db.store.set_policy(team(2), "hello", &PoolPolicy::default()).await.unwrap(), None);
    assert_eq!(db.store.snapshot(team(2), snapshot_id(10)).await.unwrap(), None);
    assert!(db.store.function_by_name("hello").await.unwrap().is_some(), "the router sees it");
}

#[tokio::test]
async fn a_snapshot_in_use_cannot_be_forgotten() {
    let db = TestDb::new().await;
    db.store.publish(&version(1, "hello", 10, 100)).await.unwrap();
    assert!(db.store.remove_snapshot(snapshot_id(10)).await.is_err(), "foreign keys are on");
    assert!(db.store.snapshot_is_used(snapshot_id(10)).await.unwrap());

    db.store.remove_function(team(1), "hello").await.unwrap().unwrap();
    assert!(db.store.remove_snapshot(snapshot_id(10)).await.unwrap());
    assert!(!db.store.remove_snapshot(snapshot_id(10)).await.unwrap(), "once");
}

#[tokio::test]
async fn policies_and_capsules_survive_a_restart() {
    let db = TestDb::new().await;
    db.store.publish(&version(1, "hello", 10, 100)).await.unwrap();
    let policy =
        PoolPolicy { min_warm: 0, max_warm: 3, idle_ttl_ms: 5_000, ..PoolPolicy::default() };
    db.store.set_policy(team(1), "hello", &policy).await.unwrap().unwrap();
    let metadata = BTreeMap::from([("who".to_owned(), "grün ' \"; --".to_owned())]);
    let capsule = CapsuleRecord {
        id: sandbox(5),
        team: team(1),
        metadata,
        traffic: TrafficPolicy::default(),
        traffic_token: None,
        created_at: at(7),
    };
    db.store.add_capsule(&capsule).await.unwrap();

    let store = db.reopen().await;
    let function = store.function(team(1), "hello").await.unwrap().unwrap();
    assert_eq!(function.policy, policy);
    assert_eq!(store.capsule(team(1), sandbox(5)).await.unwrap(), Some(capsule));
    assert_eq!(store.capsule(team(2), sandbox(5)).await.unwrap(), None, "another team's");
    assert_eq!(store.capsules_before(at(7)).await.unwrap(), []);
    assert_eq!(store.capsules_before(at(8)).await.unwrap(), [sandbox(5)]);
}

#[tokio::test]
async fn one_deploy_of_a_name_at_a_time() {
    let db = TestDb::new().await;
    let first = operation(1, Some("hello"));
    db.store.begin_operation(&first).await.unwrap();
    let busy = db.store.begin_operation(&operation(2, Some("hello"))).await.unwrap_err();
    assert!(matches!(busy, StoreError::Busy { .. }), "{busy:?}");
    db.store.begin_operation(&operation(3, None)).await.unwrap();
    db.store.begin_operation(&operation(4, None)).await.unwrap();

    db.store.operation_step(first.id, "booting").await.unwrap();
    assert_eq!(db.store.operations().await.unwrap()[0].step, "booting");
    db.store.end_operation(first.id).await.unwrap();
    db.store.begin_operation(&operation(5, Some("hello"))).await.unwrap();
}

#[tokio::test]
async fn writers_wait_for_each_other() {
    let db = TestDb::new().await;
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..16 {
        let store = db.store.clone();
        writers.spawn(async move {
            store.publish(&version(1, "hello", 100 + n, 1000)).await.unwrap().function.version
        });
    }
    let mut versions = writers.join_all().await;
    versions.sort_unstable();
    assert_eq!(versions, (1..=16).collect::<Vec<_>>());
}

#[tokio::test]
async fn migrations_can_be_undone_and_done_again() {
    let db = TestDb::new().await;
    db.store.undo_migrations().await.unwrap();
    assert!(db.store.first_team().await.is_err(), "no tables left");
    assert_eq!(db.reopen().await.first_team().await.unwrap(), None);
}

fn team(n: u128) -> TeamId {
    TeamId::from_u128(n)
}

fn sandbox(n: u128) -> SandboxId {
    SandboxId::from_u128(n)
}

fn snapshot_id(n: u128) -> SnapshotId {
    SnapshotId::from_u128(n)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn version(of: u128, name: &str, snapshot: u128, second: i64) -> NewVersion {
    support::version(team(of), name, snapshot, at(second))
}

fn operation(n: u128, function: Option<&str>) -> OperationRecord {
    OperationRecord {
        id: RequestId::from_u128(n),
        team: team(1),
        kind: if function.is_some() { OperationKind::Deploy } else { OperationKind::Snapshot },
        function: function.map(str::to_owned),
        sandbox: sandbox(n),
        step: "begun".to_owned(),
        created_at: at(i64::try_from(n).unwrap()),
    }
}
