//! How many bytes of a stream `h3` may hold before it hands some out as a body.
//!
//! `h3` buffers every frame but DATA whole, so one announced frame could be of any size; and it
//! reads more each time it hands out a chunk, so small DATA frames would pile up unread ones.
//!
//! A spent budget is an error while there is only a head to read; once a body flows it is a pause,
//! and the body's idle limit ends what nobody can go on with.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Longest header of a DATA frame: two 8-byte integers.
const DATA_HEADER_BYTES: usize = 16;

/// What may still be read from one stream.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<BudgetState>);

#[derive(Debug)]
struct BudgetState {
    left: AtomicUsize,
    most: usize,
    pauses: AtomicBool,
}

impl Budget {
    pub(super) fn new(most: usize) -> Self {
        let (left, pauses) = (AtomicUsize::new(most), AtomicBool::new(false));
        Self(Arc::new(BudgetState { left, most, pauses }))
    }

    /// The head is complete: from here on reading pauses instead of failing.
    pub(super) fn pause_when_spent(&self) {
        self.0.pauses.store(true, Ordering::Relaxed);
    }

    /// `bytes` of a body were handed out, so as many more may be read.
    pub(super) fn give_back(&self, bytes: usize) {
        let BudgetState { left, most, .. } = &*self.0;
        let refill = |left: usize| Some((left + bytes + DATA_HEADER_BYTES).min(*most));
        let _ = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, refill); // always `Some`
    }

    /// Whether a spent budget is a pause.
    pub(super) fn pauses(&self) -> bool {
        self.0.pauses.load(Ordering::Relaxed)
    }

    /// Bytes that may be read now.
    pub(super) fn left(&self) -> usize {
        self.0.left.load(Ordering::Relaxed)
    }

    /// Only what was left is ever read; giving back meanwhile only makes it more.
    pub(super) fn spend(&self, bytes: usize) {
        self.0.left.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_never_grows_beyond_its_start() {
        let budget = Budget::new(100);
        budget.spend(60);
        assert_eq!(budget.left(), 40);
        budget.give_back(10);
        assert_eq!(budget.left(), 66);
        budget.give_back(1000);
        assert_eq!(budget.left(), 100);
    }
}
