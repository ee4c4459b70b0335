//! One sandbox, lent to one holder.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use crate::{Cause, member::MemberId};

/// A sandbox lent to its holder. When this is dropped the sandbox is destroyed.
pub struct Lease<S> {
    sandbox: Arc<S>,
    /// How long the holder waited for it.
    pub waited: Duration,
    /// How long its restore had taken. Not part of the wait on a hit.
    pub restore: Duration,
    /// Whether it was warm when the holder asked.
    pub hit: bool,
    pub(crate) member: MemberId,
    pub(crate) ended_tx: Option<mpsc::Sender<MemberId>>,
}

impl<S> Lease<S> {
    pub(crate) fn new(
        sandbox: Arc<S>,
        member: MemberId,
        ended_tx: mpsc::Sender<MemberId>,
        restore: Duration,
    ) -> Self {
        Self {
            sandbox,
            waited: Duration::ZERO,
            restore,
            hit: false,
            member,
            ended_tx: Some(ended_tx),
        }
    }

    /// The sandbox itself, for tasks that outlive this borrow. It dies with the lease all the same.
    #[must_use]
    pub fn sandbox(&self) -> Arc<S> {
        Arc::clone(&self.sandbox)
    }
}

impl<S> Deref for Lease<S> {
    type Target = S;
    fn deref(&self) -> &S {
        &self.sandbox
    }
}

impl<S> Drop for Lease<S> {
    fn drop(&mut self) {
        let Some(ended_tx) = self.ended_tx.take() else { return };
        // A full queue means the pool's task is behind. The lease limit reaps the sandbox then.
        if let Err(full) = ended_tx.try_send(self.member) {
            tracing::warn!(pool.member = self.member.0, "end of lease not queued: {full}");
        }
    }
}

impl<S> fmt::Debug for Lease<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("member", &self.member).finish_non_exhaustive()
    }
}

/// Why no sandbox was lent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseError {
    /// None became warm in time.
    #[error("no sandbox became warm within {waited:?}")]
    TimedOut {
        /// How long the caller waited.
        waited: Duration,
    },
    /// Too many callers wait already.
    #[error("{waiting} callers wait for this function already")]
    Full {
        /// How many.
        waiting: usize,
    },
    /// Restores keep failing.
    #[error("{failures} restores in a row failed")]
    Broken {
        /// How many.
        failures: u32,
        /// The last one's reason.
        #[source]
        cause: Cause,
    },
    /// The pool was closed.
    #[error("the pool is closed")]
    Closed,
}
