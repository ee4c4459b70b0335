//! Answers remembered for a while, "there is none" among them, and never longer than they are true.

use std::{
    borrow::Borrow,
    fmt,
    future::Future,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moka::sync::Cache;

/// Answers remembered of each kind. Names that nobody has come and go among them: what is asked for
/// often stays.
const ENTRIES_MAX: u64 = 200_000;

/// A cache whose entries are forgotten when what they speak of changes.
pub(super) struct Remembered<K, V> {
    answers: Cache<K, Option<V>>,
    /// How many changes there were. Held while an answer is put in and while one is forgotten: an
    /// answer that was read before a change is never put in after it.
    changes: Mutex<u64>,
}

impl<K, V> fmt::Debug for Remembered<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").finish_non_exhaustive()
    }
}

impl<K, V> Remembered<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(ttl: Duration) -> Self {
        let answers = Cache::builder().max_capacity(ENTRIES_MAX).time_to_live(ttl).build();
        Self { answers, changes: Mutex::default() }
    }

    pub(super) fn get<Q>(&self, key: &Q) -> Option<Option<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.answers.get(key)
    }

    /// The answer that is remembered, or else that of `lookup`, which is remembered from then on
    /// unless something changed meanwhile.
    pub(super) async fn get_or<Q, E>(
        &self,
        key: &Q,
        owned: impl FnOnce() -> K,
        lookup: impl Future<Output = Result<Option<V>, E>>,
    ) -> Result<Option<V>, E>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(known) = self.get(key) {
            return Ok(known);
        }
        let before = *self.changes();
        let found = lookup.await?;
        let now = self.changes();
        if *now == before {
            self.answers.insert(owned(), found.clone());
        }
        drop(now);
        Ok(found)
    }

    /// Forgets an answer; to be called once the change can be read.
    pub(super) fn forget<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let mut changes = self.changes();
        *changes += 1;
        self.answers.invalidate(key);
    }

    fn changes(&self) -> MutexGuard<'_, u64> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn answers_and_their_absence_are_remembered_until_forgotten() {
        let remembered: Remembered<String, u32> = Remembered::new(Duration::from_secs(60));
        let ask = |found: Option<u32>| {
            remembered.get_or("a", || "a".to_owned(), async move { Ok::<_, Infallible>(found) })
        };
        assert_eq!(remembered.get("a"), None);
        assert_eq!(ask(None).await, Ok(None));
        assert_eq!(remembered.get("a"), Some(None));
        assert_eq!(ask(Some(1)).await, Ok(None), "there was none");
        remembered.forget("a");
        assert_eq!(ask(Some(1)).await, Ok(Some(1)));
        assert_eq!(ask(Some(2)).await, Ok(Some(1)));
    }

    #[tokio::test]
    async fn an_answer_from_before_a_change_is_not_remembered_after_it() {
        let remembered: Remembered<String, u32> = Remembered::new(Duration::from_secs(60));
        let stale = async {
            remembered.forget("a"); // the change comes while the old answer is on its way
            Ok::<_, Infallible>(Some(1))
        };
        assert_eq!(remembered.get_or("a", || "a".to_owned(), stale).await, Ok(Some(1)));
        assert_eq!(remembered.get("a"), None);
    }

    #[tokio::test]
    async fn a_hundred_thousand_answers_are_all_remembered() {
        let remembered: Remembered<String, u32> = Remembered::new(Duration::from_secs(600));
        let names: Vec<String> = (0..100_000).map(|n| format!("function-{n}")).collect();
        for (n, name) in (0..).zip(&names) {
            let found = async { Ok::<_, Infallible>(Some(n)) };
            remembered.get_or(name.as_str(), || name.clone(), found).await.unwrap();
        }
        for (n, name) in (0..).zip(&names) {
            assert_eq!(remembered.get(name.as_str()), Some(Some(n)));
        }
    }

    #[tokio::test]
    async fn a_failed_lookup_is_asked_again() {
        let remembered: Remembered<String, u32> = Remembered::new(Duration::from_secs(60));
        let failed = remembered.get_or("a", || "a".to_owned(), async { Err("down") }).await;
        assert_eq!(failed, Err("down"));
        assert_eq!(remembered.get("a"), None);
    }
}
