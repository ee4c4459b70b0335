//! How do many threads share a map without waiting for each other?

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hash},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::keys::OurKeys;

/// How many locks one map has; a power of two.
pub(crate) const SHARDS: usize = 64;

/// One lock and its part of the map, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<K, V, S>(Mutex<HashMap<K, V, S>>);

/// A map whose keys are spread over many locks. `S` hashes the keys within a lock's part.
#[derive(Debug)]
pub(crate) struct Shards<K, V, S = RandomState> {
    hasher: OurKeys,
    shards: Box<[Shard<K, V, S>]>,
}

impl<K: Hash + Eq, V, S: BuildHasher + Default> Shards<K, V, S> {
    pub(crate) fn new() -> Self {
        let empty = || Shard(Mutex::new(HashMap::with_hasher(S::default())));
        Self { hasher: OurKeys::default(), shards: (0..SHARDS).map(|_| empty()).collect() }
    }

    /// Locks the part of the map that `key` belongs to. Which it is is no secret worth SipHash: who
    /// finds keys for one part has a map of `S` before him still.
    pub(crate) fn lock(&self, key: &K) -> MutexGuard<'_, HashMap<K, V, S>> {
        let index = usize::try_from(self.hasher.hash_one(key)).unwrap_or(0) % self.shards.len();
        lock(&self.shards[index].0)
    }

    /// Locks one part after the other.
    pub(crate) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, HashMap<K, V, S>>> {
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
