//! Deploys that go well, and what each failure leaves behind: nothing.

use agent_api::v1;
use pool_model::{ErrorCode, Port};

use crate::{
    agent::FakeAgent,
    edge::{TestEdge, code, hello},
};

#[tokio::test]
async fn a_deploy_leaves_a_function_a_snapshot_and_a_pool() {
    let edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();

    assert_eq!(function.version, 1);
    assert_eq!(function.url, "https://hello.fn.wrenn.localhost:8443");
    assert_eq!(function.pool.min_warm, 2);
    assert_eq!(function.port, Port::try_from(8080).unwrap());
    assert_eq!(edge.agent.counts(), (0, 1, 1), "the build sandbox is gone");
    {
        let state = edge.agent.state();
        assert_eq!(state.extracted[0].tar_gz, code());
        assert_eq!(state.extracted[0].user, "user");
        let start = &state.execs[0];
        assert_eq!(start.command, "python3 main.py");
        assert_eq!(start.cwd, state.extracted[0].path);
        assert_eq!(start.env["PORT"], "8080");
        assert_eq!(start.env["COLOUR"], "blue");
        assert!(start.background);
        let pool = &state.pools[&function.id.to_string()];
        assert_eq!(pool.snapshot_id, function.snapshot.to_string());
        assert!(pool.env.is_empty(), "a started server has its environment already");
    }
    assert_eq!(edge.control.store().operations().await.unwrap(), []);
    assert_eq!(edge.client().functions().await.unwrap(), std::slice::from_ref(&function));
    assert_eq!(edge.client().function(&function.name).await.unwrap(), function);
}

#[tokio::test]
async fn a_second_deploy_swaps_the_pool_and_deletes_the_old_snapshot() {
    let edge = TestEdge::start().await;
    let first = edge.client().deploy(&hello(), &code()).await.unwrap();
    let mut config = hello();
    (config.min_warm, config.max_warm) = (None, Some(5));
    let second = edge.client().deploy(&config, &code()).await.unwrap();

    assert_eq!((second.id, second.version), (first.id, 2));
    assert_ne!(second.snapshot, first.snapshot);
    assert_eq!((second.pool.min_warm, second.pool.max_warm), (2, 5), "what isn't said stays");
    assert_eq!(edge.agent.counts(), (0, 1, 1));
    let pool = edge.agent.state().pools[&first.id.to_string()].clone();
    assert_eq!(pool.snapshot_id, second.snapshot.to_string());
}

#[tokio::test]
async fn an_old_snapshot_in_use_is_deleted_once_it_is_not() {
    let edge = TestEdge::start().await;
    let first = edge.client().deploy(&hello(), &code()).await.unwrap();
    edge.agent.state().busy_snapshots.insert(first.snapshot.to_string());
    edge.client().deploy(&hello(), &code()).await.unwrap();
    assert_eq!(edge.agent.counts(), (0, 2, 1), "a request of the old version is under way");

    edge.agent.heal();
    edge.control.reconcile().await.unwrap();
    assert_eq!(edge.agent.counts(), (0, 1, 1));
    assert_eq!(edge.client().snapshots().await.unwrap().len(), 1);
}

#[tokio::test]
async fn each_step_that_fails_has_its_code_and_leaves_nothing() {
    let edge = TestEdge::start().await;
    for (call, code_of_agent) in [
        ("create_sandbox", ErrorCode::NoCapacity),
        ("extract_archive", ErrorCode::MalformedArchive),
        ("exec", ErrorCode::GuestUnresponsive),
        ("wait_ready", ErrorCode::GuestUnresponsive),
        ("snapshot_sandbox", ErrorCode::NoSpace),
        ("set_pool", ErrorCode::NoCapacity),
    ] {
        edge.agent.fail(call, code_of_agent);
        let error = edge.client().deploy(&hello(), &code()).await.unwrap_err();
        assert_eq!(error.code(), Some(code_of_agent), "{call}: {error}");
        assert_nothing_left(&edge, call).await;
        edge.agent.heal();
    }
}

#[tokio::test]
async fn a_server_that_exits_or_never_listens_is_told_apart_with_its_output() {
    let edge = TestEdge::start().await;
    let exited = v1::WaitReadyResponse {
        process_exited: true,
        exit_code: 3,
        output_tail: "no such module: flask".into(),
        ..Default::default()
    };
    let silent =
        v1::WaitReadyResponse { last_error: "connection refused".into(), ..Default::default() };
    for (ready, code_of_error, part) in [
        (exited, ErrorCode::StartCommandExited, "no such module: flask"),
        (silent, ErrorCode::NotReady, "connection refused"),
    ] {
        edge.agent.state().ready = ready;
        let error = edge.client().deploy(&hello(), &code()).await.unwrap_err();
        assert_eq!(error.code(), Some(code_of_error), "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert_nothing_left(&edge, "not ready").await;
    }
}

#[tokio::test]
async fn a_failed_second_deploy_leaves_the_first_version_serving() {
    let edge = TestEdge::start().await;
    let first = edge.client().deploy(&hello(), &code()).await.unwrap();
    for call in ["create_sandbox", "snapshot_sandbox", "set_pool"] {
        edge.agent.fail(call, ErrorCode::Internal);
        edge.client().deploy(&hello(), &code()).await.unwrap_err();
        edge.agent.heal();
        assert_eq!(edge.agent.counts(), (0, 1, 1), "{call}");
        let pool = edge.agent.state().pools[&first.id.to_string()].clone();
        assert_eq!(pool.snapshot_id, first.snapshot.to_string(), "{call}");
        assert_eq!(edge.client().function(&first.name).await.unwrap(), first, "{call}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_cut_a_deploy() {
    let edge = TestEdge::start().await;
    edge.agent.hang("extract_archive");
    let client = edge.client();
    let deploy = tokio::spawn(async move { client.deploy(&hello(), &code()).await });
    edge.agent.called("extract_archive").await;
    deploy.abort();

    let busy = edge.client().deploy(&hello(), &code()).await.unwrap_err();
    assert_eq!(busy.code(), Some(ErrorCode::Conflict), "it goes on: {busy}");
}

#[tokio::test]
async fn a_name_belongs_to_the_team_that_deployed_it() {
    let edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();
    let other = edge.other_client();

    let taken = other.deploy(&hello(), &code()).await.unwrap_err();
    assert_eq!(taken.code(), Some(ErrorCode::NameTaken));
    for unseen in [
        other.function(&function.name).await.unwrap_err(),
        other.delete_function(&function.name).await.unwrap_err(),
        other.pool(&function.name).await.unwrap_err(),
    ] {
        assert_eq!(unseen.code(), Some(ErrorCode::FunctionNotFound), "{unseen}");
    }
    let unseen = other.delete_snapshot(function.snapshot).await.unwrap_err();
    assert_eq!(unseen.code(), Some(ErrorCode::SnapshotNotFound));
    assert_eq!(other.functions().await.unwrap(), []);
    assert_eq!(other.snapshots().await.unwrap(), []);
}

#[tokio::test]
async fn a_deleted_function_is_gone_everywhere_and_its_name_is_free() {
    let edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();
    let in_use = edge.client().delete_snapshot(function.snapshot).await.unwrap_err();
    assert_eq!(in_use.code(), Some(ErrorCode::Conflict));
    assert!(edge.control.directory().function("hello").await.unwrap().is_some());

    edge.client().delete_function(&function.name).await.unwrap();
    assert_eq!(edge.agent.counts(), (0, 0, 0));
    assert_eq!(edge.control.directory().function("hello").await.unwrap(), None);
    let again = edge.client().delete_function(&function.name).await.unwrap_err();
    assert_eq!(again.code(), Some(ErrorCode::FunctionNotFound));

    edge.other_client().deploy(&hello(), &code()).await.unwrap();
    let routed = edge.control.directory().function("hello").await.unwrap().unwrap();
    assert_ne!(routed.id, function.id, "the router knows at once");
}

#[tokio::test]
async fn a_pools_aim_changes_at_the_agent_or_not_at_all() {
    let edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();
    let patch = edge_api::PoolPatch { max_warm: Some(3), ..Default::default() };
    let pool = edge.client().patch_pool(&function.name, &patch).await.unwrap();
    assert_eq!((pool.policy.min_warm, pool.policy.max_warm), (2, 3));
    assert_eq!(pool_of(&edge.agent).policy.into_option().unwrap().max_warm, 3);
    let stats = pool.stats.unwrap();
    assert!((stats.lease_wait_p50_ms - 1.5).abs() < 1e-9, "{stats:?}");

    edge.agent.fail("set_pool", ErrorCode::NoCapacity);
    let patch = edge_api::PoolPatch { min_warm: Some(3), ..Default::default() };
    let refused = edge.client().patch_pool(&function.name, &patch).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::NoCapacity));
    let pools = edge.client().pools().await.unwrap();
    assert_eq!(pools[0].policy.min_warm, 2, "as before");

    let patch = edge_api::PoolPatch { min_warm: Some(4), ..Default::default() };
    let refused = edge.client().patch_pool(&function.name, &patch).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::InvalidArgument), "over max_warm");
}

fn pool_of(agent: &FakeAgent) -> v1::Pool {
    agent.state().pools.values().next().unwrap().clone()
}

async fn assert_nothing_left(edge: &TestEdge, after: &str) {
    assert_eq!(edge.agent.counts(), (0, 0, 0), "{after}");
    assert_eq!(edge.client().functions().await.unwrap(), [], "{after}");
    assert_eq!(edge.client().snapshots().await.unwrap(), [], "{after}");
    assert_eq!(edge.control.store().operations().await.unwrap(), [], "{after}");
}
