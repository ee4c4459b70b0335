//! What the data plane is told, before and after each kind of change.

use std::sync::Arc;

use edge_api::{CreateCapsule, DeployConfig, InvocationPolicy, Promote, TagWeight};
use edge_control::FunctionTarget;
use edge_store::ApiKey;
use pool_model::TeamId;

use crate::edge::{TestEdge, code, hello};

async fn function(edge: &TestEdge) -> Option<Arc<FunctionTarget>> {
    let directory = edge.control.directory();
    let asked = directory.function("hello").await.unwrap();
    assert_eq!(directory.cached_function("hello"), Some(asked.clone()), "and remembered");
    asked
}

#[tokio::test]
async fn no_answer_from_before_a_change_is_given_after_it() {
    let edge = TestEdge::start().await;
    let api = edge.client();
    assert_eq!(function(&edge).await, None);
    let made = api.deploy(&hello(), &code()).await.unwrap();
    let name = made.name.clone();
    let target = function(&edge).await.expect("a deploy");
    assert_eq!((target.id, target.team), (made.id, TeamId::from_u128(1)));
    assert_eq!((target.current.version, target.current.pool), (1, made.id));
    assert_eq!(target.current.port.get(), 8080);
    assert!(target.tags.is_empty());

    let slow = DeployConfig { timeout_ms: 500, ..hello() };
    api.deploy(&slow, &code()).await.unwrap();
    let target = function(&edge).await.unwrap();
    assert_eq!((target.current.version, target.current.timeout.as_millis()), (2, 500), "a deploy");

    api.set_tag(&name, &"stable".parse().unwrap(), 2).await.unwrap();
    let target = function(&edge).await.unwrap();
    assert_eq!((&*target.tags[0].tag, target.tags[0].version), ("stable", target.current), "a tag");

    let canary = DeployConfig { tag: Some("canary".parse().unwrap()), promote: false, ..hello() };
    api.deploy(&canary, &code()).await.unwrap();
    let target = function(&edge).await.unwrap();
    assert_eq!((target.current.version, target.tags[0].version.version), (2, 3), "a tagged deploy");
    assert_ne!(target.tags[0].version.pool, made.id);

    let split = [TagWeight { tag: "canary".to_owned(), weight: 10 }];
    api.split(&name, &split).await.unwrap();
    assert_eq!(function(&edge).await.unwrap().tags[0].weight, 10, "a split");
    api.split(&name, &[]).await.unwrap();
    assert_eq!(function(&edge).await.unwrap().tags[0].weight, 0, "none");

    let promote = Promote { version: Some(3), tag: None };
    api.promote(&name, &promote).await.unwrap();
    let target = function(&edge).await.unwrap();
    assert_eq!((target.current.version, target.current.pool), (3, made.id), "a promotion");
    api.remove_tag(&name, &"canary".parse().unwrap()).await.unwrap();
    assert_eq!(function(&edge).await.unwrap().tags.len(), 1, "a tag that went");

    let policy = InvocationPolicy { queue_max: 7, ..Default::default() };
    api.set_invocation(&name, &policy).await.unwrap();
    assert_eq!(function(&edge).await.unwrap().policy.queue_max, 7, "a policy");
    api.delete_function(&name).await.unwrap();
    assert_eq!(function(&edge).await, None, "a deletion");
}

#[tokio::test]
async fn sandboxes_and_keys_are_known_with_their_teams() {
    let edge = TestEdge::start().await;
    let directory = edge.control.directory();
    let made = edge.client().create_capsule(&CreateCapsule::default()).await.unwrap();
    assert_eq!(directory.sandbox(made.id).await.unwrap().unwrap().team, TeamId::from_u128(1));
    assert!(directory.cached_sandbox(made.id).flatten().is_some());
    edge.client().delete_capsule(made.id).await.unwrap();
    assert_eq!(directory.cached_sandbox(made.id), None, "not even a memory of it");
    assert_eq!(directory.sandbox(made.id).await.unwrap(), None);
    assert_eq!(directory.cached_sandbox(made.id), Some(None), "that there is none is remembered");

    let team = Some(TeamId::from_u128(2));
    let key = edge.other_key.expose();
    assert_eq!(directory.cached_team_of_key(key), None);
    assert_eq!(directory.team_of_key(key).await.unwrap(), team);
    assert_eq!(directory.cached_team_of_key(key), Some(team));
    let stranger = ApiKey::generate();
    assert_eq!(directory.team_of_key(stranger.expose()).await.unwrap(), None);
    assert_eq!(directory.cached_team_of_key(stranger.expose()), Some(None));
    assert_eq!(directory.cached_team_of_key("nonsense"), Some(None));
}

#[tokio::test]
async fn lookups_during_changes_never_bring_an_old_answer_back() {
    let edge = TestEdge::start().await;
    let name = edge.client().deploy(&hello(), &code()).await.unwrap().name;
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let control = Arc::clone(&edge.control);
            tokio::spawn(async move {
                loop {
                    control.directory().function("hello").await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for queue_max in 1..=50 {
        let policy = InvocationPolicy { queue_max, ..Default::default() };
        edge.client().set_invocation(&name, &policy).await.unwrap();
        let seen = edge.control.directory().function("hello").await.unwrap().unwrap();
        assert_eq!(seen.policy.queue_max, queue_max);
    }
    readers.iter().for_each(tokio::task::JoinHandle::abort);
}
