//! The warm pool: sandboxes restored before their request comes, each lent exactly once.
//!
//! ```text
//!            lease()                          restore() / destroy()
//! caller ──────────────► Pool (one task per function) ──────────────► Driver (the agent)
//!        ◄────────────── Lease, a guard: its end is the sandbox's end
//! ```
//!
//! [`slot`] is the state machine (pure), [`policy`] decides how many to restore or reap (pure),
//! the pool's task carries decisions out through a [`Driver`]. This crate knows no VMM and no network.
//!
//! # Invariants
//!
//! - A sandbox serves one lease and dies; nothing that was leased becomes warm again.
//! - Waiters are served in the order they came.
//! - Nothing waits without a deadline: a lease that cannot be had is refused with the reason.
//!
//! # Limits
//!
//! [`QUEUE_LEN`] commands and [`WAITERS_MAX`] waiting leases per function; more are refused.

mod actor;
mod lease;
mod member;
pub mod policy;
pub mod slot;
mod stats;

pub use actor::{Pool, QUEUE_LEN, WAITERS_MAX};
pub use lease::{Lease, LeaseError};
pub use policy::Policy;
pub use stats::Stats;

use std::{error::Error, fmt, sync::Arc};

/// Why a sandbox leaves the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReapReason {
    /// Its lease ended.
    Released,
    /// Its lease outlived `lease_max`.
    LeaseExpired,
    /// It was warm for longer than the idle TTL.
    Idle,
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
            Self::Died => "died",
            Self::Drained => "drained",
        })
    }
}

/// Why a restore failed. Shared, since every waiter is told.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Makes and destroys sandboxes for one function's pool.
#[async_trait::async_trait]
pub trait Driver: Send + Sync + 'static {
    /// A restored sandbox.
    type Sandbox: Send + Sync + fmt::Debug + 'static;

    /// Restores one sandbox; it is unique and healthy when this returns.
    ///
    /// # Errors
    ///
    /// Whatever prevented it; nothing of the attempt is left behind.
    async fn restore(&self) -> Result<Self::Sandbox, Cause>;

    /// Destroys a sandbox. Retries inside: when this returns nothing of it is left.
    async fn destroy(&self, sandbox: Arc<Self::Sandbox>, why: ReapReason);

    /// Resolves when the sandbox has died by itself.
    async fn died(&self, sandbox: Arc<Self::Sandbox>);
}
