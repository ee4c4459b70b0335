//! Time that passes: sandboxes end, pools drain, nothing is left of either.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use edge_api::{CreateCapsule, PoolPatch, PoolPolicy};
use pool_model::{OnTimeout, SandboxState};

use crate::{
    fixture::{eventually, seconds},
    guest::Sandbox,
    host,
    invocations::Invocation,
    teststack::TestStack,
};

/// Longest after an end until everything is gone, a free slot's own TTL (5 s) included.
const GONE_MAX: Duration = Duration::from_secs(20);

pub(crate) async fn expired_sandbox_leaves_no_trace(stack: Arc<TestStack>) -> anyhow::Result<()> {
    host::no_orphans(&stack, true, GONE_MAX).await?;
    let asked = CreateCapsule { timeout_s: Some(4), ..Default::default() };
    let sandbox = Sandbox::create(&stack, &asked).await?;
    let vmm = host::vmm_of(&stack, sandbox.id)?;
    ensure!(!host::traces_of(&stack, &vmm).is_empty(), "a running sandbox leaves no trace to see");
    ensure!(host::traces_of_slot(&stack, &vmm).len() >= 3, "its slot leaves no trace to see");
    eventually("the API has forgotten it", seconds(4) + GONE_MAX, || async {
        let capsules = stack.api().capsules().await?;
        ensure!(!capsules.iter().any(|capsule| capsule.id == sandbox.id), "it is listed");
        Ok(())
    })
    .await?;
    eventually("nothing is left of it", GONE_MAX, || async {
        ensure!(!host::is_alive(vmm.pid), "its VMM lives");
        let mut traces = host::traces_of(&stack, &vmm);
        traces.extend(host::traces_of_slot(&stack, &vmm));
        ensure!(traces.is_empty(), "{traces:#?}");
        Ok(())
    })
    .await?;
    let gone = Sandbox::get_gone(&stack, sandbox.id, 8000).await?;
    ensure!(gone.code == "sandbox_not_found", "{gone:?}");
    host::no_orphans(&stack, true, GONE_MAX).await
}

pub(crate) async fn expired_sandbox_that_asked_for_it_is_paused(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let asked =
        CreateCapsule { timeout_s: Some(20), on_timeout: OnTimeout::Pause, ..Default::default() };
    let sandbox = Sandbox::create(&stack, &asked).await?;
    sandbox.serve_home(8000).await?;
    sandbox.run("echo kept > note").await?;
    let end = edge_api::SetTimeout { timeout_s: 1 };
    stack.api().set_timeout(sandbox.id, &end).await?;
    eventually("it is paused", GONE_MAX, || async {
        let state = stack.api().capsule(sandbox.id).await?.state;
        ensure!(state == SandboxState::Paused, "{state}");
        ensure!(host::vmm_of(&stack, sandbox.id).is_err(), "its VMM lives");
        Ok(())
    })
    .await?;
    let note = sandbox.fetch(8000, "/note").await?;
    ensure!(note == "kept\n", "{note:?}");
    sandbox.delete().await
}

pub(crate) async fn idle_pool_drains_to_nothing(stack: Arc<TestStack>) -> anyhow::Result<()> {
    let mut policies: Vec<(_, PoolPolicy)> = Vec::new();
    let idle = PoolPatch {
        min_warm: Some(0),
        max_warm: Some(4),
        idle_ttl_ms: Some(1000),
        ..PoolPatch::default()
    };
    for pool in stack.api().pools().await? {
        stack.api().patch_pool(&pool.function, &idle).await?;
        policies.push((pool.function, pool.policy));
    }
    ensure!(!policies.is_empty(), "no pool to drain");
    eventually("no machine is left", GONE_MAX, || async {
        let machines = host::vmms(&stack);
        ensure!(machines.iter().all(|vmm| vmm.blank), "{machines:?}");
        Ok(())
    })
    .await?;
    host::no_orphans(&stack, true, GONE_MAX).await?;
    // An empty pool still answers: the request waits for its restore.
    let host = stack.stack().function_host("hello");
    let mut connection = stack.stack().connect(&host, loadtest::Protocol::H2).await?;
    let answer = connection.call(&loadtest::Request::get("/")).await?;
    Invocation::of(&answer)?;
    let waited = answer.timing().get("lease").unwrap_or_default();
    ensure!(waited > 1.0, "a lease from an empty pool took {waited} ms");
    for (function, policy) in policies {
        stack.api().patch_pool(&function, &PoolPatch::whole(policy)).await?;
    }
    host::no_orphans(&stack, true, seconds(30)).await
}
