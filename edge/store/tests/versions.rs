//! Versions, tags, secrets, domains and private ports on a real SQLite file, and the way to and from
//! a database that has none of them.

#![allow(clippy::unwrap_used, reason = "fixtures may fail loudly")]

mod support;

use edge_store::{
    CapsuleRecord, Change, ChangeError, DOMAINS_MAX, DomainRecord, LiveFunction, NewVersion,
    Secret, StoreError, TAGS_MAX,
};
use jiff::Timestamp;
use pool_model::{
    FunctionId, InvocationPolicy, SandboxId, SnapshotId, TagWeight, TeamId, TrafficPolicy,
};
use sqlx::migrate::Migrator;
use support::TestDb;

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");
/// The migration before versions.
const BEFORE: i64 = 20_261_126_000_000;

#[tokio::test]
async fn a_version_lives_while_something_leads_to_it() {
    let db = TestDb::new().await;
    db.store.publish(&version(1, Some("stable"), true)).await.unwrap();
    let second = db.store.publish(&version(2, None, true)).await.unwrap();
    assert_eq!(second.replaced, None, "its tag keeps the first");
    let live = second.live;
    assert_eq!(numbers(&live), [1, 2]);
    assert_eq!(live.version(1).unwrap().pool, FunctionId::from_u128(1002), "the spare one");
    assert_eq!(live.version(2).unwrap().pool, live.function.id);
    assert_eq!(db.store.orphan_snapshots().await.unwrap(), []);
    assert!(db.store.snapshot_is_used(snapshot_id(1)).await.unwrap());
    assert!(db.store.remove_snapshot(snapshot_id(1)).await.is_err(), "foreign keys are on");

    let back = change(&db, Change::Promote { version: 1, spare: FunctionId::from_u128(7) }).await;
    assert_eq!((back.function.version, numbers(&back)), (1, vec![1]), "2 has no tag");
    assert_eq!(db.store.orphan_snapshots().await.unwrap(), [snapshot_id(2)]);
    let third = db.store.publish(&version(3, Some("canary"), false)).await.unwrap().live;
    assert_eq!((third.function.version, numbers(&third)), (1, vec![1, 3]), "2 is used up");
    let moved = change(&db, Change::SetTag { tag: "stable".to_owned(), version: 3 }).await;
    assert_eq!((moved.tags[1].version, numbers(&moved)), (3, vec![1, 3]));

    let store = db.reopen().await;
    let found = store.live_function(team(1), "hello").await.unwrap().unwrap();
    assert_eq!(found, moved);
    assert_eq!(store.live_function_by_name("hello").await.unwrap(), Some(found.clone()));
    let one = std::slice::from_ref(&found);
    assert_eq!(store.live_functions(None).await.unwrap(), one);
    assert_eq!(store.live_functions(Some(team(1))).await.unwrap(), one);
    assert_eq!(store.live_functions(Some(team(2))).await.unwrap(), []);
    assert_eq!(store.live_function(team(2), "hello").await.unwrap(), None);
    let mut pools = store.pools_of(team(1), "hello").await.unwrap();
    pools.sort_unstable();
    assert_eq!(pools, [FunctionId::from_u128(1), FunctionId::from_u128(1003)]);
    assert_eq!(store.pools_of(team(2), "hello").await.unwrap(), []);
    store.remove_function(team(1), "hello").await.unwrap().unwrap();
    assert_eq!(store.orphan_snapshots().await.unwrap().len(), 3, "all of it went");
}

#[tokio::test]
async fn changes_that_make_no_sense_change_nothing() {
    let db = TestDb::new().await;
    let refused = db.store.publish(&version(1, Some("a"), false)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Change(ChangeError::FirstIsCurrent)), "{refused:?}");
    assert!(!db.store.snapshot_is_known(snapshot_id(1)).await.unwrap());
    db.store.publish(&version(1, Some("a"), true)).await.unwrap();
    let refused = db.store.publish(&version(2, None, false)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Change(ChangeError::Unreachable)), "{refused:?}");
    let share = |tag: &str, weight| TagWeight { tag: tag.to_owned(), weight };
    let split = change(&db, Change::Split(vec![share("a", 3)])).await;
    assert_eq!(split.tags[0].weight, 3);
    let (none, spare) = ("b".to_owned(), FunctionId::from_u128(7));
    for (change, expected) in [
        (Change::Promote { version: 9, spare }, ChangeError::NoVersion { version: 9 }),
        (Change::SetTag { tag: none.clone(), version: 2 }, ChangeError::NoVersion { version: 2 }),
        (Change::RemoveTag { tag: none.clone() }, ChangeError::NoTag { tag: none.clone() }),
        (Change::RemoveTag { tag: "a".to_owned() }, ChangeError::InSplit { tag: "a".to_owned() }),
        (Change::Split(vec![share("b", 1)]), ChangeError::NoTag { tag: none }),
    ] {
        let refused = db.store.change_versions(team(1), "hello", &change).await.unwrap_err();
        assert!(matches!(refused, StoreError::Change(why) if why == expected), "{change:?}");
    }
    assert_eq!(db.store.live_function(team(1), "hello").await.unwrap(), Some(split));
    let nobody = db.store.change_versions(team(2), "hello", &Change::Split(Vec::new())).await;
    assert_eq!(nobody.unwrap(), None);
    for n in 1..TAGS_MAX {
        change(&db, Change::SetTag { tag: format!("t{n:02}"), version: 1 }).await;
    }
    let over = Change::SetTag { tag: "z".to_owned(), version: 1 };
    let refused = db.store.change_versions(team(1), "hello", &over).await.unwrap_err();
    assert!(matches!(refused, StoreError::Change(ChangeError::TooManyTags)), "{refused:?}");
}

#[tokio::test]
async fn a_damaged_invocation_policy_is_an_error_and_never_an_open_door() {
    let db = TestDb::new().await;
    db.store.publish(&version(1, None, true)).await.unwrap();
    let policy: InvocationPolicy = serde_json::from_str(r#"{"auth":[{"kind":"key"}]}"#).unwrap();
    let set = db.store.set_invocation(team(1), "hello", &policy).await.unwrap().unwrap();
    assert_eq!(set.invocation, policy);
    assert_eq!(db.store.set_invocation(team(2), "hello", &policy).await.unwrap(), None);
    db.store.publish(&version(2, None, true)).await.unwrap(); // brings its own: the default
    db.run("UPDATE functions SET invocation_policy = '{\"auth\":7}'").await;
    let refused = db.store.live_function_by_name("hello").await.unwrap_err();
    assert!(matches!(refused, StoreError::DamagedInvocation { .. }), "{refused:?}");
    assert!(refused.to_string().contains("`hello`"), "{refused}");
}

#[tokio::test]
async fn a_secret_is_made_once() {
    let db = TestDb::new().await;
    let id = db.store.publish(&version(1, None, true)).await.unwrap().function.id;
    let made = db.store.signing_secret(id).await.unwrap().unwrap();
    assert_eq!(db.store.signing_secret(id).await.unwrap(), Some(made.clone()));
    let second = db.store.publish(&version(2, None, true)).await.unwrap();
    assert_eq!(second.function.signing_secret, Some(made));
    assert_eq!(db.store.signing_secret(FunctionId::from_u128(9)).await.unwrap(), None);
}

#[tokio::test]
async fn a_proved_domain_is_one_teams_alone() {
    let db = TestDb::new().await;
    let mine = db.store.publish(&version(1, None, true)).await.unwrap().function.id;
    let theirs = NewVersion { name: "theirs".to_owned(), team: team(2), ..version(2, None, true) };
    let theirs = db.store.publish(&theirs).await.unwrap().function.id;
    let claim = domain("a.example", mine, 1);
    assert_eq!(db.store.add_domain(&claim).await.unwrap(), claim);
    let again = DomainRecord { challenge: Secret::generate(), ..claim.clone() };
    assert_eq!(db.store.add_domain(&again).await.unwrap(), claim, "it keeps its challenge");
    db.store.add_domain(&domain("a.example", theirs, 2)).await.unwrap();
    assert_eq!(db.store.function_of_domain("a.example").await.unwrap(), None);

    let at = Timestamp::from_second(5).unwrap();
    let proved = db.store.verify_domain(theirs, "a.example", at).await.unwrap().unwrap();
    assert_eq!(proved.verified_at, Some(at));
    assert_eq!(db.store.function_of_domain("a.example").await.unwrap().unwrap(), "theirs");
    assert_eq!(db.store.verified_domains().await.unwrap(), ["a.example"]);
    let taken = db.store.verify_domain(mine, "a.example", at).await.unwrap_err();
    assert!(matches!(taken, StoreError::DomainTaken { .. }), "{taken:?}");
    assert!(db.store.remove_domain(mine, "a.example").await.unwrap());
    assert!(!db.store.remove_domain(mine, "a.example").await.unwrap());
    let taken = db.store.add_domain(&claim).await.unwrap_err();
    assert!(matches!(taken, StoreError::DomainTaken { .. }), "{taken:?}");
    assert_eq!(db.store.verify_domain(mine, "a.example", at).await.unwrap(), None);

    db.store.remove_function(team(2), "theirs").await.unwrap().unwrap();
    assert_eq!(db.store.function_of_domain("a.example").await.unwrap(), None);
    for n in 0..DOMAINS_MAX {
        db.store.add_domain(&domain(&format!("d{n}.example"), mine, 1)).await.unwrap();
    }
    let over = db.store.add_domain(&domain("more.example", mine, 1)).await.unwrap_err();
    assert!(matches!(over, StoreError::TooManyDomains), "{over:?}");
}

#[tokio::test]
async fn private_ports_bring_a_token_that_stays() {
    let db = TestDb::new().await;
    let capsule = CapsuleRecord {
        id: SandboxId::from_u128(5),
        team: team(1),
        metadata: Default::default(),
        traffic: TrafficPolicy::default(),
        traffic_token: None,
        created_at: Timestamp::UNIX_EPOCH,
    };
    db.store.add_capsule(&capsule).await.unwrap();
    assert_eq!(db.store.capsule_of_any(capsule.id).await.unwrap(), Some(capsule.clone()));
    let open = TrafficPolicy::default();
    let private = TrafficPolicy { private: true, ..Default::default() };
    let set = async |policy| db.store.set_traffic(team(1), capsule.id, policy).await.unwrap();
    assert_eq!(set(&open).await.unwrap().traffic_token, None);
    let token = set(&private).await.unwrap().traffic_token;
    assert!(token.is_some());
    assert_eq!(set(&open).await.unwrap().traffic_token, token);
    assert_eq!(set(&private).await.unwrap().traffic_token, token);
    assert_eq!(db.store.set_traffic(team(2), capsule.id, &private).await.unwrap(), None);
    db.run("UPDATE capsules SET traffic = '{'").await;
    let refused = db.store.capsule_of_any(capsule.id).await.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { column: "traffic", .. }), "{refused:?}");
}

#[tokio::test]
async fn functions_of_before_have_one_version_and_going_back_keeps_the_current_one() {
    let db = TestDb::new().await;
    db.store.publish(&version(1, Some("stable"), true)).await.unwrap();
    let before = db.store.publish(&version(2, None, true)).await.unwrap().live;
    db.store.close().await;
    let raw = db.raw().await;
    MIGRATIONS.undo(&raw, BEFORE).await.unwrap();
    // As an edge of before deploys: the functions' table is all it knows.
    sqlx::query("UPDATE functions SET version = 3").execute(&raw).await.unwrap();
    MIGRATIONS.run(&raw).await.unwrap();
    raw.close().await;
    let store = db.reopen().await;
    let found = store.live_function(team(1), "hello").await.unwrap().unwrap();
    assert_eq!((numbers(&found), found.tags.len()), (vec![3], 0));
    assert_eq!(found.function.snapshot, before.function.snapshot);
    assert_eq!(store.orphan_snapshots().await.unwrap(), [snapshot_id(1)]);
    assert_eq!(store.publish(&version(4, None, true)).await.unwrap().function.version, 4);
}

#[tokio::test]
async fn what_an_older_edge_wrote_beside_the_versions_wins() {
    let db = TestDb::new().await;
    db.store.publish(&version(1, Some("stable"), true)).await.unwrap();
    db.run("UPDATE functions SET version = 2, port = 9000").await;
    let found = db.store.live_function(team(1), "hello").await.unwrap().unwrap();
    assert_eq!(numbers(&found), [2], "the first one's pool serves the second now");
    assert_eq!((found.versions[0].port.get(), found.tags.len()), (9000, 0));
    let third = db.store.publish(&version(3, None, true)).await.unwrap();
    assert_eq!((third.function.version, numbers(&third.live)), (3, vec![3]));
}

async fn change(db: &TestDb, change: Change) -> LiveFunction {
    db.store.change_versions(team(1), "hello", &change).await.unwrap().unwrap()
}

fn numbers(live: &LiveFunction) -> Vec<u32> {
    live.versions.iter().map(|version| version.version).collect()
}

fn domain(name: &str, function: FunctionId, of: u128) -> DomainRecord {
    DomainRecord {
        name: name.to_owned(),
        function,
        team: team(of),
        challenge: Secret::generate(),
        verified_at: None,
        created_at: Timestamp::UNIX_EPOCH,
    }
}

fn team(n: u128) -> TeamId {
    TeamId::from_u128(n)
}

fn snapshot_id(n: u128) -> SnapshotId {
    SnapshotId::from_u128(n)
}

fn version(number: u128, tag: Option<&str>, promote: bool) -> NewVersion {
    let version = support::version(team(1), "hello", number, Timestamp::UNIX_EPOCH);
    NewVersion { tag: tag.map(str::to_owned), promote, ..version }
}
