//! An edge that is killed in the middle of something, and the one that comes after it.

use edge_api::{CreateCapsule, CreateSnapshot};
use pool_model::ErrorCode;

use crate::edge::{TestEdge, code, hello};

#[tokio::test]
async fn a_deploy_cut_at_any_step_is_cleaned_up_by_the_next_edge() {
    let mut edge = TestEdge::start().await;
    for step in
        ["create_sandbox", "extract_archive", "exec", "wait_ready", "snapshot_sandbox", "set_pool"]
    {
        edge.agent.hang(step);
        let client = edge.client();
        let deploy = tokio::spawn(async move { client.deploy(&hello(), &code()).await });
        edge.agent.called(step).await;
        edge.kill().await;
        assert!(deploy.await.unwrap().is_err());
        assert_ne!(edge.agent.counts(), (0, 0, 0), "{step}: something is left over");

        edge.agent.heal();
        edge.restart();
        let done = edge.control.reconcile().await.unwrap();
        assert_eq!(done.operations, 1, "{step}");
        assert_eq!(edge.agent.counts(), (0, 0, 0), "{step}");
        assert_eq!(edge.control.store().operations().await.unwrap(), [], "{step}");
    }
    edge.client().deploy(&hello(), &code()).await.unwrap();
}

#[tokio::test]
async fn a_second_deploy_cut_before_it_is_recorded_goes_back_to_the_first_version() {
    let mut edge = TestEdge::start().await;
    let first = edge.client().deploy(&hello(), &code()).await.unwrap();
    edge.agent.hang("set_pool");
    let client = edge.client();
    let deploy = tokio::spawn(async move { client.deploy(&hello(), &code()).await });
    edge.agent.called("create_sandbox").await;
    edge.agent.called("set_pool").await;
    edge.kill().await;
    deploy.await.unwrap().unwrap_err();
    assert_eq!(edge.agent.counts(), (1, 2, 1));

    edge.agent.heal();
    edge.restart();
    edge.control.reconcile().await.unwrap();
    assert_eq!(edge.agent.counts(), (0, 1, 1));
    let pool = edge.agent.state().pools[&first.id.to_string()].clone();
    assert_eq!(pool.snapshot_id, first.snapshot.to_string());
    assert_eq!(edge.client().function(&first.name).await.unwrap(), first);
}

#[tokio::test]
async fn a_snapshot_cut_before_it_is_recorded_is_deleted_and_its_capsule_stays() {
    let mut edge = TestEdge::start().await;
    let capsule = edge.client().create_capsule(&CreateCapsule::default()).await.unwrap();
    edge.agent.hang("snapshot_sandbox");
    let client = edge.client();
    let id = capsule.id;
    let snapshot =
        tokio::spawn(async move { client.snapshot(id, &CreateSnapshot::default()).await });
    edge.agent.called("snapshot_sandbox").await;
    edge.kill().await;
    snapshot.await.unwrap().unwrap_err();
    // Another sandbox's pause, made at the same time: it has no record and is in use.
    let paused = {
        let mut state = edge.agent.state();
        let mut paused = state.snapshots.values().next().unwrap().clone();
        paused.snapshot_id = pool_model::SnapshotId::from_u128(5).to_string();
        state.snapshots.insert(paused.snapshot_id.clone(), paused.clone());
        paused.snapshot_id
    };

    edge.agent.heal();
    edge.agent.state().busy_snapshots.insert(paused.clone());
    edge.restart();
    let done = edge.control.reconcile().await.unwrap();
    assert_eq!((done.operations, done.snapshots), (1, 1));
    assert_eq!(edge.agent.counts(), (1, 1, 0));
    assert!(edge.agent.state().snapshots.contains_key(&paused));
    edge.client().capsule(capsule.id).await.unwrap();
}

#[tokio::test]
async fn a_capsule_cut_while_it_is_made_is_still_its_teams() {
    let mut edge = TestEdge::start().await;
    edge.agent.hang("create_sandbox");
    let client = edge.client();
    let create =
        tokio::spawn(async move { client.create_capsule(&CreateCapsule::default()).await });
    edge.agent.called("create_sandbox").await;
    edge.kill().await;
    create.await.unwrap().unwrap_err();

    edge.agent.heal();
    edge.restart();
    edge.control.reconcile().await.unwrap();
    let capsules = edge.client().capsules().await.unwrap();
    assert_eq!(capsules.len(), 1, "it can be seen and deleted");
    edge.client().delete_capsule(capsules[0].id).await.unwrap();
    assert_eq!(edge.agent.counts(), (0, 0, 0));
}

#[tokio::test]
async fn a_build_sandbox_that_could_not_be_destroyed_goes_at_the_next_start() {
    let mut edge = TestEdge::start().await;
    edge.agent.fail("destroy_sandbox", ErrorCode::Internal);
    edge.client().deploy(&hello(), &code()).await.unwrap();
    assert_eq!(edge.agent.counts(), (1, 1, 1));

    edge.agent.heal();
    edge.kill().await;
    edge.restart();
    edge.control.reconcile().await.unwrap();
    assert_eq!(edge.agent.counts(), (0, 1, 1), "the function stays");
}

#[tokio::test]
async fn an_agent_that_lost_its_pools_gets_them_back() {
    let edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();
    {
        let mut state = edge.agent.state();
        let pool = state.pools.drain().next().unwrap().1;
        state.pools.insert("fn_stranger".to_owned(), pool);
    }
    edge.control.reconcile().await.unwrap();
    let state = edge.agent.state();
    assert_eq!(state.pools.len(), 1);
    assert!(state.pools.contains_key(&function.id.to_string()));
}

#[tokio::test]
async fn a_step_of_the_reconciler_that_fails_keeps_no_other_from_being_done() {
    let mut edge = TestEdge::start().await;
    edge.agent.hang("extract_archive");
    let client = edge.client();
    let deploy = tokio::spawn(async move { client.deploy(&hello(), &code()).await });
    edge.agent.called("extract_archive").await;
    edge.kill().await;
    deploy.await.unwrap().unwrap_err();
    edge.restart();

    edge.agent.heal();
    edge.agent.fail("sync_pools", ErrorCode::NoSpace);
    let error = edge.control.reconcile().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NoSpace);
    assert_eq!(edge.agent.counts(), (0, 0, 0), "the cut deploy is cleaned up all the same");
}
