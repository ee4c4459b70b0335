//! Who is lent which sandbox, in which order, and what becomes of it.

mod common;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, atomic::Ordering},
};

use common::{RESTORE, TestPool, policy, tuning};
use pool::{LeaseError, Policy, ReapReason, WAITERS_MAX};
use pool_model::{PoolPolicy, Reuse};
use tokio::time::{Duration, Instant, sleep};

#[tokio::test(start_paused = true)]
async fn thirty_leases_get_thirty_sandboxes() {
    let pool = TestPool::start(policy(tuning(2, 4)));
    let mut seen = HashSet::new();
    for turn in 0..30 {
        let lease = pool.lease().await.unwrap();
        assert!(seen.insert(*lease), "a sandbox was lent twice");
        assert_eq!((lease.served, lease.reuse, lease.max_requests), (1, Reuse::Never, 1));
        if turn % 2 == 0 {
            lease.finish(); // a clean end changes nothing without reuse
        }
    }
    pool.settle().await;
    assert_eq!(pool.driver.reaped(), [ReapReason::Released; 30]);
    assert_eq!(pool.stats().await.reused, 0);
}

/// Twenty callers at once on a pool of ten: ten hits, ten that wait one refill.
#[tokio::test(start_paused = true)]
async fn burst_over_the_pool_waits_in_order_and_no_longer_than_its_depth() {
    let pool = TestPool::start(policy(tuning(10, 10)));
    pool.settle().await;
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut callers = Vec::new();
    for caller in 0..20u64 {
        let (pool, served) = (pool.pool.clone(), Arc::clone(&served));
        callers.push(tokio::spawn(async move {
            sleep(Duration::from_millis(caller)).await;
            let lease = pool.lease(Instant::now() + Duration::from_secs(30)).await.unwrap();
            served.lock().unwrap().push((caller, lease.waited));
            sleep(Duration::from_millis(5)).await;
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let served = served.lock().unwrap().clone();
    let order: Vec<u64> = served.iter().map(|(caller, _)| *caller).collect();
    assert_eq!(order, (0..20).collect::<Vec<_>>());
    let waits: Vec<Duration> = served.iter().map(|(_, waited)| *waited).collect();
    assert!(waits[..10].iter().all(|waited| waited.is_zero()), "{waits:?}");
    let depth = 1; // ten wait, ten are restored at once
    assert!(waits.iter().all(|waited| *waited <= RESTORE * depth), "{waits:?}");
    let stats = pool.stats().await;
    assert_eq!((stats.hits, stats.misses), (10, 10));
    assert!(stats.lease_wait_us_p99 <= 150_000);
}

#[tokio::test(start_paused = true)]
async fn callers_are_served_in_order_one_refill_after_the_other() {
    let narrow = PoolPolicy { refill_concurrency: 2, ..tuning(0, 8) };
    let pool = TestPool::start(policy(narrow));
    let began = Instant::now();
    let callers = (0..6u64).map(|caller| {
        let pool = pool.pool.clone();
        async move {
            sleep(Duration::from_millis(caller)).await;
            let _lease = pool.lease(began + Duration::from_secs(30)).await.unwrap();
            (caller, began.elapsed())
        }
    });
    let served = futures::future::join_all(callers).await;
    assert!(served.is_sorted_by_key(|(_, at)| *at), "{served:?}");
    assert!(served[5].1 <= RESTORE * 3 + Duration::from_millis(10), "{served:?}");
    assert!(served[5].1 >= RESTORE * 3, "two at a time: {served:?}");
}

#[tokio::test(start_paused = true)]
async fn lease_whose_caller_hung_up_does_not_lose_the_sandbox() {
    let pool = TestPool::start(policy(tuning(0, 1)));
    let hung_up = pool.pool.lease(Instant::now() + Duration::from_millis(10)).await;
    assert!(matches!(hung_up, Err(LeaseError::TimedOut { .. })));
    pool.settle().await;
    let stats = pool.stats().await;
    assert_eq!((stats.warm, stats.refused), (1, 1));
    let before = pool.driver.restored.load(Ordering::Relaxed);
    let _lease = pool.lease().await.unwrap();
    assert_eq!(pool.driver.restored.load(Ordering::Relaxed), before, "the waiting one was lent");
}

#[tokio::test(start_paused = true)]
async fn callers_who_hung_up_are_waited_for_no_more() {
    let pool = TestPool::start(policy(tuning(0, 1000)));
    pool.pool.set_cap(0).await;
    let soon = Instant::now() + Duration::from_millis(10);
    let hung_up = (0..8).map(|_| pool.pool.lease(soon));
    assert!(futures::future::join_all(hung_up).await.iter().all(Result::is_err));
    let (stats, want) = (pool.stats().await, pool.pool.want(1).await);
    assert_eq!((stats.refused, want.target), (8, stats.target), "nobody comes on top");
}

#[tokio::test(start_paused = true)]
async fn lease_that_outlives_its_limit_is_cut() {
    let pool =
        TestPool::start(Policy { lease_max: Duration::from_secs(5), ..policy(tuning(0, 1)) });
    let lease = pool.lease().await.unwrap();
    sleep(Duration::from_millis(4900)).await;
    assert_eq!(pool.driver.reaped(), [], "not before its time");
    sleep(Duration::from_millis(200)).await;
    assert_eq!(pool.driver.reaped(), [ReapReason::LeaseExpired]);
    drop(lease);
    pool.settle().await;
    assert_eq!(pool.driver.reaped().len(), 1, "once is enough");
    assert_eq!(pool.stats().await.reaped_lease, 1);
}

#[tokio::test(start_paused = true)]
async fn warm_sandbox_that_dies_is_replaced_and_never_lent() {
    let pool = TestPool::start(policy(tuning(1, 2)));
    pool.settle().await;
    pool.driver.kill(0);
    pool.settle().await;
    assert_eq!(*pool.lease().await.unwrap(), 1);
    assert!(pool.driver.reaped().contains(&ReapReason::Died));
}

#[tokio::test(start_paused = true)]
async fn more_callers_than_may_wait_are_refused_at_once() {
    let pool = TestPool::start(policy(tuning(0, 1)));
    let deadline = Instant::now() + Duration::from_millis(50);
    let callers = (0..=WAITERS_MAX).map(|_| pool.pool.lease(deadline));
    let answers = futures::future::join_all(callers).await;
    let full = |answer: &&Result<_, LeaseError>| matches!(answer, Err(LeaseError::Full { .. }));
    assert_eq!(answers.iter().filter(full).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn thousand_ends_at_once_lose_no_sandbox() {
    let pool = TestPool::start(policy(tuning(0, 1000)));
    let deadline = Instant::now() + Duration::from_secs(30);
    let callers = (0..1000).map(|_| pool.pool.lease(deadline));
    let leases = futures::future::join_all(callers).await;
    assert!(leases.iter().all(Result::is_ok));
    drop(leases);
    pool.settle().await;
    let stats = pool.stats().await;
    assert_eq!((stats.leased, stats.reaping, pool.driver.reaped().len()), (0, 0, 1000));
}
