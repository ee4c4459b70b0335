//! Reuse: as often as was asked for, one after the other, and never after a broken request.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, ensure};
use edge_api::{ErrorCode, PoolPatch, Reuse};
use loadtest::{Protocol, Request};
use pool_model::SandboxId;

use crate::{
    fixture::eventually,
    host, pools,
    pools::{SETTLE_MAX, invoke, tuned},
    streams,
    teststack::TestStack,
};

/// Requests of one sandbox.
const MAX: u32 = 3;
/// Sandboxes that are used up.
const LIVES: u32 = 2;

/// One sandbox at a time, and no floor: a floor is kept while a sandbox is lent, so that its
/// successor would take its place.
fn sequential() -> PoolPatch {
    PoolPatch {
        reuse: Some(Reuse::Sequential),
        max_requests: Some(MAX),
        min_warm: Some(0),
        max_warm: Some(1),
        ..PoolPatch::default()
    }
}

pub(crate) async fn reused_sandbox_serves_so_many_and_says_which(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    tuned(&stack, "hello", &sequential(), async {
        let mut used = BTreeSet::new();
        for life in 0..LIVES {
            let mut of_life = BTreeSet::new();
            for request in 1..=MAX {
                settled(&stack, "hello").await?;
                let (invocation, reuse) = invoke(&stack).await?;
                let expected = format!("sequential; request={request}; max={MAX}");
                ensure!(reuse == expected, "life {life}: {reuse:?}, expected {expected:?}");
                let counter = invocation.said.counter;
                ensure!(counter == u64::from(request), "request {request} counted {counter}");
                of_life.insert(invocation.sandbox);
            }
            ensure!(of_life.len() == 1, "requests 1 to {MAX} went to {of_life:?}");
            used.append(&mut of_life);
        }
        ensure!(used.len() == LIVES as usize, "{used:?} served more than {MAX}");
        let reused = pools::stats(&stack, "hello").await?.reused;
        ensure!(reused >= u64::from(LIVES * (MAX - 1)), "{reused} were counted as reused");
        gone(&stack, &used).await
    })
    .await
}

pub(crate) async fn without_reuse_every_request_has_another_sandbox(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let never =
        PoolPatch { reuse: Some(Reuse::Never), max_requests: Some(1), ..PoolPatch::default() };
    tuned(&stack, "hello", &never, async {
        let mut used = BTreeSet::new();
        for _ in 0..4 {
            let (invocation, reuse) = invoke(&stack).await?;
            ensure!(reuse == "never", "{reuse:?}");
            ensure!(invocation.said.counter == 1, "it had served before");
            ensure!(used.insert(invocation.sandbox), "{} served twice", invocation.sandbox);
        }
        // More than one request without saying that sandboxes may be reused is a contradiction.
        let patch = PoolPatch { max_requests: Some(MAX), ..PoolPatch::default() };
        let patched = stack.api().patch_pool(&"hello".parse()?, &patch).await;
        let body = pools::refused(patched, ErrorCode::InvalidArgument)?;
        ensure!(body.message.contains("max_requests"), "{body:?}");
        gone(&stack, &used).await
    })
    .await
}

pub(crate) async fn broken_request_ends_its_reused_sandbox(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    streams::deploy_echo(&stack).await?;
    let patch = PoolPatch { max_requests: Some(100), ..sequential() };
    tuned(&stack, "echo", &patch, async {
        settled(&stack, "echo").await?;
        let whole = echo(&stack, false).await?;
        settled(&stack, "echo").await?;
        let broken = echo(&stack, true).await?;
        ensure!(whole == broken, "{whole} served well and was not used again: {broken} was");
        for _ in 0..3 {
            let next = echo(&stack, false).await?;
            ensure!(next != broken, "{broken} served after its request was broken off");
        }
        gone(&stack, &BTreeSet::from([broken])).await
    })
    .await
}

/// Waits until nothing goes on and no second one is warm: an earlier test's surplus would take turns
/// with the one.
async fn settled(stack: &TestStack, function: &str) -> anyhow::Result<()> {
    let name = function.parse()?;
    eventually("at most one is warm", SETTLE_MAX, || async {
        let stats = pools::stats(stack, function).await?;
        let busy = stats.restoring + stats.leased + stats.reaping;
        if busy == 0 && stats.warm > 1 {
            stack.api().drain_pool(&name).await?;
        }
        ensure!(busy == 0 && stats.warm <= 1, "{stats:?}");
        Ok(())
    })
    .await
}

/// A request that takes its time; who served it. It is broken off after the first line if asked to.
async fn echo(stack: &TestStack, break_off: bool) -> anyhow::Result<SandboxId> {
    let host = stack.stack().function_host("echo");
    let mut connection = stack.stack().connect(&host, Protocol::H1).await?;
    let lines = if break_off { 100 } else { 2 };
    let request = Request::get(format!("/stream?n={lines}&delay_ms=50"));
    let mut answer = connection.start(&request).await?;
    ensure!(answer.status == 200, "answered {}", answer.status);
    let sandbox = answer.headers.get("x-wrenn-sandbox").context("no x-wrenn-sandbox")?;
    let sandbox = sandbox.to_str()?.parse()?;
    while let Some(piece) = answer.next().await? {
        if break_off && !piece.is_empty() {
            break; // and hang up
        }
    }
    Ok(sandbox)
}

/// Nothing runs any more under these ids.
async fn gone(stack: &TestStack, sandboxes: &BTreeSet<SandboxId>) -> anyhow::Result<()> {
    eventually("used sandboxes are gone", SETTLE_MAX, || async {
        let left = sandboxes.iter().find(|sandbox| host::vmm_of(stack, **sandbox).is_ok());
        ensure!(left.is_none(), "{left:?} has a VMM");
        Ok(())
    })
    .await
}
