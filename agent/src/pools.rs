//! The pools of this host's functions: how their sandboxes are made, and which exist.
//!
//! # Invariants
//!
//! - What was set is on disk before it is answered; a restarted agent has the same pools.
//! - A pool's sandboxes die with the agent: the next one makes its own.

mod budget;
mod restorer;
mod spec;
mod usage;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pool::Pool;
use pool_model::{FunctionId, SnapshotId};

pub use restorer::{Restorer, WarmSandbox};
pub use spec::PoolSpec;
pub use usage::PoolMemory;

use crate::{
    agent::Agent,
    error::{AgentError, chain},
    host::{Host, blocking},
};

/// A running pool and what it was asked to be.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As set.
    pub spec: PoolSpec,
    /// The pool.
    pub pool: Pool<Restorer>,
    /// Guest memory of each of its sandboxes.
    pub memory_bytes: u64,
    measured: usage::Measured,
}

/// All pools of this host.
#[derive(Debug, Clone)]
pub struct Pools {
    host: Arc<Host>,
    entries: Arc<Mutex<HashMap<FunctionId, Entry>>>,
    /// One change at a time, from the check to the disk.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl Pools {
    /// No pools.
    #[must_use]
    pub fn new(host: Arc<Host>) -> Self {
        Self { host, entries: Arc::default(), changing: Arc::default() }
    }

    /// Finds a function's pool.
    ///
    /// # Errors
    ///
    /// [`AgentError::FunctionNotFound`].
    pub fn get(&self, function: FunctionId) -> Result<Entry, AgentError> {
        self.lock().get(&function).cloned().ok_or(AgentError::FunctionNotFound(function))
    }

    /// All pools.
    #[must_use]
    pub fn list(&self) -> Vec<Entry> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_by_key(|entry| entry.spec.function);
        all
    }

    /// The function whose pool is made from `snapshot`, if any.
    #[must_use]
    pub fn user_of(&self, snapshot: SnapshotId) -> Option<FunctionId> {
        self.lock().values().find(|entry| entry.spec.snapshot == snapshot).map(|e| e.spec.function)
    }

    /// Makes a pool or changes one. Sandboxes of an older snapshot are drained, not lent again.
    ///
    /// # Errors
    ///
    /// [`AgentError`]; the old pool stands then.
    pub async fn set(&self, agent: &Agent, spec: PoolSpec) -> Result<Entry, AgentError> {
        let policy = spec.policy()?;
        let memory_bytes = self.memory_of(agent, &spec).await?;
        let _changing = self.changing.lock().await;
        self.check_budget(&spec, memory_bytes)?;
        let old = self.lock().get(&spec.function).cloned();
        let mut specs = self.specs();
        specs.insert(spec.function, spec.clone());
        self.persist(specs).await?;
        let entry = match &old {
            Some(entry) if entry.spec.makes_the_same(&spec) => {
                entry.pool.set_policy(policy).await;
                Entry { spec, ..entry.clone() }
            }
            _ => {
                let driver = Restorer::new(agent.clone(), spec.clone());
                let pool = Pool::start(Arc::new(driver), policy);
                Entry { spec, pool, memory_bytes, measured: usage::Measured::default() }
            }
        };
        self.lock().insert(entry.spec.function, entry.clone());
        if let Some(old) = old.filter(|old| !old.spec.makes_the_same(&entry.spec)) {
            self.host.tasks.spawn(async move { old.pool.close().await });
        }
        Ok(entry)
    }

    /// Removes a pool; returns when its sandboxes are gone.
    ///
    /// # Errors
    ///
    /// [`AgentError::FunctionNotFound`].
    pub async fn remove(&self, function: FunctionId) -> Result<(), AgentError> {
        let changing = self.changing.lock().await;
        let mut specs = self.specs();
        if specs.remove(&function).is_none() {
            return Err(AgentError::FunctionNotFound(function));
        }
        self.persist(specs).await?;
        let removed = self.lock().remove(&function);
        drop(changing);
        if let Some(entry) = removed {
            entry.pool.close().await;
        }
        Ok(())
    }

    /// Makes the pools exactly these.
    ///
    /// # Errors
    ///
    /// The first [`AgentError`]; the others are carried out all the same.
    pub async fn sync(&self, agent: &Agent, specs: Vec<PoolSpec>) -> Result<(), AgentError> {
        let mut first = Ok(());
        let wanted: Vec<_> = specs.iter().map(|spec| spec.function).collect();
        for spec in specs {
            let same = self.get(spec.function).is_ok_and(|entry| entry.spec == spec);
            if !same && let Err(error) = self.set(agent, spec).await {
                tracing::warn!("pool not set: {}", chain(&error));
                first = first.and(Err(error));
            }
        }
        for entry in self.list() {
            if !wanted.contains(&entry.spec.function) {
                let removed = self.remove(entry.spec.function).await;
                first = first.and(removed);
            }
        }
        first
    }

    /// Starts the pools of the last agent.
    ///
    /// # Errors
    ///
    /// [`AgentError::Io`] if the list is there and cannot be read.
    pub async fn restart(&self, agent: &Agent) -> Result<(), AgentError> {
        let file = self.file();
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(AgentError::io("read the list of pools")(error)),
        };
        let specs: Vec<PoolSpec> = serde_json::from_slice(&bytes)
            .map_err(|error| AgentError::io("read the list of pools")(error.into()))?;
        for spec in specs {
            let function = spec.function;
            if let Err(error) = self.set(agent, spec).await {
                tracing::warn!(function.id = %function, "pool not restarted: {}", chain(&error));
            }
        }
        Ok(())
    }

    /// Drains every pool, for the agent's own end.
    pub async fn close(&self) {
        let closing = self.list().into_iter().map(|entry| async move { entry.pool.close().await });
        futures::future::join_all(closing).await;
    }

    fn specs(&self) -> BTreeMap<FunctionId, PoolSpec> {
        self.lock().values().map(|entry| (entry.spec.function, entry.spec.clone())).collect()
    }

    async fn persist(&self, specs: BTreeMap<FunctionId, PoolSpec>) -> Result<(), AgentError> {
        let file = self.file();
        blocking(move || {
            let temporary = file.with_extension("new");
            let bytes = serde_json::to_vec(&specs.values().collect::<Vec<_>>())?;
            std::fs::write(&temporary, bytes)?;
            std::fs::rename(&temporary, &file)
        })
        .await
        .map_err(AgentError::io("write the list of pools"))
    }

    fn file(&self) -> std::path::PathBuf {
        self.host.layout.run_dir().join("pools.json")
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FunctionId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
