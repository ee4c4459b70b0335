//! The pools of this host's functions: how their sandboxes are made, and which exist.
//!
//! # Invariants
//!
//! - What was set is on disk before it is answered; a restarted agent has the same pools.
//! - A pool's sandboxes die with the agent: the next one makes its own.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pool::{Cause, Driver, Policy, Pool, ReapReason};
use pool_model::{FunctionId, OnTimeout, Port, SnapshotId, TeamId};
use serde::{Deserialize, Serialize};

use crate::{
    agent::Agent,
    error::{AgentError, chain},
    guest::Guest,
    host::{Host, blocking},
    journal::Purpose,
    lifecycle::{CreateSandbox, Source},
    sandbox::Sandbox,
};

/// Longest for a restored server to accept a connection: it listened when it was saved.
const LISTEN_MAX: Duration = Duration::from_secs(5);

/// One function's pool, as its owner set it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// Whose pool it is.
    pub function: FunctionId,
    /// What its sandboxes are restored from.
    pub snapshot: SnapshotId,
    /// Owner of both.
    pub team: TeamId,
    /// Fewest warm.
    pub min_warm: u32,
    /// Most warm.
    pub max_warm: u32,
    /// Idle TTL, milliseconds.
    pub idle_ttl_ms: u64,
    /// Longest lease, milliseconds.
    pub lease_max_ms: u64,
    /// Whether its sandboxes may reach the internet.
    pub internet: bool,
    /// Environment of processes started in its sandboxes.
    pub env: BTreeMap<String, String>,
    /// The port its server listens on.
    pub port: Port,
}

impl PoolSpec {
    /// The part that may change while the pool runs.
    ///
    /// # Errors
    ///
    /// [`AgentError::InvalidArgument`] naming the field.
    pub fn policy(&self) -> Result<Policy, AgentError> {
        let policy = Policy {
            min_warm: self.min_warm,
            max_warm: self.max_warm,
            idle_ttl: Duration::from_millis(self.idle_ttl_ms),
            lease_max: Duration::from_millis(self.lease_max_ms),
        };
        policy.check().map_err(|error| AgentError::InvalidArgument {
            field: "policy",
            reason: error.to_string(),
        })
    }

    /// Whether sandboxes made for `other` are as good as ours.
    fn makes_the_same(&self, other: &Self) -> bool {
        (self.snapshot, self.team, self.internet, self.port, &self.env)
            == (other.snapshot, other.team, other.internet, other.port, &other.env)
    }
}

/// A running pool and what it was asked to be.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As set.
    pub spec: PoolSpec,
    /// The pool.
    pub pool: Pool<Restorer>,
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
        self.check_snapshot(&spec).await?;
        let _changing = self.changing.lock().await;
        let old = self.lock().get(&spec.function).cloned();
        let mut specs = self.specs();
        specs.insert(spec.function, spec.clone());
        self.persist(specs).await?;
        let entry = match &old {
            Some(entry) if entry.spec.makes_the_same(&spec) => {
                entry.pool.set_policy(policy).await;
                Entry { spec, pool: entry.pool.clone() }
            }
            _ => {
                let driver = Restorer { agent: agent.clone(), spec: spec.clone() };
                Entry { spec, pool: Pool::start(Arc::new(driver), policy) }
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

    async fn check_snapshot(&self, spec: &PoolSpec) -> Result<(), AgentError> {
        let (store, id, team) = (self.host.snapshots(), spec.snapshot, spec.team);
        let snapshot = blocking(move || store.open(id)).await;
        match snapshot {
            Ok(snapshot) if snapshot.manifest.team == team => Ok(()),
            Ok(_) | Err(pool_store::OpenError::NotFound { .. }) => {
                Err(AgentError::SnapshotNotFound(id))
            }
            Err(error) => Err(AgentError::store("open the snapshot")(error)),
        }
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

/// Makes the sandboxes of one function.
#[derive(Debug)]
pub struct Restorer {
    agent: Agent,
    spec: PoolSpec,
}

/// A warm sandbox and its guest, which it keeps for life.
#[derive(Debug)]
pub struct WarmSandbox {
    /// The sandbox.
    pub sandbox: Arc<Sandbox>,
    /// Its guest.
    pub guest: Arc<Guest>,
    /// Where its server listens.
    pub port: Port,
}

#[async_trait::async_trait]
impl Driver for Restorer {
    type Sandbox = WarmSandbox;

    async fn restore(&self) -> Result<WarmSandbox, Cause> {
        let create = CreateSandbox {
            sandbox: None,
            source: Source::Snapshot(self.spec.snapshot),
            team: self.spec.team,
            purpose: Purpose::Warm(self.spec.function),
            // The pool's own timers end it; this is the net below them.
            timeout_ms: self.agent.host.config.timeout_max_ms,
            on_timeout: OnTimeout::Kill,
            memory_mib: 0,
            vcpus: 0,
            env: self.spec.env.clone(),
            internet: self.spec.internet,
        };
        let sandbox = self.agent.create(create).await.map_err(shared)?;
        let guest = sandbox.serving().ok_or(AgentError::SandboxGone(sandbox.id)).map_err(shared)?;
        // Health check: the server that listened when it was saved takes connections.
        if let Err(error) = guest.dial(self.spec.port, LISTEN_MAX).await {
            let _ = self.agent.destroy(sandbox.id).await;
            return Err(shared(AgentError::io("reach the restored server")(error)));
        }
        Ok(WarmSandbox { sandbox, guest, port: self.spec.port })
    }

    async fn destroy(&self, warm: Arc<WarmSandbox>, why: ReapReason) {
        tracing::debug!(sandbox.id = %warm.sandbox.id, "reaping: {why}");
        match self.agent.destroy(warm.sandbox.id).await {
            // It may have died by itself.
            Ok(()) | Err(AgentError::SandboxNotFound(_)) => {}
            Err(error) => {
                tracing::error!(sandbox.id = %warm.sandbox.id, "not reaped: {}", chain(&error));
            }
        }
    }

    async fn died(&self, warm: Arc<WarmSandbox>) {
        warm.guest.exited().await;
    }
}

fn shared(error: AgentError) -> Cause {
    tracing::warn!("restore for a pool failed: {}", chain(&error));
    Arc::new(error)
}
