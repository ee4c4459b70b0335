//! Pools as their owners tune them: warmed, drained, changed while they run, within the host's memory.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, ensure};
use edge_api::{Day, ErrorCode, PoolPatch, PoolPolicy, Prefetch, Reuse, Schedule, TimeOfDay};
use jiff::{Span, Timestamp, tz::TimeZone};
use serde_json::Value;

use crate::{
    fixture::{MEMORY_BUDGET_MIB, eventually},
    host,
    kills::{self, Role},
    pools::{self, SETTLE_MAX, invoke, refused, tuned, warm_is},
    teststack::TestStack,
};

/// Memory of a sandbox of each sample function.
const FUNCTION_MIB: u32 = 256;

/// No floor, and a pool without a past: one that prefetches otherwise is a new one.
fn unwanted() -> PoolPatch {
    PoolPatch {
        min_warm: Some(0),
        max_warm: Some(4),
        idle_ttl_ms: Some(60_000),
        prefetch: Some(Prefetch::Full),
        ..PoolPatch::default()
    }
}

pub(crate) async fn pool_is_warmed_up_and_drained_on_request(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let hello = "hello".parse()?;
    tuned(&stack, "hello", &unwanted(), async {
        warm_is(&stack, "hello", 0).await?;
        let info = stack.api().prewarm_pool(&hello, 3).await?;
        ensure!(info.function == hello && info.policy.min_warm == 0, "{info:?}");
        warm_is(&stack, "hello", 3).await?;
        let machines = machines(&stack, "hello").await?;
        ensure!(machines.len() == 3, "3 are warm, and there are {machines:?}");
        let drained = stack.api().drain_pool(&hello).await?;
        ensure!(drained == 3, "{drained} of 3 were drained");
        // Its answer means that they are gone; what is warm from now on is another one.
        let left: Vec<_> = machines.iter().filter(|pid| host::is_alive(**pid)).collect();
        ensure!(left.is_empty(), "drained and alive: {left:?} of {machines:?}");
        let drained = stack.api().drain_pool(&hello).await?;
        ensure!(drained <= 3, "{drained} were drained of an empty pool");
        for count in [0, 5] {
            let body =
                refused(stack.api().prewarm_pool(&hello, count).await, ErrorCode::InvalidArgument)?;
            ensure!(body.message.contains("count"), "{body:?}");
        }
        let nobody = "nobody".parse()?;
        refused(stack.api().prewarm_pool(&nobody, 1).await, ErrorCode::FunctionNotFound)?;
        refused(stack.api().drain_pool(&nobody).await, ErrorCode::FunctionNotFound)?;
        Ok(())
    })
    .await?;
    // A drained pool still answers.
    invoke(&stack).await.map(drop)
}

/// Processes of the machines of a function's pool.
async fn machines(stack: &TestStack, function: &str) -> anyhow::Result<BTreeSet<i32>> {
    let id = stack.api().function(&function.parse()?).await?.id.to_string();
    let vmms = host::vmms(stack).into_iter();
    Ok(vmms.filter(|vmm| vmm.function.as_ref() == Some(&id)).map(|vmm| vmm.pid).collect())
}

pub(crate) async fn every_field_of_a_policy_is_changed_at_once_and_outlives_the_agent(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let hello = "hello".parse()?;
    let before = stack.api().pool(&hello).await?.policy;
    let wanted = PoolPolicy {
        min_warm: 1,
        max_warm: 3,
        idle_ttl_ms: 45_000,
        max_age_ms: 3_600_000,
        burst: 1,
        refill_concurrency: 2,
        prefetch: Prefetch::None,
        reuse: Reuse::Sequential,
        max_requests: 7,
        memory_budget_mib: 2048,
        schedule: vec![Schedule {
            days: vec![Day::Sat, Day::Sun],
            from: "08:00".parse()?,
            until: "18:30".parse()?,
            min_warm: 2,
        }],
    };
    tuned(&stack, "hello", &PoolPatch::default(), async {
        for patch in one_by_one(&wanted) {
            let info = stack.api().patch_pool(&hello, &patch).await?;
            ensure!(info.policy == patch.clone().over(info.policy.clone()), "{patch:?}: {info:?}");
        }
        let seen = stack.api().pool(&hello).await?.policy;
        ensure!(seen == wanted && seen != before, "{seen:?}, expected {wanted:?}");
        let (_, reuse) = invoke(&stack).await?;
        ensure!(reuse.ends_with("max=7"), "the agent was not told: {reuse:?}");
        is_kept(&stack, &wanted)?;
        kills::kill_and_wait(&stack, Role::Agent).await?;
        is_kept(&stack, &wanted)?;
        let seen = stack.api().pool(&hello).await?.policy;
        ensure!(seen == wanted, "after the agent's death {seen:?}");
        let (_, reuse) = invoke(&stack).await?;
        ensure!(reuse.ends_with("max=7"), "the new agent does not know: {reuse:?}");
        out_of_range(&stack, &wanted).await
    })
    .await
}

/// A patch for each field, in an order in which each outcome is allowed.
fn one_by_one(wanted: &PoolPolicy) -> Vec<PoolPatch> {
    let none = PoolPatch::default;
    let all = PoolPatch::whole(wanted.clone());
    vec![
        PoolPatch { max_warm: all.max_warm, ..none() },
        PoolPatch { min_warm: all.min_warm, ..none() },
        PoolPatch { idle_ttl_ms: all.idle_ttl_ms, ..none() },
        PoolPatch { max_age_ms: all.max_age_ms, ..none() },
        PoolPatch { burst: all.burst, ..none() },
        PoolPatch { refill_concurrency: all.refill_concurrency, ..none() },
        PoolPatch { prefetch: all.prefetch, ..none() },
        PoolPatch { reuse: all.reuse, ..none() },
        PoolPatch { max_requests: all.max_requests, ..none() },
        PoolPatch { memory_budget_mib: all.memory_budget_mib, ..none() },
        PoolPatch { schedule: all.schedule, ..none() },
    ]
}

/// The agent has written this policy down, for a start without an edge.
fn is_kept(stack: &TestStack, wanted: &PoolPolicy) -> anyhow::Result<()> {
    let file = stack.layout().run_dir().join("pools.json");
    let pools: Vec<Value> = serde_json::from_slice(&std::fs::read(&file)?)?;
    let wanted = serde_json::to_value(wanted)?;
    let kept = pools.iter().any(|pool| pool["policy"] == wanted);
    ensure!(kept, "{wanted} is not in {}: {pools:?}", file.display());
    Ok(())
}

/// Each value out of its range is refused by name, and changes nothing.
async fn out_of_range(stack: &TestStack, before: &PoolPolicy) -> anyhow::Result<()> {
    let hello = "hello".parse()?;
    let none = PoolPatch::default;
    let night = Schedule { min_warm: 9, ..before.schedule[0].clone() };
    let patches = [
        ("max_warm", PoolPatch { max_warm: Some(0), ..none() }),
        ("min_warm", PoolPatch { min_warm: Some(4), ..none() }),
        ("idle_ttl_ms", PoolPatch { idle_ttl_ms: Some(999), ..none() }),
        ("max_age_ms", PoolPatch { max_age_ms: Some(5), ..none() }),
        ("burst", PoolPatch { burst: Some(1001), ..none() }),
        ("refill_concurrency", PoolPatch { refill_concurrency: Some(257), ..none() }),
        ("max_requests", PoolPatch { reuse: Some(Reuse::Never), ..none() }),
        ("memory_budget_mib", PoolPatch { memory_budget_mib: Some(64), ..none() }),
        ("schedule", PoolPatch { schedule: Some(vec![night]), ..none() }),
    ];
    for (field, patch) in patches {
        let patched = stack.api().patch_pool(&hello, &patch).await;
        let body = refused(patched, ErrorCode::InvalidArgument).context(field)?;
        ensure!(body.message.contains(field), "{field}: {body:?}");
    }
    let after = stack.api().pool(&hello).await?.policy;
    ensure!(after == *before, "a refused patch changed {before:?} to {after:?}");
    Ok(())
}

pub(crate) async fn floor_that_the_host_cannot_hold_is_refused_with_the_sum(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let hello = "hello".parse()?;
    let pools = stack.api().pools().await?;
    let before = stack.api().pool(&hello).await?.policy;
    let others = pools.iter().filter(|pool| pool.function != hello);
    let others: u32 = others.map(|pool| pool.policy.min_warm).sum();
    let count = MEMORY_BUDGET_MIB / FUNCTION_MIB + 1;
    let patch = PoolPatch { min_warm: Some(count), max_warm: Some(count), ..PoolPatch::default() };
    let body = refused(stack.api().patch_pool(&hello, &patch).await, ErrorCode::OverBudget)?;
    for part in [(count + others) * FUNCTION_MIB, MEMORY_BUDGET_MIB] {
        ensure!(body.message.contains(&part.to_string()), "{part} is not in {:?}", body.message);
    }
    // A scheduled floor must fit as well as one that holds always.
    let schedule = Some(vec![around_now(count)?]);
    let patch = PoolPatch { schedule, max_warm: Some(count), ..PoolPatch::default() };
    refused(stack.api().patch_pool(&hello, &patch).await, ErrorCode::OverBudget)?;
    let after = stack.api().pool(&hello).await?.policy;
    ensure!(after == before, "a refused floor changed {before:?} to {after:?}");
    Ok(())
}

pub(crate) async fn scheduled_time_raises_the_floor_and_its_end_lowers_it(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let hello = "hello".parse()?;
    let patch = PoolPatch { idle_ttl_ms: Some(1000), ..unwanted() };
    tuned(&stack, "hello", &patch, async {
        warm_is(&stack, "hello", 0).await?;
        let schedule = |schedule| PoolPatch { schedule: Some(schedule), ..PoolPatch::default() };
        stack.api().patch_pool(&hello, &schedule(vec![around_now(3)?])).await?;
        warm_is(&stack, "hello", 3).await?;
        let stats = pools::stats(&stack, "hello").await?;
        ensure!(stats.target >= 3, "{stats:?}");
        // A time of another part of the day asks for nothing now.
        stack.api().patch_pool(&hello, &schedule(vec![long_past(4)?])).await?;
        eventually("the surplus is gone", SETTLE_MAX, || async {
            let stats = pools::stats(&stack, "hello").await?;
            ensure!(stats.warm == 0 && stats.target == 0, "{stats:?}");
            Ok(())
        })
        .await
    })
    .await
}

fn around_now(min_warm: u32) -> anyhow::Result<Schedule> {
    window(-2, 30, min_warm)
}

fn long_past(min_warm: u32) -> anyhow::Result<Schedule> {
    window(-180, -120, min_warm)
}

/// A time of every day, from and until so many minutes from now.
fn window(from: i64, until: i64, min_warm: u32) -> anyhow::Result<Schedule> {
    let at = |minutes: i64| -> anyhow::Result<TimeOfDay> {
        let time =
            Timestamp::now().to_zoned(TimeZone::UTC).checked_add(Span::new().minutes(minutes))?;
        Ok(time.strftime("%H:%M").to_string().parse()?)
    };
    Ok(Schedule { days: Vec::new(), from: at(from)?, until: at(until)?, min_warm })
}
