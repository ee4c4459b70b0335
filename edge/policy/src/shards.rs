//! How do many threads share a map without waiting for each other?

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hash},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How many locks one map has; a power of two.
pub(crate) const SHARDS: usize = 64;

/// One lock and its part of the map, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<K, V>(Mutex<HashMap<K, V>>);

/// A map whose keys are spread over many locks.
#[derive(Debug)]
pub(crate) struct Shards<K, V> {
    hasher: RandomState,
    shards: Box<[Shard<K, V>]>,
}

impl<K: Hash + Eq, V> Shards<K, V> {
    pub(crate) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Shard(Mutex::new(HashMap::new()))).collect();
        Self { hasher: RandomState::new(), shards }
    }

    /// Locks the part of the map that `key` belongs to.
    pub(crate) fn lock(&self, key: &K) -> MutexGuard<'_, HashMap<K, V>> {
        let shards = self.shards.len() as u64;
        let index = usize::try_from(self.hasher.hash_one(key) % shards).unwrap_or(0);
        lock(&self.shards[index].0)
    }

    /// Locks one part after the other.
    pub(crate) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, HashMap<K, V>>> {
        self.shards.iter().map(|shard| lock(&shard.0))
    }

    /// How many entries there are, roughly while others write.
    pub(crate) fn len(&self) -> usize {
        self.each().map(|shard| shard.len()).sum()
    }
}

/// Locks; a panic elsewhere does not spoil what the lock guards, for each change is one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
