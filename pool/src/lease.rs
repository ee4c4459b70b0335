//! One sandbox, lent to one holder.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use pool_model::Reuse;
use tokio::sync::mpsc;

use crate::{Cause, member::MemberId};

/// How a lease, or the wait for one, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its holder said that the request ended cleanly.
    Finished(MemberId),
    /// Its holder let go of it.
    Dropped(MemberId),
    /// A caller stopped waiting.
    HungUp(Token),
}

/// One call of [`crate::Pool::lease`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) u64);

/// A sandbox lent to its holder. When this is dropped the sandbox is destroyed; with
/// [`Lease::finish`] it may serve another request if its function opted into that.
pub struct Lease<S> {
    pub(crate) sandbox: Arc<S>,
    /// How long the holder waited for it.
    pub waited: Duration,
    /// How long its restore had taken. Not part of the wait on a hit.
    pub restore: Duration,
    /// Whether it was warm when the holder asked.
    pub hit: bool,
    /// Which request of this sandbox this is, from 1.
    pub served: u32,
    /// Whether it may serve another one.
    pub reuse: Reuse,
    /// Most requests that it may serve, 1 without reuse.
    pub max_requests: u32,
    pub(crate) member: MemberId,
    /// Unbounded, so that the end of a lease is never lost and can be told from `drop`. What is in
    /// it is bounded all the same: each lease and each waiting caller says one thing.
    pub(crate) ended_tx: mpsc::UnboundedSender<Ended>,
    pub(crate) clean: bool,
}

impl<S> Lease<S> {
    /// The sandbox itself, for tasks that outlive this borrow. It dies with the lease all the
    /// same, or serves somebody else: they must end before the lease does.
    #[must_use]
    pub fn sandbox(&self) -> Arc<S> {
        Arc::clone(&self.sandbox)
    }

    /// Ends the lease after a request that ended cleanly: nothing of it is under way any more. The
    /// sandbox is used again if its function wants that, and destroyed otherwise.
    pub fn finish(mut self) {
        self.clean = true;
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
        let ended = if self.clean { Ended::Finished } else { Ended::Dropped };
        // The receiver is gone only when the pool's task is, and the sandbox with it.
        let _ = self.ended_tx.send(ended(self.member));
    }
}

impl<S> fmt::Debug for Lease<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Lease");
        debug.field("member", &self.member).field("served", &self.served).finish_non_exhaustive()
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
    /// Restores keep failing, and nothing is warm.
    #[error("{failures} restores in a row failed, the next try is in {retry_in:?}")]
    Broken {
        /// How many.
        failures: u32,
        /// Until the next try.
        retry_in: Duration,
        /// The last one's reason.
        #[source]
        cause: Cause,
    },
    /// The pool was closed.
    #[error("the pool is closed")]
    Closed,
}
