//! What a pool gives up and does without when the host's memory is short.

mod common;

use std::sync::atomic::Ordering;

use common::{RESTORE, TestPool, policy, reusing, tuning};
use pool::{LeaseError, ReapReason, budget};
use pool_model::PoolPolicy;
use tokio::time::{Duration, Instant, sleep};

#[tokio::test(start_paused = true)]
async fn warm_sandboxes_over_the_cap_are_evicted_oldest_first_and_not_made_again() {
    let pool = TestPool::start(policy(tuning(4, 4)));
    pool.settle().await;
    let _lease = pool.lease().await.unwrap();
    pool.settle().await;
    pool.pool.set_cap(3).await;
    sleep(Duration::from_secs(5)).await;
    let stats = pool.stats().await;
    assert_eq!((stats.leased, stats.warm, stats.evicted, stats.cap), (1, 2, 2, 3));
    assert_eq!(pool.driver.reaped(), [ReapReason::Evicted; 2]);
    assert_eq!(pool.driver.gone(), [1, 2], "oldest first");
    pool.pool.set_cap(5).await;
    pool.settle().await;
    assert_eq!(pool.stats().await.warm, 4, "made again when there is room");
}

#[tokio::test(start_paused = true)]
async fn leases_are_never_cut_for_the_cap() {
    let pool = TestPool::start(policy(tuning(0, 4)));
    pool.pool.set_cap(1).await;
    let lease = pool.lease().await.unwrap();
    pool.pool.set_cap(0).await;
    let refused = pool.pool.lease(Instant::now() + Duration::from_secs(1)).await;
    assert!(matches!(refused, Err(LeaseError::TimedOut { .. })), "{refused:?}");
    assert_eq!((pool.stats().await.leased, pool.driver.reaped().len()), (1, 0));
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn restore_that_ends_over_the_cap_serves_who_waits_or_goes() {
    let pool = TestPool::start(policy(tuning(2, 2)));
    sleep(RESTORE / 2).await;
    pool.pool.set_cap(1).await;
    pool.settle().await;
    let stats = pool.stats().await;
    assert_eq!((stats.warm, stats.evicted), (1, 1));
    assert_eq!(pool.driver.restored.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn used_sandbox_returns_within_the_cap_it_counted_for() {
    let pool = TestPool::start(policy(reusing(0, 4, 9)));
    pool.pool.set_cap(1).await;
    pool.lease().await.unwrap().finish();
    pool.settle().await;
    assert_eq!((pool.stats().await.warm, pool.driver.reaped().len()), (1, 0));
    let lease = pool.lease().await.unwrap();
    pool.pool.set_cap(0).await;
    lease.finish();
    pool.settle().await;
    assert_eq!(pool.driver.gone(), [0], "no room for it any more");
}

#[tokio::test(start_paused = true)]
async fn wants_of_pools_are_shared_and_held() {
    const MIB: u64 = 1 << 20;
    let (mine, other) = (
        TestPool::start(policy(tuning(2, 2))),
        TestPool::start(policy(PoolPolicy { memory_budget_mib: 256, ..tuning(3, 8) })),
    );
    mine.settle().await;
    let _lease = mine.lease().await.unwrap();
    mine.settle().await;
    let wants = [mine.pool.want(128 * MIB).await, other.pool.want(128 * MIB).await];
    assert_eq!((wants[0].min, wants[0].in_use, wants[0].limit_bytes), (2, 3, 0));
    assert_eq!(wants[0].target, 3, "the leased one comes on top");
    assert_eq!((wants[1].min, wants[1].limit_bytes), (3, 256 * MIB));
    let caps = budget::share(&wants, 5 * 128 * MIB);
    assert_eq!(caps, [3, 2], "its own budget is for two");
    mine.pool.set_cap(caps[0]).await;
    other.pool.set_cap(caps[1]).await;
    mine.settle().await;
    assert!(mine.driver.alive() + other.driver.alive() <= 5);
}
