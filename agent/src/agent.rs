//! The agent: every sandbox of this host by its id, and the work that outlives a request.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pool_model::{SandboxId, TeamId};

use tokio::sync::Semaphore;

use crate::{error::AgentError, host::Host, lifecycle::Verified, pools::Pools, sandbox::Sandbox};

/// The agent. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Agent {
    /// What everything shares.
    pub host: Arc<Host>,
    /// Functions' pools.
    pub pools: Pools,
    sandboxes: Arc<Mutex<HashMap<SandboxId, Arc<Sandbox>>>>,
    /// Snapshots known to be whole.
    pub(crate) verified: Verified,
    /// Held while a snapshot is brought from the object store.
    pub(crate) bringing: Arc<tokio::sync::Mutex<()>>,
    /// Taken by a collection of layers that has not begun.
    pub(crate) collecting: Arc<Semaphore>,
}

impl Agent {
    /// An agent that knows no sandbox yet.
    #[must_use]
    pub fn new(host: Arc<Host>) -> Self {
        let pools = Pools::new(Arc::clone(&host));
        Self {
            host,
            pools,
            sandboxes: Arc::default(),
            verified: Verified::default(),
            bringing: Arc::default(),
            collecting: Arc::new(Semaphore::new(1)),
        }
    }

    /// Finds a sandbox.
    ///
    /// # Errors
    ///
    /// [`AgentError::SandboxNotFound`].
    pub fn sandbox(&self, id: SandboxId) -> Result<Arc<Sandbox>, AgentError> {
        self.lock().get(&id).cloned().ok_or(AgentError::SandboxNotFound(id))
    }

    /// Every sandbox, of one team if given, oldest first.
    #[must_use]
    pub fn sandboxes(&self, team: Option<TeamId>) -> Vec<Arc<Sandbox>> {
        let mut all: Vec<_> = self
            .lock()
            .values()
            .filter(|sandbox| team.is_none_or(|team| sandbox.record().team == team))
            .cloned()
            .collect();
        all.sort_by_key(|sandbox| (sandbox.record().created_at, sandbox.id));
        all
    }

    /// Makes a sandbox known. `false` if its id is taken.
    #[must_use]
    pub fn insert(&self, sandbox: Arc<Sandbox>) -> bool {
        match self.lock().entry(sandbox.id) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(sandbox);
                true
            }
        }
    }

    /// Forgets a sandbox of which nothing is left.
    pub fn forget(&self, id: SandboxId) {
        self.lock().remove(&id);
    }

    /// Runs work to its end even if the caller goes away: a dropped connection must not leave a
    /// sandbox half-made.
    ///
    /// # Errors
    ///
    /// Whatever `work` returns.
    ///
    /// # Panics
    ///
    /// If `work` panics.
    pub async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, AgentError>> + Send + 'static,
    ) -> Result<T, AgentError> {
        match self.host.tasks.spawn(work).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Arc<Sandbox>>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
