//! Versions, tags and splits: what the agent has, what the API tells, and what a crash leaves.

use std::time::{Duration, Instant};

use agent_api::v1;
use edge_api::{DeployConfig, Function, FunctionName, Promote, TagName, TagWeight};
use pool_model::{ErrorCode, FunctionId};

use crate::edge::{TestEdge, code, hello};

fn tag(text: &str) -> TagName {
    text.parse().unwrap()
}

/// A deploy of a version that only its tag leads to.
fn aside(text: &str) -> DeployConfig {
    DeployConfig { tag: Some(tag(text)), promote: false, ..hello() }
}

async fn deploy(edge: &TestEdge, config: &DeployConfig) -> Function {
    edge.client().deploy(config, &code()).await.unwrap()
}

fn weights(shares: &[(&str, u32)]) -> Vec<TagWeight> {
    let share = |&(tag, weight): &(&str, u32)| TagWeight { tag: tag.to_owned(), weight };
    shares.iter().map(share).collect()
}

/// The snapshot and the fewest warm ones of a pool at the agent.
fn pool(edge: &TestEdge, id: FunctionId) -> Option<(String, u32)> {
    let pool = edge.agent.state().pools.get(&id.to_string()).cloned()?;
    Some((pool.snapshot_id, pool.policy.into_option().unwrap().min_warm))
}

async fn pool_of_tag(edge: &TestEdge, tag: &str) -> FunctionId {
    let target = edge.control.directory().function("hello").await.unwrap().unwrap();
    target.tags.iter().find(|found| &*found.tag == tag).unwrap().version.pool
}

/// Reconciles until the agent has as many pools as that.
async fn pools_become(edge: &TestEdge, count: usize) {
    let since = Instant::now();
    while edge.agent.counts().2 != count {
        assert!(since.elapsed() < Duration::from_secs(60), "{:?}", edge.agent.counts());
        tokio::time::sleep(Duration::from_millis(100)).await;
        edge.control.reconcile().await.unwrap();
    }
}

#[tokio::test]
async fn a_version_aside_has_a_pool_of_its_own_and_the_plain_name_stays() {
    let edge = TestEdge::start().await;
    let first = deploy(&edge, &hello()).await;
    let both = deploy(&edge, &aside("canary")).await;
    assert_eq!((both.version, both.snapshot), (1, first.snapshot));
    let canary = &both.tags[0];
    assert_eq!((canary.tag.as_str(), canary.version, canary.weight), ("canary", 2, 0));
    assert_eq!(canary.url, "https://hello--canary.fn.wrenn.localhost:8443");
    assert_eq!(edge.agent.counts(), (0, 2, 2));

    let versions = edge.client().versions(&first.name).await.unwrap();
    let told: Vec<_> = versions.iter().map(|v| (v.version, v.current, v.tags.len())).collect();
    assert_eq!(told, [(1, true, 0), (2, false, 1)]);
    let id = pool_of_tag(&edge, "canary").await;
    assert_ne!(id, first.id);
    assert_eq!(pool(&edge, id), Some((versions[1].snapshot.to_string(), 0)), "nothing kept warm");
    assert_eq!(pool(&edge, first.id), Some((first.snapshot.to_string(), 2)));
    assert_eq!(edge.client().functions().await.unwrap(), [both]);

    edge.agent.state().pools.clear();
    edge.control.reconcile().await.unwrap();
    assert_eq!(edge.agent.counts(), (0, 2, 2), "the reconciler knows both");
    let held = edge.client().delete_snapshot(versions[1].snapshot).await.unwrap_err();
    assert_eq!(held.code(), Some(ErrorCode::Conflict));
}

#[tokio::test]
async fn promoting_swaps_what_the_plain_name_means_and_numbers_go_on() {
    let edge = TestEdge::start().await;
    let first = deploy(&edge, &DeployConfig { tag: Some(tag("stable")), ..hello() }).await;
    let second = deploy(&edge, &hello()).await;
    assert_eq!((second.version, second.tags[0].version), (2, 1));
    let api = edge.client();
    let stable = Promote { tag: Some(tag("stable")), version: None };
    let back = api.promote(&first.name, &stable).await.unwrap();
    assert_eq!((back.version, back.snapshot, back.id), (1, first.snapshot, first.id));
    assert_eq!(pool(&edge, first.id), Some((first.snapshot.to_string(), 2)));
    assert_eq!(pool_of_tag(&edge, "stable").await, first.id, "it is the current one");
    assert_eq!(api.versions(&first.name).await.unwrap().len(), 1, "2 had no tag");
    pools_become(&edge, 1).await;
    edge.control.reconcile().await.unwrap();
    assert_eq!(edge.agent.counts(), (0, 1, 1), "and its snapshot is gone");

    let third = deploy(&edge, &hello()).await;
    assert_eq!(third.version, 3, "no number is used twice");
    let lost = api.promote(&first.name, &Promote { version: Some(2), tag: None }).await;
    assert!(lost.unwrap_err().to_string().contains("no version 2"));
    let tagless = api.promote(&first.name, &Promote { tag: Some(tag("x")), version: None }).await;
    assert_eq!(tagless.unwrap_err().code(), Some(ErrorCode::TagNotFound));
    for odd in [Promote::default(), Promote { version: Some(1), tag: Some(tag("stable")) }] {
        let refused = api.promote(&first.name, &odd).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::InvalidArgument));
    }
}

#[tokio::test]
async fn a_pool_that_nothing_leads_to_serves_those_on_their_way_and_goes_then() {
    let edge = TestEdge::start().await;
    let name = deploy(&edge, &hello()).await.name;
    deploy(&edge, &aside("canary")).await;
    let routed_before = pool_of_tag(&edge, "canary").await;
    let promoted = edge.client().promote(&name, &Promote { version: Some(2), tag: None }).await;
    assert_eq!(promoted.unwrap().version, 2);
    edge.control.reconcile().await.unwrap();
    assert!(pool(&edge, routed_before).is_some(), "it is not taken from under them");
    pools_become(&edge, 1).await;
    assert_eq!(pool(&edge, routed_before), None);

    // A deletion waits for nobody.
    deploy(&edge, &aside("next")).await;
    edge.client().remove_tag(&name, &tag("next")).await.unwrap();
    assert_eq!(edge.agent.counts().2, 2);
    edge.client().delete_function(&name).await.unwrap();
    assert_eq!(edge.agent.counts(), (0, 0, 0));
}

#[tokio::test]
async fn every_route_leads_to_a_pool_throughout() {
    let edge = TestEdge::start().await;
    let api = edge.client();
    let name = deploy(&edge, &DeployConfig { tag: Some(tag("a")), ..hello() }).await.name;
    deploy(&edge, &aside("b")).await;
    let (control, agent) = (std::sync::Arc::clone(&edge.control), edge.agent.clone());
    let watcher = tokio::spawn(async move {
        let mut looked = 0_u32;
        loop {
            let target = control.directory().function("hello").await.unwrap().unwrap();
            // Later than the route was looked up, as a request gets there.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let pools = agent.state().pools.clone();
            let tags = target.tags.iter().map(|tag| tag.version.pool);
            for pool in tags.chain([target.current.pool]) {
                assert!(pools.contains_key(&pool.to_string()), "{target:?}");
            }
            looked += 1;
            if control.directory().function("hello").await.unwrap().unwrap().tags.len() == 1 {
                return looked;
            }
        }
    });
    for round in 0..10_u32 {
        let to = if round % 2 == 0 { "b" } else { "a" };
        let promote = Promote { version: None, tag: Some(tag(to)) };
        api.promote(&name, &promote).await.unwrap();
        edge.control.reconcile().await.unwrap();
    }
    deploy(&edge, &DeployConfig { tag: Some(tag("b")), ..hello() }).await;
    api.remove_tag(&name, &tag("a")).await.unwrap();
    assert!(watcher.await.unwrap() > 0);
}

#[tokio::test]
async fn a_split_warms_its_versions_and_holds_their_tags() {
    let edge = TestEdge::start().await;
    let api = edge.client();
    let name = deploy(&edge, &DeployConfig { tag: Some(tag("stable")), ..hello() }).await.name;
    deploy(&edge, &aside("canary")).await;
    let id = pool_of_tag(&edge, "canary").await;
    let split = api.split(&name, &weights(&[("stable", 90), ("canary", 10)])).await.unwrap();
    let told: Vec<_> = split.tags.iter().map(|t| (t.tag.as_str(), t.weight)).collect();
    assert_eq!(told, [("canary", 10), ("stable", 90)]);
    assert_eq!(pool(&edge, id).unwrap().1, 2, "kept warm like the function's own");
    let held = api.remove_tag(&name, &tag("canary")).await.unwrap_err();
    assert_eq!(held.code(), Some(ErrorCode::Conflict));

    for (bad, code) in [
        (weights(&[("nope", 1)]), ErrorCode::TagNotFound),
        (weights(&[("canary", 0)]), ErrorCode::InvalidArgument),
        (weights(&[("canary", 1001)]), ErrorCode::InvalidArgument),
        (weights(&[("canary", 1), ("canary", 1)]), ErrorCode::InvalidArgument),
    ] {
        assert_eq!(api.split(&name, &bad).await.unwrap_err().code(), Some(code), "{bad:?}");
    }
    assert_eq!(api.function(&name).await.unwrap().tags, split.tags, "as before");

    api.split(&name, &[]).await.unwrap();
    assert_eq!(pool(&edge, id).unwrap().1, 0);
    api.remove_tag(&name, &tag("canary")).await.unwrap();
    let gone = api.remove_tag(&name, &tag("canary")).await.unwrap_err();
    assert_eq!(gone.code(), Some(ErrorCode::TagNotFound));
    let unseen = edge.other_client().split(&name, &[]).await.unwrap_err();
    assert_eq!(unseen.code(), Some(ErrorCode::FunctionNotFound));
}

#[tokio::test]
async fn a_pools_settings_hold_for_every_version() {
    let edge = TestEdge::start().await;
    let name = deploy(&edge, &hello()).await.name;
    deploy(&edge, &aside("canary")).await;
    let patch = edge_api::PoolPatch { max_warm: Some(3), ..Default::default() };
    edge.client().patch_pool(&name, &patch).await.unwrap();
    let max_warm = |pool: &v1::Pool| pool.policy.as_option().unwrap().max_warm;
    let state = edge.agent.state();
    assert_eq!(state.pools.values().map(max_warm).collect::<Vec<_>>(), [3, 3]);
}

#[tokio::test]
async fn versions_that_nothing_would_lead_to_are_refused_before_they_are_built() {
    let edge = TestEdge::start().await;
    let refuse = async |config: &DeployConfig| {
        edge.client().deploy(config, &code()).await.unwrap_err().to_string()
    };
    assert!(refuse(&aside("canary")).await.contains("`promote`"), "the first one");
    let name = deploy(&edge, &hello()).await.name;
    assert!(refuse(&DeployConfig { promote: false, ..hello() }).await.contains("`tag`"));
    let long: FunctionName = "n".repeat(40).parse().unwrap();
    let long = DeployConfig { name: long, tag: Some(tag(&"t".repeat(30))), ..hello() };
    assert!(refuse(&long).await.contains("63 bytes"));
    assert_eq!(edge.agent.state().created.len(), 1);
    let unknown = edge.client().set_tag(&name, &tag("x"), 9).await.unwrap_err();
    assert_eq!(unknown.code(), Some(ErrorCode::InvalidArgument), "{unknown}");
}

#[tokio::test]
async fn a_change_that_the_agent_refuses_is_undone() {
    let edge = TestEdge::start().await;
    let first = deploy(&edge, &DeployConfig { tag: Some(tag("stable")), ..hello() }).await;
    deploy(&edge, &aside("canary")).await;
    let (api, pools) = (edge.client(), edge.agent.state().pools.clone());
    edge.agent.fail("set_pool", ErrorCode::NoCapacity);
    let promote = Promote { version: Some(2), tag: None };
    let refused = api.promote(&first.name, &promote).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::NoCapacity));
    let refused = edge.client().deploy(&aside("next"), &code()).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::NoCapacity));
    edge.agent.heal();
    edge.control.reconcile().await.unwrap();
    assert_eq!(edge.agent.state().pools, pools);
    assert_eq!(edge.agent.counts(), (0, 2, 2), "its snapshot is gone too");
    assert_eq!(api.function(&first.name).await.unwrap().version, 1);
}

#[tokio::test]
async fn a_promotion_cut_at_the_agent_goes_back_and_can_be_made_again() {
    let mut edge = TestEdge::start().await;
    let name = deploy(&edge, &DeployConfig { tag: Some(tag("stable")), ..hello() }).await.name;
    deploy(&edge, &aside("canary")).await;
    let pools = edge.agent.state().pools.clone();
    edge.agent.called("destroy_sandbox").await;
    edge.agent.hang("set_pool");
    let (client, of) = (edge.client(), name.clone());
    let promote = Promote { version: Some(2), tag: None };
    let cut = tokio::spawn(async move { client.promote(&of, &promote).await });
    edge.agent.called("set_pool").await;
    edge.kill().await;
    cut.await.unwrap().unwrap_err();
    assert_ne!(edge.agent.state().pools, pools, "half done");

    edge.agent.heal();
    edge.restart();
    edge.control.reconcile().await.unwrap();
    assert_eq!(edge.agent.state().pools, pools, "as the store says");
    let again = edge.client().promote(&name, &Promote { version: Some(2), tag: None }).await;
    assert_eq!(again.unwrap().version, 2);
}
