//! One function's pool: a task that owns its slots, and the handle that callers hold.

mod lend;
mod life;
mod supply;
mod task;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Driver, Lease, LeaseError, Policy, Stats, Want,
    lease::{Ended, Token},
};

/// Commands that may wait for one pool's task.
pub const QUEUE_LEN: usize = 4096;
/// Leases that may wait in one pool.
pub const WAITERS_MAX: usize = 1024;

/// The handle of one function's pool. Cheap to clone; all clones are one pool, which lives until it
/// is closed, even if every handle is dropped.
pub struct Pool<D: Driver> {
    commands_tx: mpsc::Sender<Command<D::Sandbox>>,
    ended_tx: mpsc::UnboundedSender<Ended>,
    tokens: Arc<AtomicU64>,
    cancel: CancellationToken,
    done: TaskTracker,
}

/// Where a caller's sandbox, or the reason why there is none, is sent.
type LeaseReply<S> = oneshot::Sender<Result<Lease<S>, LeaseError>>;

enum Command<S> {
    Lease { token: Token, asked_at: Instant, reply: LeaseReply<S> },
    SetPolicy(Policy),
    SetCap(u32),
    Prewarm(u32),
    Drain(oneshot::Sender<u32>),
    Want { bytes_each: u64, reply: oneshot::Sender<Want> },
    Stats(oneshot::Sender<Stats>),
}

impl<D: Driver> Pool<D> {
    /// Starts a pool that keeps what `policy` asks for. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(driver: Arc<D>, policy: Policy) -> Self {
        let (commands_tx, commands_rx) = mpsc::channel(QUEUE_LEN);
        #[expect(
            clippy::disallowed_methods,
            reason = "bounded by what it speaks of: one message per lease and per waiting caller"
        )]
        let (ended_tx, ended_rx) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let done = TaskTracker::new();
        let queues = task::Queues { commands_rx, ended_rx };
        let task = task::Task::new(driver, policy, queues, ended_tx.clone());
        done.spawn(task.run(cancel.clone()));
        done.close();
        Self { commands_tx, ended_tx, tokens: Arc::default(), cancel, done }
    }

    /// Takes a sandbox out of the pool, waiting for a restore if none is warm.
    ///
    /// # Errors
    ///
    /// [`LeaseError`]: what stood in the way.
    ///
    /// # Cancel safety
    ///
    /// A caller that hangs up while it waits loses nothing: what is restored for it goes to the
    /// next one, or stays warm. A sandbox that was on its way to it is destroyed.
    pub async fn lease(&self, deadline: Instant) -> Result<Lease<D::Sandbox>, LeaseError> {
        let asked_at = Instant::now();
        let token = Token(self.tokens.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        let asked = self.commands_tx.send(Command::Lease { token, asked_at, reply });
        let timed_out = || LeaseError::TimedOut { waited: asked_at.elapsed() };
        timeout_at(deadline, asked)
            .await
            .map_err(|_| timed_out())?
            .map_err(|_| LeaseError::Closed)?;
        let mut waiting = Waiting { token, ended_tx: Some(&self.ended_tx) };
        match timeout_at(deadline, answer).await {
            Ok(answered) => {
                waiting.ended_tx = None;
                answered.unwrap_or(Err(LeaseError::Closed))
            }
            Err(_) => Err(timed_out()),
        }
    }

    /// Changes the policy at once. Ignored by a closed pool.
    pub async fn set_policy(&self, policy: Policy) {
        self.tell(Command::SetPolicy(policy)).await;
    }

    /// Sets how many sandboxes the host's memory budget grants: warm, restoring and leased ones
    /// together. Warm ones above it are destroyed at once, oldest first. Ignored by a closed pool.
    pub async fn set_cap(&self, cap: u32) {
        self.tell(Command::SetCap(cap)).await;
    }

    /// Keeps at least `count` warm, at most `max_warm`, until the idle TTL has passed. The last
    /// call counts. Returns before they are warm. Ignored by a closed pool.
    pub async fn prewarm(&self, count: u32) {
        self.tell(Command::Prewarm(count)).await;
    }

    /// Destroys what is warm and returns how many those were, once they are gone. The pool makes
    /// new ones at once if its policy asks for them. A closed pool answers 0.
    ///
    /// # Cancel safety
    ///
    /// They are destroyed all the same.
    pub async fn drain(&self) -> u32 {
        self.ask(Command::Drain).await.unwrap_or_default()
    }

    /// What the pool wants of the host's memory, with `bytes_each` for one sandbox. A closed pool
    /// wants nothing.
    pub async fn want(&self, bytes_each: u64) -> Want {
        let wanted = self.ask(|reply| Command::Want { bytes_each, reply }).await;
        let nothing = Want { min: 0, target: 0, in_use: 0, bytes_each, limit_bytes: 0 };
        wanted.unwrap_or(nothing)
    }

    /// What the pool holds and counted. A closed pool answers zeroes.
    pub async fn stats(&self) -> Stats {
        self.ask(Command::Stats).await.unwrap_or_default()
    }

    /// Stops lending and restoring, lets leases end, and returns when every sandbox is gone.
    ///
    /// Leases that last longer than their limit are cut, so this is bounded by `lease_max`.
    pub async fn close(&self) {
        self.cancel.cancel();
        self.done.wait().await;
    }

    async fn tell(&self, command: Command<D::Sandbox>) {
        // An error means the pool is closed: there is nothing to change any more.
        let _ = self.commands_tx.send(command).await;
    }

    /// `None`: the pool is closed.
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command<D::Sandbox>,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply)).await;
        answer.await.ok()
    }
}

/// Tells the pool's task when a caller stops waiting, so that nothing is restored for it.
struct Waiting<'a> {
    token: Token,
    ended_tx: Option<&'a mpsc::UnboundedSender<Ended>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(ended_tx) = self.ended_tx {
            // The pool's task has ended: it waits for nobody.
            let _ = ended_tx.send(Ended::HungUp(self.token));
        }
    }
}

impl<D: Driver> Clone for Pool<D> {
    fn clone(&self) -> Self {
        Self {
            commands_tx: self.commands_tx.clone(),
            ended_tx: self.ended_tx.clone(),
            tokens: Arc::clone(&self.tokens),
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
