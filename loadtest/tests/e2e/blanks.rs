//! Machines that wait: killed, or orphaned with their agent; and bursts that find too few warm ones.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use edge_api::{PoolPatch, Prefetch};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    fixture::eventually,
    host,
    kills::{self, BACK_MAX, Role},
    pools::{self, SETTLE_MAX, invoke, tuned, warm_is},
    teststack::TestStack,
};

/// Invocations of a burst.
const BURST: usize = 20;
/// Warm sandboxes at most: fewer than a burst needs.
const MAX_WARM: u32 = 10;

fn floor(min_warm: u32, max_warm: u32) -> PoolPatch {
    PoolPatch { min_warm: Some(min_warm), max_warm: Some(max_warm), ..PoolPatch::default() }
}

pub(crate) async fn killed_agent_leaves_no_blank_and_no_warm_machine(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    tuned(&stack, "hello", &floor(2, 4), async {
        warm_is(&stack, "hello", 2).await?;
        let blanks = some_blanks(&stack).await?;
        let old: Vec<_> = host::vmms(&stack).into_iter().collect();
        ensure!(old.len() >= 2 + blanks.len(), "{old:?}");
        kills::kill_and_wait(&stack, Role::Agent).await?;
        host::no_orphans(&stack, true, BACK_MAX).await?;
        for vmm in &old {
            ensure!(!host::is_alive(vmm.pid), "{vmm:?} outlived its agent");
            let traces = host::traces_of(&stack, vmm);
            ensure!(traces.is_empty(), "{traces:#?}");
        }
        // What is there now was made by the new agent.
        let stats = pools::stats(&stack, "hello").await?;
        ensure!(stats.warm >= 2, "the pool is not full again: {stats:?}");
        some_blanks(&stack).await.map(drop)
    })
    .await
}

pub(crate) async fn killed_blank_costs_the_next_restore_nothing_but_time(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    // A pool without a past: nothing is restored but what is asked for.
    let patch = PoolPatch { prefetch: Some(Prefetch::Full), ..floor(0, 2) };
    tuned(&stack, "hello", &patch, async {
        warm_is(&stack, "hello", 0).await?;
        let blanks = some_blanks(&stack).await?;
        for blank in &blanks {
            kill(Pid::from_raw(blank.pid), Signal::SIGKILL)?;
        }
        invoke(&stack).await.context("right after the kill")?;
        invoke(&stack).await.context("the second after the kill")?;
        eventually("dead blanks are removed", SETTLE_MAX, || async {
            let dir = stack.layout().sandboxes_dir();
            let left = blanks.iter().find(|blank| dir.join(&blank.label).exists());
            ensure!(left.is_none(), "{left:?} has a directory");
            Ok(())
        })
        .await?;
        let now = some_blanks(&stack).await?;
        ensure!(now.iter().all(|blank| !blanks.contains(blank)), "{now:?} came back to life");
        Ok(())
    })
    .await?;
    host::no_orphans(&stack, true, BACK_MAX).await
}

/// The blanks that wait, which are some once a snapshot was restored.
async fn some_blanks(stack: &TestStack) -> anyhow::Result<Vec<host::Vmm>> {
    eventually("a blank waits", SETTLE_MAX, || async {
        let blanks = host::blanks(stack);
        ensure!(!blanks.is_empty(), "none waits");
        Ok(blanks)
    })
    .await
}

pub(crate) async fn burst_over_what_is_warm_is_answered(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    tuned(&stack, "hello", &floor(1, MAX_WARM), async {
        let before = pools::stats(&stack, "hello").await?.restored;
        burst(&stack, None).await?;
        let stats = pools::stats(&stack, "hello").await?;
        let restored = stats.restored - before;
        ensure!(restored >= 20 - u64::from(MAX_WARM), "{restored} were restored: {stats:?}");
        ensure!(stats.warm + stats.restoring <= MAX_WARM, "more than allowed: {stats:?}");
        Ok(())
    })
    .await?;
    host::no_orphans(&stack, false, BACK_MAX).await
}

pub(crate) async fn burst_outlives_the_page_server(stack: Arc<TestStack>) -> anyhow::Result<()> {
    tuned(&stack, "hello", &floor(1, MAX_WARM), async {
        let old = stack.dev()?.pids.pager.context("no page server")?;
        // In the middle of it: restores and first touches are under way.
        burst(&stack, Some((old, Duration::from_millis(700)))).await?;
        eventually("another page server runs", BACK_MAX, || async {
            let pid = stack.dev()?.pids.pager.context("none runs")?;
            ensure!(pid != old && host::is_alive(pid), "{pid} is not another one");
            Ok(())
        })
        .await
    })
    .await?;
    host::no_orphans(&stack, false, BACK_MAX).await
}

/// Invokes `hello` so often at once, and kills a process meanwhile; each is answered by a machine
/// of its own.
async fn burst(stack: &Arc<TestStack>, doomed: Option<(i32, Duration)>) -> anyhow::Result<()> {
    let mut calls = JoinSet::new();
    for _ in 0..BURST {
        let stack = Arc::clone(stack);
        calls.spawn(async move { invoke(&stack).await });
    }
    if let Some((pid, moment)) = doomed {
        sleep(moment).await;
        ensure!(!calls.is_empty(), "the burst was over before the kill");
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    }
    let (mut sandboxes, mut failed) = (BTreeSet::new(), Vec::new());
    while let Some(call) = calls.join_next().await {
        match call? {
            Ok((invocation, _)) => {
                sandboxes.insert(invocation.sandbox);
            }
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    ensure!(failed.is_empty(), "{} of {BURST} were not answered: {failed:#?}", failed.len());
    ensure!(sandboxes.len() == BURST, "a machine served twice: {sandboxes:?}");
    Ok(())
}
