//! Starting, starting again, stopping.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use loadtest::{Protocol, Request};
use tokio::time::Instant;

use crate::{
    events,
    fixture::{eventually, seconds, version},
    host,
    teststack::TestStack,
};

/// Longest for a second start.
const SECOND_START_MAX: Duration = Duration::from_secs(20);

pub(crate) async fn stack_answers_health_and_describes_itself(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let host = stack.stack().api_host();
    for protocol in Protocol::ALL {
        let mut connection = stack.stack().connect(&host, protocol).await?;
        let health = connection.call(&Request::get("/healthz")).await?;
        ensure!(health.status == 200, "{protocol}: /healthz answers {}", health.status);
        let health: edge_api::Health = health.json()?;
        ensure!(health.status == "ok" && health.agent_reachable, "{health:?}");
        let description = connection.call(&Request::get("/openapi.json")).await?;
        ensure!(description.body == edge_api::OPENAPI, "{protocol}: another description");
        let by = description.version;
        ensure!(by == version(protocol), "asked by {protocol}, answered by {by:?}");
    }
    Ok(())
}

pub(crate) async fn starting_a_running_stack_again_changes_nothing(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let before = stack.dev()?.pids;
    let began = Instant::now();
    let printed = stack.up().await?;
    let took = began.elapsed();
    ensure!(took < SECOND_START_MAX, "the second start took {took:?}");
    let after = stack.dev()?.pids;
    let pids = |p: loadtest::Pids| [p.supervisor, p.agent, p.edge, p.pager];
    ensure!(pids(before) == pids(after), "{before:?} became {after:?}");
    let functions = stack.api().functions().await?;
    ensure!(functions.len() == 1 && functions[0].version == 1, "deployed again: {functions:?}");
    // What it prints works as it stands.
    let curl = printed["curl"][0].as_str().context("no curl was printed")?;
    ensure!(curl.starts_with("curl --cacert ") && curl.contains("hello.fn."), "{curl}");
    Ok(())
}

pub(crate) async fn stopped_stack_leaves_nothing_running(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    ensure!(!host::vmms(&stack).is_empty(), "nothing ran that could be left");
    let mut followed = stack.api().pool_events(None, Some(seconds(1))).await?;
    events::next(&mut followed).await?;
    let (down, ended) = tokio::join!(stack.down(), events::ends(followed));
    down?;
    ended.context("who follows the pools is told of the end")?;
    eventually("nothing is left", seconds(5), || async {
        let traces = host::traces_of_all(&stack);
        ensure!(traces.is_empty(), "{traces:#?}");
        Ok(())
    })
    .await?;
    let dirs = host::names(&stack.layout().sandboxes_dir());
    ensure!(dirs.is_empty(), "sandboxes are left: {dirs:?}");
    ensure!(!stack.layout().dev_file().exists(), "dev.json is left");
    stack.down().await.context("stopping what is stopped")
}
