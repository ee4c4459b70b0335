//! What draining and closing leave behind: nothing.

mod common;

use std::sync::atomic::Ordering;

use common::{DESTROY, RENEW, TestPool, policy, reusing, tuning};
use pool::{LeaseError, ReapReason, Stats};
use tokio::time::{Duration, Instant, sleep};

#[tokio::test(start_paused = true)]
async fn drain_destroys_what_is_warm_and_returns_when_it_is_gone() {
    let pool = TestPool::start(policy(tuning(3, 3)));
    pool.settle().await;
    let lease = pool.lease().await.unwrap();
    pool.settle().await;
    let began = Instant::now();
    let drained = pool.pool.drain().await;
    assert!(began.elapsed() >= DESTROY);
    let mut gone = pool.driver.gone();
    gone.sort_unstable();
    assert_eq!((drained, gone), (3, vec![1, 2, 3]));
    assert_eq!(pool.driver.reaped(), [ReapReason::Drained; 3]);
    pool.settle().await;
    let stats = pool.stats().await;
    assert_eq!((stats.leased, stats.warm >= 3), (1, true), "leases stay, new ones are made");
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn drain_of_an_empty_or_closed_pool_is_none() {
    let pool = TestPool::start(policy(tuning(0, 1)));
    assert_eq!(pool.pool.drain().await, 0);
    pool.pool.close().await;
    assert_eq!(pool.pool.drain().await, 0);
    assert_eq!(pool.stats().await, Stats::default());
    assert_eq!(pool.pool.want(1).await.in_use, 0);
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_leases_and_leaves_nothing() {
    let pool = TestPool::start(policy(tuning(3, 3)));
    pool.settle().await;
    let lease = pool.lease().await.unwrap();
    let closing = tokio::spawn({
        let pool = pool.pool.clone();
        async move { pool.close().await }
    });
    sleep(Duration::from_secs(1)).await;
    assert!(!closing.is_finished(), "a lease is still out");
    assert!(matches!(pool.lease().await, Err(LeaseError::Closed)));
    drop(lease);
    closing.await.unwrap();
    assert_eq!(pool.driver.alive(), 0);
    assert!(matches!(pool.lease().await, Err(LeaseError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn close_during_a_restore_kills_what_comes_out_of_it() {
    let pool = TestPool::start(policy(tuning(2, 2)));
    sleep(Duration::from_millis(1)).await;
    pool.pool.close().await;
    assert_eq!((pool.driver.alive(), pool.driver.reaped().len()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn close_during_a_check_destroys_the_used_sandbox() {
    let pool = TestPool::start(policy(reusing(0, 1, 9)));
    pool.lease().await.unwrap().finish();
    sleep(RENEW / 2).await;
    pool.pool.close().await;
    assert_eq!((pool.driver.alive(), pool.driver.reaped()), (0, vec![ReapReason::Released]));
}

#[tokio::test(start_paused = true)]
async fn close_while_restores_fail_ends() {
    let pool = TestPool::start(policy(tuning(2, 2)));
    pool.driver.broken.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(2)).await;
    pool.pool.close().await;
    assert_eq!(pool.driver.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn callers_who_wait_are_told_that_it_closed() {
    let pool = TestPool::start(policy(tuning(0, 1)));
    let waiting = tokio::spawn({
        let pool = pool.pool.clone();
        async move { pool.lease(Instant::now() + Duration::from_secs(30)).await }
    });
    sleep(Duration::from_millis(1)).await;
    pool.pool.close().await;
    assert!(matches!(waiting.await.unwrap(), Err(LeaseError::Closed)));
}
