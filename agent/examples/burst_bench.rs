//! How long do callers wait when twice as many come at once as are warm?
//!
//! ```text
//! burst_bench --wrenn-dir DIR [--bin-dir DIR] [--rounds N]
//! ```
//!
//! Each caller leases from the agent's own pool, as the proxy does, and sends one request over a
//! connection made in the guest's namespace. Prints Markdown.

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use agent::pools::{Entry, PoolSpec};
use anyhow::{Context as _, ensure};
use pool_model::{FunctionId, PoolPolicy, SnapshotId, TeamId};
use support::{
    Options, Stage,
    figures::{ms, p50_p99, percentile},
    hello,
};
use tokio::time::sleep;

const MEMORY_MIB: u32 = 256;
const WARM_MIN: u32 = 10;
const WARM_MAX: u32 = 20;
const CALLERS: usize = 20;
/// Longest for a caller to wait, and for the pool to be full again.
const WAIT_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::read()?;
    let rounds = options.number("--rounds", 5)?;
    let stage = Stage::start(&options, &[]).await?;
    tokio::spawn(stage.agent.pools.clone().run_budget());
    let (snapshot, _) = hello::deploy(&stage, MEMORY_MIB).await?;
    let mut bursts = Vec::new();
    let mut refills = Vec::new();
    for round in 1..=rounds {
        // A pool of its own for each: one that has seen a burst keeps more warm.
        let spec = spec(round as u128, snapshot)?;
        let entry = stage.agent.pools.set(&stage.agent, spec).await?;
        full(&entry).await?;
        bursts.push(burst(&entry).await?);
        let refill = Instant::now();
        full(&entry).await?;
        refills.push(refill.elapsed());
        stage.agent.pools.remove(entry.spec.function).await?;
    }
    let starts = stage.agent.host.starts_max;
    stage.stop().await?;
    print(&bursts, &refills, starts);
    Ok(())
}

fn spec(function: u128, snapshot: SnapshotId) -> anyhow::Result<PoolSpec> {
    Ok(PoolSpec {
        function: FunctionId::from_u128(function),
        snapshot,
        team: TeamId::PLATFORM,
        policy: PoolPolicy { min_warm: WARM_MIN, max_warm: WARM_MAX, ..PoolPolicy::default() },
        lease_max_ms: 60_000,
        internet: false,
        env: BTreeMap::new(),
        port: hello::port()?,
    })
}

/// What one caller saw.
struct Call {
    /// Its place in the order of asking.
    asked: usize,
    /// Its place in the order of being served.
    served: usize,
    hit: bool,
    waited: Duration,
    /// What its sandbox's restore took once it was its turn among the host's starts.
    restored: Duration,
    answered: Duration,
}

/// Waits until as many are warm as are to be.
async fn full(entry: &Entry) -> anyhow::Result<()> {
    let until = Instant::now() + WAIT_MAX;
    loop {
        let stats = entry.pool.stats().await;
        if stats.warm >= WARM_MIN && stats.restoring == 0 && stats.leased + stats.reaping == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < until, "the pool does not fill: {stats:?}");
        sleep(LOOK_EVERY).await;
    }
}

/// All callers at once. They are polled in their order, so they ask in it.
async fn burst(entry: &Entry) -> anyhow::Result<Vec<Call>> {
    let served = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let calls = (0..CALLERS).map(|asked| call(entry, asked, Arc::clone(&served), began));
    futures::future::try_join_all(calls).await
}

async fn call(
    entry: &Entry,
    asked: usize,
    order: Arc<AtomicUsize>,
    began: Instant,
) -> anyhow::Result<Call> {
    let deadline = tokio::time::Instant::now() + WAIT_MAX;
    let lease = entry.pool.lease(deadline).await.context("no sandbox")?;
    let served = order.fetch_add(1, Ordering::Relaxed);
    let body = hello::get(&lease.guest, "/").await?;
    // A machine that had served before would say 2.
    let first = br#""counter": 1"#;
    ensure!(body.windows(first.len()).any(|part| part == first), "it has served before");
    let (hit, waited, restored) = (lease.hit, lease.waited, lease.guest.took);
    Ok(Call { asked, served, hit, waited, restored, answered: began.elapsed() })
}

fn print(bursts: &[Vec<Call>], refills: &[Duration], starts: usize) {
    let calls = || bursts.iter().flatten();
    let of = |hit: bool| calls().filter(move |call| call.hit == hit);
    let waits = |hit: bool| of(hit).map(|call| call.waited).collect::<Vec<_>>();
    let answers: Vec<Duration> = calls().map(|call| call.answered).collect();
    let overtaken = calls().filter(|call| call.asked != call.served).count();
    let misses = of(false).count() / bursts.len().max(1);
    println!("| {CALLERS} callers at once, {WARM_MIN} warm, {} bursts | figure |", bursts.len());
    println!("|---|---:|");
    println!("| answered by a fresh sandbox | {} of {} |", calls().count(), bursts.len() * CALLERS);
    println!("| warm when asked for | {} |", of(true).count());
    println!("| wait of these, p50 / p99 | {} ms |", p50_p99(&waits(true)));
    println!("| wait of the others, p50 / p99 | {} ms |", p50_p99(&waits(false)));
    println!("| served out of the order of asking | {overtaken} |");
    println!("| asked to answered, p50 / p99 | {} ms |", p50_p99(&answers));
    let restores: Vec<Duration> = of(false).map(|call| call.restored).collect();
    println!("| restores of the others, p50 / p99 | {} ms |", p50_p99(&restores));
    println!("| restores at once | {starts} |");
    // The last of so many waits for all before it, as many at a time as may start.
    let rounds = u32::try_from(misses.div_ceil(starts.max(1))).unwrap_or(u32::MAX);
    let bound = percentile(&restores, 99).saturating_mul(rounds);
    let worst = percentile(&waits(false), 99);
    println!(
        "| p99 wait beside restore time (p99) x depth ({rounds}) | {} / {} ms ({:.2}) |",
        ms(worst),
        ms(bound),
        worst.as_secs_f64() / bound.as_secs_f64()
    );
    println!(
        "| nothing left to restore or destroy after the last answer, p50 | {} ms |",
        ms(percentile(refills, 50))
    );
}
