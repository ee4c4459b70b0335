//! Which sandboxes serve a second request: those of functions that opted in, and only clean ones.

mod common;

use std::sync::atomic::Ordering;

use common::{RENEW, RESTORE, TestPool, policy, reusing, tuning};
use pool::{Policy, ReapReason};
use pool_model::{PoolPolicy, Reuse};
use tokio::time::{Duration, sleep};

#[tokio::test(start_paused = true)]
async fn sandbox_serves_as_many_requests_as_it_may_one_after_the_other() {
    let pool = TestPool::start(policy(reusing(0, 1, 3)));
    let mut served = Vec::new();
    for _ in 0..7 {
        let lease = pool.lease().await.unwrap();
        served.push((*lease, lease.served));
        lease.finish();
        sleep(RENEW * 2).await;
    }
    let expected = [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (2, 1)];
    assert_eq!(served, expected);
    let stats = pool.stats().await;
    assert_eq!((stats.reused, stats.hits, stats.misses), (4, 4, 3));
    assert_eq!(pool.driver.reaped(), [ReapReason::Released; 2]);
}

#[tokio::test(start_paused = true)]
async fn lease_that_is_only_dropped_is_not_clean() {
    let pool = TestPool::start(policy(reusing(0, 1, 9)));
    drop(pool.lease().await.unwrap());
    pool.settle().await;
    assert_eq!(pool.driver.reaped(), [ReapReason::Released]);
    assert_eq!(*pool.lease().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn used_sandbox_that_fails_its_check_is_destroyed() {
    let pool = TestPool::start(policy(reusing(0, 1, 9)));
    pool.driver.unfit.store(true, Ordering::Relaxed);
    pool.lease().await.unwrap().finish();
    pool.settle().await;
    assert_eq!(pool.driver.reaped(), [ReapReason::Unfit]);
}

#[tokio::test(start_paused = true)]
async fn check_that_never_ends_is_cut_by_the_leases_limit() {
    let limit = Duration::from_secs(5);
    let pool = TestPool::start(Policy { lease_max: limit, ..policy(reusing(0, 1, 9)) });
    pool.driver.stuck.store(true, Ordering::Relaxed);
    pool.lease().await.unwrap().finish();
    sleep(limit + RESTORE).await;
    assert_eq!(pool.driver.reaped(), [ReapReason::LeaseExpired]);
}

#[tokio::test(start_paused = true)]
async fn returned_sandbox_goes_to_who_waits() {
    let pool = TestPool::start(policy(reusing(0, 1, 9)));
    let lease = pool.lease().await.unwrap();
    let waiting = tokio::spawn({
        let pool = pool.pool.clone();
        async move { pool.lease(tokio::time::Instant::now() + RESTORE / 2).await }
    });
    sleep(Duration::from_millis(1)).await;
    lease.finish();
    let lease = waiting.await.unwrap().unwrap();
    assert_eq!((*lease, lease.served, lease.hit), (0, 2, false));
    assert!(lease.waited <= RENEW + Duration::from_millis(2), "{:?}", lease.waited);
}

#[tokio::test(start_paused = true)]
async fn owner_who_takes_reuse_back_has_used_sandboxes_destroyed() {
    let pool = TestPool::start(policy(reusing(0, 2, 9)));
    pool.lease().await.unwrap().finish();
    pool.settle().await;
    let out = pool.lease().await.unwrap();
    assert_eq!(out.served, 2);
    out.finish();
    sleep(RENEW * 2).await;
    pool.pool.set_policy(policy(tuning(0, 2))).await;
    let lease = pool.lease().await.unwrap();
    assert_eq!((*lease, lease.served), (1, 1), "the used one is never lent again");
    pool.settle().await;
    assert_eq!(pool.driver.gone(), [0]);
}

#[tokio::test(start_paused = true)]
async fn used_sandbox_keeps_its_age() {
    let short = PoolPolicy { max_age_ms: 10_000, ..reusing(0, 1, 1000) };
    let pool = TestPool::start(policy(short));
    for _ in 0..9 {
        let lease = pool.lease().await.unwrap();
        assert_eq!((*lease, lease.reuse), (0, Reuse::Sequential));
        sleep(Duration::from_secs(1)).await;
        lease.finish();
        sleep(RENEW * 2).await;
    }
    let lease = pool.lease().await.unwrap();
    sleep(Duration::from_secs(2)).await;
    lease.finish();
    pool.settle().await;
    assert_eq!(pool.driver.gone(), [0], "too old to return");
}
