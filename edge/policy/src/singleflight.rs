//! How do many callers share one operation, such as waking a paused sandbox?

use std::{
    future::poll_fn,
    hash::Hash,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::sync::{Mutex, OnceCell};

use crate::shards::{SHARDS, Shards};

/// Why a caller could not take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlightError {
    /// As many operations are under way as may be.
    #[error("too many operations are under way")]
    Full,
}

type Operation<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// One operation: whoever holds the lock drives it on, and all see its result. It belongs to its
/// callers: the last that leaves drops it.
struct Flight<T, E> {
    result: OnceCell<Arc<Result<T, E>>>,
    operation: Mutex<Option<Operation<T, E>>>,
}

/// A flight that can be joined, and how many have.
struct Shared<T, E> {
    flight: Arc<Flight<T, E>>,
    callers: usize,
}

/// Joins operations of the same key. No task of its own: the callers drive the operation.
pub struct SingleFlight<K: Hash + Eq, T, E> {
    per_shard: usize,
    flights: Shards<K, Shared<T, E>>,
}

impl<K: Hash + Eq, T, E> std::fmt::Debug for SingleFlight<K, T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SingleFlight").field("per_shard", &self.per_shard).finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone, T, E> SingleFlight<K, T, E> {
    /// At most about `max` different operations at a time.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { per_shard: max.div_ceil(SHARDS).max(1), flights: Shards::new() }
    }

    /// Joins the operation of `key`, or begins the one that `make` makes. A result is for those who
    /// joined before it was there; who comes later begins anew.
    ///
    /// Cancel-safe: the operation goes on as long as one caller waits and is dropped with the last.
    /// A panic in the operation goes to the caller who drove it; the others begin their own.
    ///
    /// # Errors
    ///
    /// [`FlightError::Full`] if too many are under way.
    pub async fn run<F>(
        &self,
        key: K,
        make: impl Fn() -> F,
    ) -> Result<Arc<Result<T, E>>, FlightError>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let seat = self.join(key)?;
        let flight = &seat.flight;
        let result = flight.result.get_or_init(|| async {
            let mut operation = flight.operation.lock().await;
            Arc::new(poll_fn(|cx| drive(&mut operation, &make, cx)).await)
        });
        Ok(Arc::clone(result.await))
    }

    fn join(&self, key: K) -> Result<Seat<'_, K, T, E>, FlightError> {
        let mut shard = self.flights.lock(&key);
        let joinable = shard.get_mut(&key).filter(|shared| !shared.flight.result.initialized());
        let flight = if let Some(shared) = joinable {
            shared.callers += 1;
            Arc::clone(&shared.flight)
        } else {
            if shard.len() >= self.per_shard && !shard.contains_key(&key) {
                return Err(FlightError::Full);
            }
            let flight = Arc::new(Flight { result: OnceCell::new(), operation: Mutex::new(None) });
            shard.insert(key.clone(), Shared { flight: Arc::clone(&flight), callers: 1 });
            flight
        };
        drop(shard);
        Ok(Seat { owner: self, key, flight })
    }

    /// How many operations are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Polls the operation, out of its place: one that panics is not found by a successor, while one
/// that is pending is.
fn drive<T, E, F>(
    place: &mut Option<Operation<T, E>>,
    make: impl Fn() -> F,
    cx: &mut Context<'_>,
) -> Poll<Result<T, E>>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    let mut operation = place.take().unwrap_or_else(|| Box::pin(make()));
    let polled = operation.as_mut().poll(cx);
    if polled.is_pending() {
        *place = Some(operation);
    }
    polled
}

/// A caller's part in a flight.
struct Seat<'a, K: Hash + Eq, T, E> {
    owner: &'a SingleFlight<K, T, E>,
    key: K,
    flight: Arc<Flight<T, E>>,
}

impl<K: Hash + Eq, T, E> Drop for Seat<'_, K, T, E> {
    fn drop(&mut self) {
        let mut shard = self.owner.flights.lock(&self.key);
        let Some(shared) = shard.get_mut(&self.key) else { return };
        if !Arc::ptr_eq(&shared.flight, &self.flight) {
            return;
        }
        shared.callers -= 1;
        let last = if shared.callers == 0 { shard.remove(&self.key) } else { None };
        // What the operation's drop does must not happen under the lock.
        drop(shard);
        drop(last);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use tokio::{task::JoinSet, time::sleep};

    use super::*;

    type Wake = SingleFlight<u32, usize, String>;

    /// Counts how often it was begun and how often it ended.
    #[derive(Clone, Default)]
    struct Count(Arc<(AtomicUsize, AtomicUsize)>);

    impl Count {
        fn work(&self) -> impl Future<Output = Result<usize, String>> + Send + use<> {
            let count = self.clone();
            async move {
                let begun = count.0.0.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_secs(1)).await;
                count.0.1.fetch_add(1, Ordering::SeqCst);
                Ok(begun)
            }
        }

        fn seen(&self) -> (usize, usize) {
            (self.0.0.load(Ordering::SeqCst), self.0.1.load(Ordering::SeqCst))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_callers_share_one_operation_and_the_next_begins_anew() {
        let (flights, count) = (Arc::new(Wake::new(64)), Count::default());
        let mut tasks = JoinSet::new();
        for _ in 0..100 {
            let (flights, count) = (Arc::clone(&flights), count.clone());
            tasks.spawn(async move { flights.run(1, || count.work()).await.unwrap() });
        }
        assert!(tasks.join_all().await.iter().all(|result| **result == Ok(0)));
        assert_eq!(count.seen(), (1, 1));
        assert!(flights.is_empty());
        assert_eq!(*flights.run(1, || count.work()).await.unwrap(), Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_without_who_began_it_and_ends_with_the_last() {
        let (flights, count) = (Arc::new(Wake::new(64)), Count::default());
        let call = |flights: &Arc<Wake>| {
            let (flights, count) = (Arc::clone(flights), count.clone());
            async move { flights.run(1, || count.work()).await.unwrap() }
        };
        let first = tokio::spawn(call(&flights));
        sleep(Duration::from_millis(500)).await;
        let second = tokio::spawn(call(&flights));
        sleep(Duration::from_millis(100)).await;
        first.abort();
        assert_eq!(*second.await.unwrap(), Ok(0));
        assert_eq!(count.seen(), (1, 1), "the same operation was driven on");
        let lonely = tokio::spawn(call(&flights));
        sleep(Duration::from_millis(100)).await;
        lonely.abort();
        assert!(lonely.await.unwrap_err().is_cancelled());
        sleep(Duration::from_secs(5)).await;
        assert_eq!(count.seen(), (2, 1), "nobody waited, so it ended");
        assert!(flights.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_hits_one_caller_and_not_the_next() {
        let flights = Arc::new(Wake::new(64));
        let begun = Arc::new(AtomicUsize::new(0));
        let call = || {
            let (flights, begun) = (Arc::clone(&flights), Arc::clone(&begun));
            let make = move || {
                let first = begun.fetch_add(1, Ordering::SeqCst) == 0;
                async move {
                    sleep(Duration::from_secs(1)).await;
                    assert!(!first, "the first one breaks");
                    Ok(7)
                }
            };
            tokio::spawn(async move { flights.run(1, make).await.unwrap() })
        };
        let (one, two) = (call(), call());
        assert!(one.await.unwrap_err().is_panic());
        assert_eq!(*two.await.unwrap(), Ok(7));
        assert!(flights.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn operations_at_a_time_are_bounded() {
        let (flights, count) = (Arc::new(Wake::new(64)), Count::default());
        let mut tasks = JoinSet::new();
        for key in 0..1000 {
            let (flights, count) = (Arc::clone(&flights), count.clone());
            tasks.spawn(async move { flights.run(key, || count.work()).await.is_err() });
        }
        let refused = tasks.join_all().await.into_iter().filter(|refused| *refused).count();
        assert!(refused >= 936, "{refused}");
        assert_eq!(count.seen().1 + refused, 1000);
    }
}
