//! What a pool needs of its owner: how a sandbox is made, checked and destroyed, and why.

use std::{error::Error, fmt, sync::Arc, time::Duration};

/// Why a sandbox leaves the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReapReason {
    /// Its lease ended.
    Released,
    /// Its lease outlived `lease_max`.
    LeaseExpired,
    /// It was warm for longer than the idle TTL.
    Idle,
    /// It was warm for longer than the function's greatest age.
    Aged,
    /// Its memory was given to another pool.
    Evicted,
    /// It failed its check after a request.
    Unfit,
    /// It died by itself.
    Died,
    /// The pool was closed or replaced.
    Drained,
}

impl fmt::Display for ReapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Released => "released",
            Self::LeaseExpired => "lease expired",
            Self::Idle => "idle",
            Self::Aged => "aged",
            Self::Evicted => "evicted",
            Self::Unfit => "unfit for another request",
            Self::Died => "died",
            Self::Drained => "drained",
        })
    }
}

/// Why a restore failed. Shared, since every waiter is told.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// A sandbox that was restored, and how.
#[derive(Debug)]
pub struct Restored<S> {
    /// The sandbox.
    pub sandbox: S,
    /// What the restore consisted of and how long each step took, for the statistics.
    pub steps: Vec<(&'static str, Duration)>,
}

/// Makes and destroys sandboxes for one function's pool.
///
/// Each sandbox has one task that restores it, watches it and destroys it; a panic in here ends that
/// sandbox only.
#[async_trait::async_trait]
pub trait Driver: Send + Sync + 'static {
    /// A restored sandbox.
    type Sandbox: Send + Sync + fmt::Debug + 'static;

    /// Restores one sandbox; it is unique and healthy when this returns.
    ///
    /// # Errors
    ///
    /// Whatever prevented it; nothing of the attempt is left behind.
    async fn restore(&self) -> Result<Restored<Self::Sandbox>, Cause>;

    /// Checks a sandbox after a request, before it is lent again. Its lease's limit still runs
    /// meanwhile, and the sandbox may be destroyed during this.
    ///
    /// # Errors
    ///
    /// Why it is unfit; it is destroyed then.
    async fn renew(&self, sandbox: Arc<Self::Sandbox>) -> Result<(), Cause>;

    /// Destroys a sandbox. Retries inside: when this returns nothing of it is left.
    async fn destroy(&self, sandbox: Arc<Self::Sandbox>, why: ReapReason);

    /// Resolves when the sandbox has died by itself. Dropped when it is to be destroyed.
    async fn died(&self, sandbox: Arc<Self::Sandbox>);
}
