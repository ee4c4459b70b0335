//! What a pool promises, against a driver that counts; time is tokio's and paused.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use pool::{Cause, Driver, LeaseError, Policy, Pool, ReapReason};
use tokio::time::{Duration, Instant, sleep};

const RESTORE: Duration = Duration::from_millis(150);
const DESTROY: Duration = Duration::from_millis(10);

#[tokio::test(start_paused = true)]
async fn thirty_leases_get_thirty_sandboxes() {
    let pool = TestPool::start(policy(2, 4));
    let mut seen = HashSet::new();
    for _ in 0..30 {
        assert!(seen.insert(*pool.lease().await.unwrap()), "a sandbox was lent twice");
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_over_the_pool_is_served_in_order() {
    let pool = TestPool::start(policy(2, 4));
    pool.settle().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut callers = Vec::new();
    for caller in 0..20 {
        let (pool, order) = (pool.pool.clone(), Arc::clone(&order));
        callers.push(tokio::spawn(async move {
            sleep(Duration::from_micros(caller)).await;
            let lease = pool.lease(Instant::now() + Duration::from_secs(30)).await.unwrap();
            order.lock().unwrap().push(caller);
            sleep(Duration::from_millis(5)).await;
            drop(lease);
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
    let stats = pool.pool.stats().await;
    assert_eq!((stats.hits, stats.misses), (2, 18));
}

#[tokio::test(start_paused = true)]
async fn lease_whose_caller_hung_up_does_not_lose_the_sandbox() {
    let pool = TestPool::start(policy(0, 1));
    let hung_up = pool.pool.lease(Instant::now() + Duration::from_millis(10)).await;
    assert!(matches!(hung_up, Err(LeaseError::TimedOut { .. })));
    pool.settle().await;
    assert_eq!(pool.pool.stats().await.warm, 1);
    let before = pool.driver.restored.load(Ordering::Relaxed);
    let _lease = pool.lease().await.unwrap();
    assert_eq!(pool.driver.restored.load(Ordering::Relaxed), before, "the waiting one was lent");
}

#[tokio::test(start_paused = true)]
async fn idle_sandboxes_over_the_floor_are_reaped_by_ttl() {
    let pool = TestPool::start(Policy { idle_ttl: Duration::from_secs(60), ..policy(3, 4) });
    pool.settle().await;
    pool.pool.set_policy(Policy { idle_ttl: Duration::from_secs(60), ..policy(0, 4) }).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(pool.pool.stats().await.warm, 3, "not before its time");
    sleep(Duration::from_secs(31)).await;
    let stats = pool.pool.stats().await;
    assert_eq!((stats.warm, stats.reaped_idle), (0, 3));
    assert_eq!(pool.driver.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn lease_that_outlives_its_limit_is_cut() {
    let pool = TestPool::start(Policy { lease_max: Duration::from_secs(5), ..policy(0, 1) });
    let lease = pool.lease().await.unwrap();
    sleep(Duration::from_secs(6)).await;
    assert_eq!(pool.driver.reaped(), [ReapReason::LeaseExpired]);
    drop(lease);
    pool.settle().await;
    assert_eq!(pool.driver.reaped().len(), 1, "once is enough");
}

#[tokio::test(start_paused = true)]
async fn warm_sandbox_that_dies_is_replaced_and_never_lent() {
    let pool = TestPool::start(policy(1, 2));
    pool.settle().await;
    pool.driver.kill(0);
    pool.settle().await;
    assert_eq!(*pool.lease().await.unwrap(), 1);
    assert!(pool.driver.reaped().contains(&ReapReason::Died));
}

#[tokio::test(start_paused = true)]
async fn restores_that_keep_failing_refuse_with_the_cause_and_recover() {
    let pool = TestPool::start(policy(0, 2));
    pool.driver.broken.store(true, Ordering::Relaxed);
    match pool.lease().await {
        Err(LeaseError::Broken { failures: 3, cause }) => assert_eq!(cause.to_string(), "no disk"),
        other => panic!("{other:?}"),
    }
    assert_eq!(pool.pool.stats().await.last_error, "no disk");
    pool.driver.broken.store(false, Ordering::Relaxed);
    pool.lease().await.unwrap();
    assert_eq!(pool.pool.stats().await.last_error, "");
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_leases_and_leaves_nothing() {
    let pool = TestPool::start(policy(3, 3));
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
    let pool = TestPool::start(policy(2, 2));
    sleep(Duration::from_millis(1)).await;
    pool.pool.close().await;
    assert_eq!(pool.driver.alive(), 0);
}

struct TestPool {
    pool: Pool<Counting>,
    driver: Arc<Counting>,
}

impl TestPool {
    fn start(policy: Policy) -> Self {
        let driver = Arc::new(Counting::default());
        Self { pool: Pool::start(Arc::clone(&driver), policy), driver }
    }

    async fn lease(&self) -> Result<pool::Lease<u64>, LeaseError> {
        self.pool.lease(Instant::now() + Duration::from_secs(30)).await
    }

    async fn settle(&self) {
        sleep(RESTORE * 3).await;
    }
}

#[derive(Debug, Default)]
struct Counting {
    restored: AtomicU64,
    broken: AtomicBool,
    alive: Mutex<HashSet<u64>>,
    killed: Mutex<HashSet<u64>>,
    reaped: Mutex<Vec<ReapReason>>,
}

impl Counting {
    fn alive(&self) -> usize {
        self.alive.lock().unwrap().len()
    }
    fn reaped(&self) -> Vec<ReapReason> {
        self.reaped.lock().unwrap().clone()
    }
    fn kill(&self, sandbox: u64) {
        self.killed.lock().unwrap().insert(sandbox);
    }
}

#[async_trait::async_trait]
impl Driver for Counting {
    type Sandbox = u64;

    async fn restore(&self) -> Result<u64, Cause> {
        sleep(RESTORE).await;
        if self.broken.load(Ordering::Relaxed) {
            return Err(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from("no disk")));
        }
        let sandbox = self.restored.fetch_add(1, Ordering::Relaxed);
        self.alive.lock().unwrap().insert(sandbox);
        Ok(sandbox)
    }

    async fn destroy(&self, sandbox: Arc<u64>, why: ReapReason) {
        sleep(DESTROY).await;
        self.reaped.lock().unwrap().push(why);
        assert!(self.alive.lock().unwrap().remove(&sandbox), "destroyed twice");
    }

    async fn died(&self, sandbox: Arc<u64>) {
        while !self.killed.lock().unwrap().contains(&sandbox) {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

fn policy(min_warm: u32, max_warm: u32) -> Policy {
    let (idle_ttl, lease_max) = (Duration::from_secs(600), Duration::from_secs(60));
    Policy { min_warm, max_warm, idle_ttl, lease_max }.check().unwrap()
}
