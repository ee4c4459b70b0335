//! How many sandboxes a pool keeps, for how long, and when it replaces them.

mod common;

use std::sync::atomic::Ordering;

use common::{DESTROY, RESTORE, TestPool, policy, tuning};
use pool::ReapReason;
use pool_model::{PoolPolicy, Schedule};
use tokio::time::{Duration, sleep};

fn with_ttl(min_warm: u32, max_warm: u32, idle_ttl_ms: u64) -> PoolPolicy {
    PoolPolicy { idle_ttl_ms, ..tuning(min_warm, max_warm) }
}

#[tokio::test(start_paused = true)]
async fn floor_is_warm_without_any_caller_and_is_kept() {
    let pool = TestPool::start(policy(tuning(3, 8)));
    pool.settle().await;
    sleep(Duration::from_secs(3600)).await;
    let stats = pool.stats().await;
    assert_eq!((stats.warm, stats.restored, stats.target), (3, 3, 3));
}

#[tokio::test(start_paused = true)]
async fn idle_sandboxes_over_the_floor_are_reaped_by_ttl() {
    let pool = TestPool::start(policy(with_ttl(3, 4, 60_000)));
    pool.settle().await;
    pool.pool.set_policy(policy(with_ttl(0, 4, 60_000))).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(pool.stats().await.warm, 3, "not before its time");
    sleep(Duration::from_secs(31)).await;
    let stats = pool.stats().await;
    assert_eq!((stats.warm, stats.reaped_idle), (0, 3));
    assert_eq!(pool.driver.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn surplus_of_a_pool_that_had_callers_goes_after_a_short_grace() {
    let pool = TestPool::start(policy(with_ttl(6, 8, 60_000)));
    pool.settle().await;
    drop(pool.lease().await.unwrap());
    pool.settle().await;
    pool.pool.set_policy(policy(with_ttl(0, 8, 60_000))).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(pool.stats().await.warm, 6, "a caller may still take them");
    sleep(Duration::from_secs(5)).await;
    let stats = pool.stats().await;
    assert!(stats.warm <= stats.target.max(1) && stats.reaped_idle >= 5, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn prewarmed_sandboxes_are_kept_until_the_ttl_has_passed() {
    let pool = TestPool::start(policy(with_ttl(0, 5, 60_000)));
    pool.pool.prewarm(99).await;
    pool.settle().await;
    let stats = pool.stats().await;
    assert_eq!((stats.warm, stats.target), (5, 5), "at most max_warm");
    sleep(Duration::from_secs(58)).await;
    assert_eq!(pool.stats().await.warm, 5);
    sleep(Duration::from_secs(4)).await;
    let stats = pool.stats().await;
    assert_eq!((stats.warm, stats.target), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn scheduled_time_raises_the_floor() {
    let always = Schedule {
        days: Vec::new(),
        from: "00:00".parse().unwrap(),
        until: "00:00".parse().unwrap(),
        min_warm: 4,
    };
    let pool = TestPool::start(policy(PoolPolicy { schedule: vec![always], ..tuning(1, 5) }));
    pool.settle().await;
    assert_eq!(pool.stats().await.warm, 4);
}

#[tokio::test(start_paused = true)]
async fn refill_concurrency_is_held() {
    let pool = TestPool::start(policy(PoolPolicy { refill_concurrency: 2, ..tuning(6, 6) }));
    sleep(RESTORE / 2).await;
    assert_eq!(pool.stats().await.restoring, 2);
    sleep(RESTORE * 3).await;
    assert_eq!(pool.stats().await.warm, 6, "three rounds of two");
}

#[tokio::test(start_paused = true)]
async fn old_sandbox_is_replaced_after_its_successor_is_warm() {
    let pool = TestPool::start(policy(PoolPolicy { max_age_ms: 10_000, ..tuning(1, 2) }));
    pool.settle().await;
    for _ in 0..1000 {
        sleep(Duration::from_millis(25)).await;
        assert!(pool.stats().await.warm >= 1, "never without a warm one");
    }
    assert_eq!(pool.driver.gone(), [0, 1]);
    assert_eq!(pool.driver.reaped(), [ReapReason::Aged; 2]);
    assert_eq!(pool.stats().await.reaped_age, 2);
}

#[tokio::test(start_paused = true)]
async fn old_sandboxes_without_room_for_successors_go_one_by_one() {
    let pool = TestPool::start(policy(PoolPolicy { max_age_ms: 10_000, ..tuning(3, 3) }));
    pool.settle().await;
    for _ in 0..600 {
        sleep(Duration::from_millis(25)).await;
        assert!(pool.stats().await.warm >= 2, "one at a time");
    }
    assert_eq!(pool.driver.gone(), [0, 1, 2]);
    assert!(pool.driver.most_alive() <= 3);
}

#[tokio::test(start_paused = true)]
async fn new_greatest_age_counts_for_what_is_warm_already() {
    let pool = TestPool::start(policy(tuning(1, 2)));
    sleep(Duration::from_secs(60)).await;
    pool.pool.set_policy(policy(PoolPolicy { max_age_ms: 30_000, ..tuning(1, 2) })).await;
    sleep(RESTORE + DESTROY * 2).await;
    assert_eq!(pool.driver.gone(), [0]);
}

#[tokio::test(start_paused = true)]
async fn callers_raise_the_target_and_what_happened_is_in_the_series() {
    let pool = TestPool::start(policy(tuning(0, 16)));
    for _ in 0..300 {
        drop(pool.lease().await.unwrap());
        sleep(Duration::from_millis(50)).await;
    }
    let stats = pool.stats().await;
    assert!(stats.target >= 1, "many callers, and nothing is kept for them");
    assert!(stats.hits > stats.misses, "{} hits, {} misses", stats.hits, stats.misses);
    let in_series: u64 = stats.series.iter().map(|sample| sample.hits + sample.misses).sum();
    assert!(!stats.series.is_empty() && in_series > 0 && in_series <= 300, "{:?}", stats.series);
    assert_eq!(stats.steps[0].name, "vmm");
    assert_eq!(stats.steps[0].p50_us, 150_000);
    assert_eq!(stats.restore.count, pool.driver.restored.load(Ordering::Relaxed));
}
