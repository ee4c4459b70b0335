//! Many ask for the same work: who does it? The first; the others wait for its result.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio_util::task::TaskTracker;

/// Work under way that anyone may wait for. When it is done, the next one begins anew.
pub(crate) struct Flight<T: Clone>(Mutex<Option<Shared<BoxFuture<'static, T>>>>);

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// Waits for the work under way, or begins it as one of `tasks`.
    ///
    /// # Cancel safety
    ///
    /// The work goes on, even if nobody waits for it.
    pub(crate) async fn join(
        &self,
        tasks: &TaskTracker,
        begin: impl FnOnce() -> BoxFuture<'static, T>,
    ) -> T {
        let work = {
            let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match &*under_way {
                Some(work) if work.peek().is_none() => work.clone(),
                _ => {
                    let work = under_way.insert(begin().shared());
                    tasks.spawn(work.clone());
                    work.clone()
                }
            }
        };
        work.await
    }
}

impl<T: Clone> Default for Flight<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> fmt::Debug for Flight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        time::Duration,
    };

    use super::*;

    fn work(runs: &Arc<AtomicU32>) -> BoxFuture<'static, u32> {
        let runs = Arc::clone(runs);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            runs.fetch_add(1, Ordering::SeqCst) + 1
        })
    }

    #[tokio::test]
    async fn fifty_at_once_share_one_run_and_the_next_begins_anew() {
        let (flight, tasks) = (Flight::default(), TaskTracker::new());
        let runs = Arc::new(AtomicU32::new(0));
        let waiting = (0..50).map(|_| flight.join(&tasks, || work(&runs)));
        let results = futures::future::join_all(waiting).await;
        assert_eq!((results, runs.load(Ordering::SeqCst)), (vec![1; 50], 1));
        assert_eq!(flight.join(&tasks, || work(&runs)).await, 2);
    }

    #[tokio::test]
    async fn work_ends_when_all_gave_up_and_its_result_is_not_told_later() {
        let (flight, tasks) = (Flight::default(), TaskTracker::new());
        let runs = Arc::new(AtomicU32::new(0));
        let impatient = Duration::from_millis(10);
        let first = flight.join(&tasks, || work(&runs));
        assert!(tokio::time::timeout(impatient, first).await.is_err());
        tasks.close();
        tasks.wait().await;
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert_eq!(flight.join(&tasks, || work(&runs)).await, 2);
    }
}
