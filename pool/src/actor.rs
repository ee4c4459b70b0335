//! One function's pool: a task that owns its slots, and the handle that callers hold.

mod task;

use std::{fmt, sync::Arc};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Driver, Lease, LeaseError, Policy, Stats};

/// Commands that may wait for one pool's task.
pub const QUEUE_LEN: usize = 4096;
/// Leases that may wait in one pool.
pub const WAITERS_MAX: usize = 1024;

/// The handle of one function's pool. Cheap to clone; all clones are one pool.
pub struct Pool<D: Driver> {
    commands_tx: mpsc::Sender<Command<D::Sandbox>>,
    cancel: CancellationToken,
    done: TaskTracker,
}

pub(crate) enum Command<S> {
    Lease { asked_at: Instant, reply: oneshot::Sender<Result<Lease<S>, LeaseError>> },
    SetPolicy(Policy),
    Stats(oneshot::Sender<Stats>),
}

impl<D: Driver> Pool<D> {
    /// Starts a pool that keeps what `policy` asks for. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(driver: Arc<D>, policy: Policy) -> Self {
        let (commands_tx, commands_rx) = mpsc::channel(QUEUE_LEN);
        let cancel = CancellationToken::new();
        let done = TaskTracker::new();
        done.spawn(task::Task::new(driver, policy, commands_rx).run(cancel.clone()));
        done.close();
        Self { commands_tx, cancel, done }
    }

    /// Takes a sandbox out of the pool, waiting for a restore if none is warm.
    ///
    /// # Errors
    ///
    /// [`LeaseError`]: what stood in the way.
    ///
    /// # Cancel safety
    ///
    /// A sandbox that was given to a caller who hung up goes to the next one, or stays warm.
    pub async fn lease(&self, deadline: Instant) -> Result<Lease<D::Sandbox>, LeaseError> {
        let asked_at = Instant::now();
        let (reply, answer) = oneshot::channel();
        let asked = self.commands_tx.send(Command::Lease { asked_at, reply });
        let timed_out = || LeaseError::TimedOut { waited: asked_at.elapsed() };
        timeout_at(deadline, asked)
            .await
            .map_err(|_| timed_out())?
            .map_err(|_| LeaseError::Closed)?;
        match timeout_at(deadline, answer).await {
            Ok(answered) => answered.unwrap_or(Err(LeaseError::Closed)),
            Err(_) => Err(timed_out()),
        }
    }

    /// Changes the policy at once. Ignored by a closed pool.
    pub async fn set_policy(&self, policy: Policy) {
        // An error means the pool is closed: there is nothing to change any more.
        let _ = self.commands_tx.send(Command::SetPolicy(policy)).await;
    }

    /// What the pool holds and counted. A closed pool answers zeroes.
    pub async fn stats(&self) -> Stats {
        let (reply, answer) = oneshot::channel();
        if self.commands_tx.send(Command::Stats(reply)).await.is_err() {
            return Stats::default();
        }
        answer.await.unwrap_or_default()
    }

    /// Stops lending and restoring, lets leases end, and returns when every sandbox is gone.
    ///
    /// Leases that last longer than their limit are cut, so this is bounded by `lease_max`.
    pub async fn close(&self) {
        self.cancel.cancel();
        self.done.wait().await;
    }
}

impl<D: Driver> Clone for Pool<D> {
    fn clone(&self) -> Self {
        Self {
            commands_tx: self.commands_tx.clone(),
            cancel: self.cancel.clone(),
            done: self.done.clone(),
        }
    }
}

impl<D: Driver> fmt::Debug for Pool<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("closed", &self.cancel.is_cancelled()).finish_non_exhaustive()
    }
}
