//! What callers get while restores fail: a reason at once, and what is warm all the same.

mod common;

use std::sync::atomic::Ordering;

use common::{RESTORE, TestPool, policy, tuning};
use pool::{BreakerState, LeaseError};
use tokio::time::{Duration, Instant, sleep};

#[tokio::test(start_paused = true)]
async fn restores_that_keep_failing_refuse_with_the_cause_and_recover() {
    let pool = TestPool::start(policy(tuning(0, 2)));
    pool.driver.broken.store(true, Ordering::Relaxed);
    match pool.lease().await {
        Err(LeaseError::Broken { failures: 3, retry_in, cause }) => {
            assert_eq!(cause.to_string(), "no disk");
            assert!(retry_in >= Duration::from_millis(200), "{retry_in:?}");
        }
        other => panic!("{other:?}"),
    }
    let stats = pool.stats().await;
    assert_eq!((stats.last_error.as_str(), stats.breaker), ("no disk", BreakerState::Open));
    assert!(stats.retry_in_ms > 0 && stats.failed == 3 && stats.refused == 1, "{stats:?}");
    let asked_at = Instant::now();
    assert!(matches!(pool.lease().await, Err(LeaseError::Broken { .. })));
    assert!(asked_at.elapsed() < Duration::from_millis(2), "refused at once");

    pool.driver.broken.store(false, Ordering::Relaxed);
    sleep(Duration::from_millis(stats.retry_in_ms + 1)).await;
    assert_eq!(pool.stats().await.breaker, BreakerState::HalfOpen);
    pool.lease().await.unwrap();
    let stats = pool.stats().await;
    assert_eq!((stats.last_error.as_str(), stats.breaker), ("", BreakerState::Closed));
}

#[tokio::test(start_paused = true)]
async fn half_open_pool_tries_one_restore_however_many_wait() {
    let pool = TestPool::start(policy(tuning(0, 8)));
    pool.driver.broken.store(true, Ordering::Relaxed);
    let retry_in = loop {
        if let Err(LeaseError::Broken { retry_in, .. }) = pool.lease().await {
            break retry_in;
        }
    };
    let before = pool.driver.tried.load(Ordering::Relaxed);
    sleep(retry_in + Duration::from_millis(1)).await;
    let callers = (0..8).map(|_| pool.lease());
    let answers = futures::future::join_all(callers).await;
    let broken = |answer: &Result<_, LeaseError>| matches!(answer, Err(LeaseError::Broken { .. }));
    assert!(answers.iter().all(broken), "{answers:?}");
    assert_eq!(pool.driver.tried.load(Ordering::Relaxed), before + 1, "one probe for all");
}

#[tokio::test(start_paused = true)]
async fn warm_sandboxes_are_lent_while_it_is_open() {
    let pool = TestPool::start(policy(tuning(3, 3)));
    pool.settle().await;
    pool.driver.broken.store(true, Ordering::Relaxed);
    let _first = pool.lease().await.unwrap();
    while pool.stats().await.breaker != BreakerState::Open {
        sleep(Duration::from_millis(5)).await;
    }
    let second = pool.lease().await.unwrap();
    let _third = pool.lease().await.unwrap();
    assert!(second.hit);
    assert!(matches!(pool.lease().await, Err(LeaseError::Broken { .. })));
}

#[tokio::test(start_paused = true)]
async fn floor_is_restored_again_without_any_caller() {
    let pool = TestPool::start(policy(tuning(2, 2)));
    pool.driver.broken.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;
    let tried = pool.driver.tried.load(Ordering::Relaxed);
    assert!((6..=20).contains(&tried), "{tried} tries in a minute: paused ever longer");
    pool.driver.broken.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(pool.stats().await.warm, 2);
}

#[tokio::test(start_paused = true)]
async fn driver_that_panics_costs_one_restore_and_not_the_pool() {
    let pool = TestPool::start(policy(tuning(0, 1)));
    pool.driver.panics.store(true, Ordering::Relaxed);
    let asked_at = Instant::now();
    pool.lease().await.unwrap();
    assert!(asked_at.elapsed() < RESTORE * 2 + Duration::from_millis(110));
    assert_eq!(pool.stats().await.failed, 1);
}
