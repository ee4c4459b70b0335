//! Answers remembered for a while, "there is none" among them, and never longer than they are true.
//!
//! An answer that is asked for often never makes its askers wait: from half of its time on one of them
//! asks anew, and the others have the old one until then. Who asks for the same at the same time, when
//! nothing is known, waits for one lookup.

use std::{
    borrow::Borrow,
    error::Error,
    fmt,
    future::Future,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use edge_policy::SingleFlight;
use edge_store::StoreError;
use moka::sync::Cache;

/// Answers remembered of each kind. Names that nobody has come and go among them: what is asked for
/// often stays.
const ENTRIES_MAX: u64 = 200_000;
/// Lookups that may be joined. With more under way, each asks for itself.
const FLIGHTS_MAX: usize = 10_000;

/// A cache whose entries are forgotten when what they speak of changes. `E` is how a lookup fails.
pub(super) struct Remembered<K: Hash + Eq, V, E = StoreError> {
    memory: Arc<Memory<K, V>>,
    /// By the number of changes, too: who asks after a change joins no lookup from before it.
    flights: SingleFlight<(K, u64), Option<V>, Arc<E>>,
    fresh: Duration,
}

struct Memory<K, V> {
    answers: Cache<K, Arc<Known<V>>>,
    /// How many changes there were. Held while an answer is put in and while one is forgotten: an
    /// answer that was read before a change is never put in after it.
    changes: Mutex<u64>,
}

struct Known<V> {
    answer: Option<V>,
    since: Instant,
    /// Somebody asks anew.
    renewing: AtomicBool,
}

/// Whoever asks anew; others may once this is gone.
struct Renewal<V>(Arc<Known<V>>);

impl<V> Drop for Renewal<V> {
    fn drop(&mut self) {
        self.0.renewing.store(false, Relaxed);
    }
}

impl<K: Hash + Eq, V, E> fmt::Debug for Remembered<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").field("fresh", &self.fresh).finish_non_exhaustive()
    }
}

impl<K, V> Memory<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn changes(&self) -> MutexGuard<'_, u64> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an answer, unless something has changed since it was asked for.
    fn put(&self, key: K, answer: Option<V>, before: u64) {
        let now = self.changes();
        if *now == before {
            let known = Known { answer, since: Instant::now(), renewing: AtomicBool::new(false) };
            self.answers.insert(key, Arc::new(known));
        }
    }
}

impl<K, V, E> Remembered<K, V, E>
where
    K: Clone + Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    E: Error + Send + Sync + 'static,
{
    pub(super) fn new(ttl: Duration) -> Self {
        let answers = Cache::builder().max_capacity(ENTRIES_MAX).time_to_live(ttl).build();
        let memory = Arc::new(Memory { answers, changes: Mutex::default() });
        Self { memory, flights: SingleFlight::new(FLIGHTS_MAX), fresh: ttl / 2 }
    }

    /// What is known. `None` also if it is time to ask anew, which [`Self::get_or`] lets one caller do.
    pub(super) fn get<Q>(&self, key: &Q) -> Option<Option<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let known = self.memory.answers.get(key)?;
        let good = known.renewing.load(Relaxed) || self.is_fresh(&known);
        good.then(|| known.answer.clone())
    }

    fn is_fresh(&self, known: &Known<V>) -> bool {
        known.since.elapsed() < self.fresh
    }

    /// The answer that is remembered, or else that of a `lookup`, which is remembered from then on
    /// unless something changed meanwhile. If an answer can't be renewed the old one holds for the rest
    /// of its time.
    pub(super) async fn get_or<Q, F>(
        &self,
        key: &Q,
        owned: impl Fn() -> K,
        lookup: impl Fn() -> F,
    ) -> Result<Option<V>, Arc<E>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        F: Future<Output = Result<Option<V>, E>> + Send + 'static,
    {
        if let Some(known) = self.get(key) {
            return Ok(known);
        }
        let before = *self.memory.changes();
        // Only now: an answer that is here is of after the changes that were counted.
        let old = match self.memory.answers.get(key) {
            Some(known) if self.is_fresh(&known) || known.renewing.swap(true, Relaxed) => {
                return Ok(known.answer.clone());
            }
            known => known.map(Renewal),
        };
        let make = || {
            let (memory, key, found) = (Arc::clone(&self.memory), owned(), lookup());
            async move {
                let found = found.await.map_err(Arc::new)?;
                memory.put(key, found.clone(), before);
                Ok(found)
            }
        };
        let found = match self.flights.run((owned(), before), make).await {
            Ok(shared) => Result::clone(&shared),
            Err(_) => make().await, // as many as may be joined are under way
        };
        match (found, old) {
            (Err(error), Some(old)) if *self.memory.changes() == before => {
                let error = &*error as &dyn Error;
                tracing::warn!(error, "an answer cannot be renewed; the old one holds for a while");
                Ok(old.0.answer.clone())
            }
            (found, _) => found,
        }
    }

    /// Forgets an answer; to be called once the change can be read.
    pub(super) fn forget<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut changes = self.memory.changes();
        *changes += 1;
        self.memory.answers.invalidate(key);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        io,
        sync::atomic::{AtomicU32, Ordering::SeqCst},
    };

    use tokio::{sync::Notify, time::sleep};

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn remembered<V: Clone + Send + Sync + 'static, E: Error + Send + Sync + 'static>()
    -> Arc<Remembered<String, V, E>> {
        Arc::new(Remembered::new(LONG))
    }

    /// Has it remember an answer half of whose time has passed.
    fn age<V, E>(remembered: &Remembered<String, V, E>, answer: V)
    where
        V: Clone + Send + Sync + 'static,
    {
        let since = Instant::now().checked_sub(LONG / 2).unwrap();
        let known = Known { answer: Some(answer), since, renewing: AtomicBool::new(false) };
        remembered.memory.answers.insert("a".to_owned(), Arc::new(known));
    }

    #[tokio::test]
    async fn answers_and_their_absence_are_remembered_until_forgotten() {
        let remembered = remembered::<u32, Infallible>();
        let ask = |found: Option<u32>| {
            remembered.get_or("a", || "a".to_owned(), move || async move { Ok(found) })
        };
        assert_eq!(remembered.get("a"), None);
        assert_eq!(ask(None).await, Ok(None));
        assert_eq!(remembered.get("a"), Some(None));
        assert_eq!(ask(Some(1)).await, Ok(None), "there was none");
        remembered.forget("a");
        assert_eq!(ask(Some(1)).await, Ok(Some(1)));
        assert_eq!(ask(Some(2)).await, Ok(Some(1)));
    }

    /// A lookup that takes until it is let go, and counts how often it began.
    #[derive(Clone, Default)]
    struct Held {
        begun: Arc<AtomicU32>,
        go: Arc<Notify>,
    }

    impl Held {
        async fn look_up(self) -> Result<Option<u32>, Infallible> {
            let number = self.begun.fetch_add(1, SeqCst);
            self.go.notified().await;
            Ok(Some(number))
        }

        async fn begun(&self, count: u32) {
            while self.begun.load(SeqCst) < count {
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    #[tokio::test]
    async fn an_answer_from_before_a_change_is_given_to_nobody_who_asks_after_it() {
        let (remembered, held) = (remembered(), Held::default());
        let ask = || {
            let (remembered, held) = (Arc::clone(&remembered), held.clone());
            tokio::spawn(async move {
                remembered.get_or("a", || "a".to_owned(), || held.clone().look_up()).await
            })
        };
        let early = ask();
        held.begun(1).await;
        remembered.forget("a"); // the change comes while the old answer is on its way
        let late = ask();
        held.begun(2).await;
        held.go.notify_waiters();
        assert_eq!(early.await.unwrap(), Ok(Some(0)));
        assert_eq!(late.await.unwrap(), Ok(Some(1)), "a lookup of its own");
        assert_eq!(remembered.get("a"), Some(Some(1)));
    }

    #[tokio::test]
    async fn who_asks_at_the_same_time_waits_for_one_lookup() {
        let (remembered, held) = (remembered(), Held::default());
        let asking: Vec<_> = (0..100)
            .map(|_| {
                let (remembered, held) = (Arc::clone(&remembered), held.clone());
                tokio::spawn(async move {
                    remembered.get_or("a", || "a".to_owned(), || held.clone().look_up()).await
                })
            })
            .collect();
        held.begun(1).await;
        sleep(Duration::from_millis(50)).await;
        held.go.notify_waiters();
        for asked in asking {
            assert_eq!(asked.await.unwrap(), Ok(Some(0)));
        }
        assert_eq!(held.begun.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn an_answer_is_renewed_by_one_while_the_others_have_the_old_one() {
        let (remembered, held) = (remembered(), Held::default());
        age(&remembered, 7);
        assert_eq!(remembered.get("a"), None, "somebody is to ask anew");
        let ask = || {
            let (remembered, held) = (Arc::clone(&remembered), held.clone());
            tokio::spawn(async move {
                remembered.get_or("a", || "a".to_owned(), || held.clone().look_up()).await
            })
        };
        for round in 1..=2 {
            let renewing = ask();
            held.begun(round).await;
            assert_eq!(remembered.get("a"), Some(Some(7)));
            assert_eq!(ask().await.unwrap(), Ok(Some(7)), "at once");
            assert_eq!(held.begun.load(SeqCst), round);
            if round == 1 {
                renewing.abort(); // its client left: another one may
                assert!(renewing.await.unwrap_err().is_cancelled());
                assert_eq!(remembered.get("a"), None);
            } else {
                held.go.notify_waiters();
                assert_eq!(renewing.await.unwrap(), Ok(Some(1)));
            }
        }
        assert_eq!(remembered.get("a"), Some(Some(1)));
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_renewed_holds_for_the_rest_of_its_time() {
        let remembered = remembered::<u32, io::Error>();
        let down = || async { Err(io::Error::other("down")) };
        let ask = || remembered.get_or("a", || "a".to_owned(), down);
        assert_eq!(ask().await.unwrap_err().to_string(), "down");
        assert_eq!(remembered.get("a"), None, "a failure is not remembered");
        age(&remembered, 1);
        for _ in 0..2 {
            assert_eq!(remembered.get("a"), None, "each who comes may ask anew");
            assert_eq!(ask().await.unwrap(), Some(1));
        }
        remembered.forget("a");
        ask().await.unwrap_err();
    }

    #[tokio::test]
    async fn a_hundred_thousand_answers_are_all_remembered() {
        let remembered = remembered::<usize, Infallible>();
        let names: Vec<String> = (0..100_000).map(|n| format!("function-{n}")).collect();
        for (n, name) in names.iter().enumerate() {
            let found = || async move { Ok(Some(n)) };
            remembered.get_or(name.as_str(), || name.clone(), found).await.unwrap();
        }
        for (n, name) in names.iter().enumerate() {
            assert_eq!(remembered.get(name.as_str()), Some(Some(n)));
        }
    }
}
