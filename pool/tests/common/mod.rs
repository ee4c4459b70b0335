//! What the tests of the pool share: a driver that counts, and time that is tokio's and paused.

#![allow(clippy::unwrap_used, dead_code, reason = "test code outside of test functions")]

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use pool::{Cause, Driver, Lease, LeaseError, Policy, Pool, ReapReason, Restored, Stats};
use pool_model::{PoolPolicy, Reuse};
use tokio::{
    sync::Notify,
    time::{Duration, Instant, sleep},
};

/// How long the driver takes for a restore.
pub(crate) const RESTORE: Duration = Duration::from_millis(150);
/// How long it takes for a destruction.
pub(crate) const DESTROY: Duration = Duration::from_millis(10);
/// How long it takes to check a used sandbox.
pub(crate) const RENEW: Duration = Duration::from_millis(2);

/// A pool and its driver.
pub(crate) struct TestPool {
    pub(crate) pool: Pool<Counting>,
    pub(crate) driver: Arc<Counting>,
}

impl TestPool {
    pub(crate) fn start(policy: Policy) -> Self {
        let driver = Arc::new(Counting::default());
        Self { pool: Pool::start(Arc::clone(&driver), policy), driver }
    }

    pub(crate) async fn lease(&self) -> Result<Lease<u64>, LeaseError> {
        self.pool.lease(Instant::now() + Duration::from_secs(30)).await
    }

    pub(crate) async fn stats(&self) -> Stats {
        self.pool.stats().await
    }

    /// Long enough for whatever has been begun.
    pub(crate) async fn settle(&self) {
        sleep(RESTORE * 3).await;
    }
}

/// Makes sandboxes that are numbers, and knows which of them live.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    pub(crate) restored: AtomicU64,
    /// Restores fail.
    pub(crate) broken: AtomicBool,
    /// The next restore panics.
    pub(crate) panics: AtomicBool,
    /// Used sandboxes are unfit.
    pub(crate) unfit: AtomicBool,
    /// Checks of used sandboxes never end.
    pub(crate) stuck: AtomicBool,
    /// Restores that were begun.
    pub(crate) tried: AtomicU64,
    alive: Mutex<HashSet<u64>>,
    most_alive: AtomicU64,
    killed: Mutex<HashSet<u64>>,
    deaths: Notify,
    reaped: Mutex<Vec<(u64, ReapReason)>>,
}

impl Counting {
    pub(crate) fn alive(&self) -> usize {
        self.alive.lock().unwrap().len()
    }

    /// The most that lived at once.
    pub(crate) fn most_alive(&self) -> u64 {
        self.most_alive.load(Ordering::Relaxed)
    }

    /// Why sandboxes were destroyed, in order.
    pub(crate) fn reaped(&self) -> Vec<ReapReason> {
        self.reaped.lock().unwrap().iter().map(|(_, why)| *why).collect()
    }

    /// Which sandboxes were destroyed, in order.
    pub(crate) fn gone(&self) -> Vec<u64> {
        self.reaped.lock().unwrap().iter().map(|(sandbox, _)| *sandbox).collect()
    }

    /// Has a sandbox die by itself.
    pub(crate) fn kill(&self, sandbox: u64) {
        self.killed.lock().unwrap().insert(sandbox);
        self.deaths.notify_waiters();
    }
}

#[async_trait::async_trait]
impl Driver for Counting {
    type Sandbox = u64;

    async fn restore(&self) -> Result<Restored<u64>, Cause> {
        self.tried.fetch_add(1, Ordering::Relaxed);
        sleep(RESTORE).await;
        assert!(!self.panics.swap(false, Ordering::Relaxed), "out of luck");
        if self.broken.load(Ordering::Relaxed) {
            return Err(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from("no disk")));
        }
        let sandbox = self.restored.fetch_add(1, Ordering::Relaxed);
        let mut alive = self.alive.lock().unwrap();
        alive.insert(sandbox);
        self.most_alive.fetch_max(alive.len() as u64, Ordering::Relaxed);
        Ok(Restored { sandbox, steps: vec![("vmm", RESTORE)] })
    }

    async fn renew(&self, _sandbox: Arc<u64>) -> Result<(), Cause> {
        sleep(RENEW).await;
        if self.stuck.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.unfit.load(Ordering::Relaxed) {
            return Err(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from("not clean")));
        }
        Ok(())
    }

    async fn destroy(&self, sandbox: Arc<u64>, why: ReapReason) {
        sleep(DESTROY).await;
        self.reaped.lock().unwrap().push((*sandbox, why));
        assert!(self.alive.lock().unwrap().remove(&sandbox), "destroyed twice");
    }

    async fn died(&self, sandbox: Arc<u64>) {
        loop {
            let next = self.deaths.notified();
            if self.killed.lock().unwrap().contains(&sandbox) {
                return;
            }
            next.await;
        }
    }
}

/// What an owner may set, with this floor and ceiling.
pub(crate) fn tuning(min_warm: u32, max_warm: u32) -> PoolPolicy {
    PoolPolicy { min_warm, max_warm, ..PoolPolicy::default() }
}

/// Sandboxes that serve several requests.
pub(crate) fn reusing(min_warm: u32, max_warm: u32, max_requests: u32) -> PoolPolicy {
    PoolPolicy { reuse: Reuse::Sequential, max_requests, ..tuning(min_warm, max_warm) }
}

/// A policy with leases of at most a minute.
pub(crate) fn policy(tuning: PoolPolicy) -> Policy {
    Policy { tuning, lease_max: Duration::from_secs(60) }.check().unwrap()
}
