//! How many sandboxes can one pool lend per second? A driver that makes nothing, at once: each claim
//! is one lease, one restore and one destruction of the pool's own machinery.
//!
//! Run with `cargo run --release -p pool --example claims_bench`; prints one Markdown row.

#![allow(clippy::print_stdout, clippy::cast_precision_loss, reason = "a benchmark prints")]

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use pool::{Cause, Driver, Policy, Pool, ReapReason, Restored, wheel::Wheel};
use pool_model::PoolPolicy;

/// How long each number of callers claims.
const RUN: Duration = Duration::from_secs(3);
/// Timers that are set, cancelled or left to expire.
const TIMERS: u64 = 100_000;

struct Nothing;

#[async_trait::async_trait]
impl Driver for Nothing {
    type Sandbox = ();

    async fn restore(&self) -> Result<Restored<()>, Cause> {
        Ok(Restored { sandbox: (), steps: Vec::new() })
    }
    async fn renew(&self, _: Arc<()>) -> Result<(), Cause> {
        Ok(())
    }
    async fn destroy(&self, _: Arc<()>, _: ReapReason) {}
    async fn died(&self, _: Arc<()>) {
        std::future::pending().await
    }
}

struct Claims {
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let one = runtime.block_on(claims(1))?;
    let many = runtime.block_on(claims(64))?;
    let (timers, total) = timers();
    println!(
        "| claims/s, 1 caller | p50 | p99 | claims/s, 64 callers | p50 | p99 | timers/s | 100,000 timers |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    println!(
        "| {:.0} | {:.1?} | {:.1?} | {:.0} | {:.1?} | {:.1?} | {timers:.0} | {total:.1?} |",
        one.per_second, one.p50, one.p99, many.per_second, many.p50, many.p99
    );
    Ok(())
}

async fn claims(callers: usize) -> Result<Claims, Box<dyn Error>> {
    let tuning = PoolPolicy { min_warm: 256, max_warm: 512, ..PoolPolicy::default() };
    let policy = Policy { tuning, lease_max: Duration::from_secs(60) }.check()?;
    let pool = Pool::start(Arc::new(Nothing), policy);
    while pool.stats().await.warm < 256 {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    let tasks: Vec<_> = (0..callers).map(|_| tokio::spawn(claim(pool.clone(), began))).collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await??);
    }
    let took = began.elapsed();
    pool.close().await;
    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() * percent / 100).min(waits.len() - 1)];
    Ok(Claims { per_second: waits.len() as f64 / took.as_secs_f64(), p50: at(50), p99: at(99) })
}

async fn claim(pool: Pool<Nothing>, began: Instant) -> Result<Vec<Duration>, pool::LeaseError> {
    let mut waits = Vec::new();
    while began.elapsed() < RUN {
        let asked_at = Instant::now();
        let deadline = tokio::time::Instant::from_std(asked_at) + Duration::from_secs(10);
        let lease = pool.lease(deadline).await?;
        waits.push(asked_at.elapsed());
        drop(lease);
    }
    Ok(waits)
}

/// Sets 100,000 timers over ten minutes, cancels every other one, and lets the rest expire second
/// by second. Timers per second, and the time for all of it.
fn timers() -> (f64, Duration) {
    let mut wheel = Wheel::new();
    let began = Instant::now();
    let ids: Vec<_> =
        (0..TIMERS).map(|key| wheel.insert(key, key.wrapping_mul(7_919) % 600_000)).collect();
    let cancelled = ids.into_iter().step_by(2).filter_map(|id| wheel.cancel(id)).count();
    let expired: usize = (1..=600).map(|second| wheel.advance(second * 1000).len()).sum();
    let took = began.elapsed();
    assert!(cancelled + expired == 100_000, "every timer ended once");
    (TIMERS as f64 / took.as_secs_f64(), took)
}
