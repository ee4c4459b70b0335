//! What the data plane asks on every request: which function has this name, is there such a capsule.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use edge_store::{Store, StoreError};
use moka::future::Cache;
use pool_model::{FunctionId, SandboxId};

/// Names and ids remembered, the unknown ones too.
const ENTRIES_MAX: u64 = 10_000;
/// Longest that an answer is remembered. Changes are forgotten at once; this bounds what a change
/// by another process or a lost race may cost.
const TTL: Duration = Duration::from_secs(5);

/// Where a function's requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionTarget {
    /// Its id.
    pub id: FunctionId,
    /// Longest time of one invocation.
    pub timeout: Duration,
}

/// A cache over the store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Directory {
    store: Store,
    functions: Cache<String, Option<FunctionTarget>>,
    sandboxes: Cache<SandboxId, bool>,
    /// Raised before each change is forgotten: an answer that was read before is not remembered.
    changes: Arc<AtomicU64>,
}

impl Directory {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            functions: Cache::builder().max_capacity(ENTRIES_MAX).time_to_live(TTL).build(),
            sandboxes: Cache::builder().max_capacity(ENTRIES_MAX).time_to_live(TTL).build(),
            changes: Arc::default(),
        }
    }

    /// The function of this name, whoever owns it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store can't be asked.
    pub async fn function(&self, name: &str) -> Result<Option<FunctionTarget>, StoreError> {
        if let Some(known) = self.functions.get(name).await {
            return Ok(known);
        }
        let before = self.changes.load(Ordering::Acquire);
        let found = self.store.function_by_name(name).await?.map(|function| FunctionTarget {
            id: function.id,
            timeout: Duration::from_millis(function.timeout_ms),
        });
        if self.changes.load(Ordering::Acquire) == before {
            self.functions.insert(name.to_owned(), found).await;
        }
        Ok(found)
    }

    /// Whether there is a capsule of this id, whoever owns it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store can't be asked.
    pub async fn has_sandbox(&self, id: SandboxId) -> Result<bool, StoreError> {
        if let Some(known) = self.sandboxes.get(&id).await {
            return Ok(known);
        }
        let before = self.changes.load(Ordering::Acquire);
        let found = self.store.capsule_exists(id).await?;
        if self.changes.load(Ordering::Acquire) == before {
            self.sandboxes.insert(id, found).await;
        }
        Ok(found)
    }

    pub(crate) async fn forget_function(&self, name: &str) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.functions.invalidate(name).await;
    }

    pub(crate) async fn forget_sandbox(&self, id: SandboxId) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.sandboxes.invalidate(&id).await;
    }
}
