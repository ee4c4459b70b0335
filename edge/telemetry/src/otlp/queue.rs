//! Records whose spans wait to be sent, and what became of those that waited.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::Notify;

use crate::record::RequestRecord;

/// Requests' spans that may wait.
pub(crate) const QUEUE_MAX: usize = 4096;
/// Requests' spans in one message.
pub(super) const BATCH_MAX: usize = 512;

/// Requests by what became of their spans, and spans that were rejected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SpanCounts {
    pub(crate) exported: u64,
    pub(crate) dropped: u64,
    pub(crate) rejected: u64,
}

/// Records whose spans wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct SpanQueue {
    waiting: Mutex<Waiting>,
    full: Notify,
    exported: AtomicU64,
    dropped: AtomicU64,
    rejected: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    records: Vec<Arc<RequestRecord>>,
    closed: bool,
}

impl SpanQueue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request's spans; drops and counts them if there is no room.
    pub(crate) fn push(&self, record: Arc<RequestRecord>) {
        let mut waiting = self.lock();
        if waiting.closed || waiting.records.len() == QUEUE_MAX {
            drop(waiting);
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        waiting.records.push(record);
        let full = waiting.records.len() == BATCH_MAX;
        drop(waiting);
        if full {
            self.full.notify_one();
        }
    }

    pub(crate) fn counts(&self) -> SpanCounts {
        SpanCounts {
            exported: self.exported.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
        }
    }

    /// Waits until there is a batch. Cancel-safe.
    pub(super) async fn filled(&self) {
        self.full.notified().await;
    }

    /// The oldest that wait.
    pub(super) fn take(self: &Arc<Self>) -> Option<Batch> {
        let mut waiting = self.lock();
        let count = waiting.records.len().min(BATCH_MAX);
        let records: Vec<_> = waiting.records.drain(..count).collect();
        drop(waiting);
        (count > 0).then(|| Batch { records, queue: Arc::clone(self) })
    }

    /// Drops and counts what waits and what comes.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let left = std::mem::take(&mut waiting.records);
        drop(waiting);
        self.dropped.fetch_add(left.len() as u64, Relaxed);
    }
}

/// Records that are being sent; dropped before they were, they count as dropped.
#[derive(Debug)]
pub(super) struct Batch {
    records: Vec<Arc<RequestRecord>>,
    queue: Arc<SpanQueue>,
}

impl Batch {
    pub(super) fn records(&self) -> &[Arc<RequestRecord>] {
        &self.records
    }

    /// The collector took them, but rejected so many spans.
    pub(super) fn sent(mut self, rejected: u64) {
        let records = std::mem::take(&mut self.records);
        self.queue.exported.fetch_add(records.len() as u64, Relaxed);
        self.queue.rejected.fetch_add(rejected, Relaxed);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.queue.dropped.fetch_add(self.records.len() as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_counted_once_whatever_becomes_of_it() {
        let queue = Arc::new(SpanQueue::default());
        for _ in 0..QUEUE_MAX + 7 {
            queue.push(Arc::default());
        }
        assert_eq!(queue.counts().dropped, 7, "there is no more room");
        let batch = queue.take().unwrap();
        assert_eq!(batch.records().len(), BATCH_MAX);
        batch.sent(3);
        drop(queue.take().unwrap()); // as if the task had been aborted
        queue.close();
        queue.push(Arc::default());
        assert!(queue.take().is_none());
        let (exported, all) = (BATCH_MAX as u64, (QUEUE_MAX + 8) as u64);
        let expected = SpanCounts { exported, dropped: all - exported, rejected: 3 };
        assert_eq!(queue.counts(), expected);
    }
}
