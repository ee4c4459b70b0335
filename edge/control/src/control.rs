//! What every call of the control plane shares.

use std::{
    collections::HashSet,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use edge_jobs::Jobs;
use edge_store::Store;
use jiff::Timestamp;
use pool_model::{SandboxId, TeamId, TemplateId};
use tokio::sync::{RwLock, Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::{Agent, ApiError, Directory, Outside, events::Streams, rollout::Retired};

/// Deploys at a time: each holds an archive in memory and a virtual machine at the agent.
const DEPLOYS_MAX: usize = 8;

/// Domains that are verified at a time: each holds a socket for some seconds.
const LOOKUPS_MAX: usize = 16;

/// The time as the store keeps it: what is answered now is what is answered after a restart.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// How the installation is reached from outside; for the URLs in answers.
#[derive(Debug, Clone)]
pub struct Public {
    /// `http` or `https`.
    pub scheme: String,
    /// The domain, without a dot in front.
    pub domain: String,
    /// The port, unless it is the scheme's own.
    pub port: Option<u16>,
}

impl Public {
    fn url(&self, host: &str) -> String {
        let Self { scheme, domain, .. } = self;
        match self.port {
            Some(port) => format!("{scheme}://{host}.{domain}:{port}"),
            None => format!("{scheme}://{host}.{domain}"),
        }
    }

    /// Where a function is called, or with `<name>--<tag>` one of its versions.
    #[must_use]
    pub fn function_url(&self, label: &str) -> String {
        self.url(&format!("{label}.fn"))
    }

    /// Where a capsule's ports are, with `{port}` for the port.
    #[must_use]
    pub fn capsule_url(&self, id: SandboxId) -> String {
        self.url(&format!("{{port}}-{}", id.label()))
    }
}

/// The control plane. One per process, shared by everything.
#[derive(Debug)]
pub struct Control {
    store: Store,
    queue: Jobs,
    agent: Agent,
    public: Public,
    directory: Directory,
    /// What others do for us.
    pub(crate) outside: Outside,
    /// Work that goes on though its client hung up; waited for at shutdown.
    tasks: TaskTracker,
    /// Places for deploys.
    pub(crate) deploys: Arc<Semaphore>,
    /// Places for verifying domains.
    pub(crate) lookups: Semaphore,
    /// Places for event streams.
    pub(crate) streams: Streams,
    /// Held while pools are set by what the store says.
    pub(crate) pools: tokio::sync::Mutex<()>,
    /// Pools that go soon.
    pub(crate) retired: Retired,
    /// Shared from before a snapshot is asked for until it has its record; held whole while
    /// snapshots without a record are swept.
    pub(crate) snapshots: RwLock<()>,
    /// Capsules that have a record and may not be at the agent yet.
    creating: Mutex<HashSet<SandboxId>>,
    /// Whether the agent answered last time.
    pub(crate) agent_reachable: watch::Sender<bool>,
    /// What is recorded as under way from before is left over by a crash.
    pub(crate) started_at: Timestamp,
}

impl Control {
    /// Makes the control plane.
    #[must_use]
    pub fn new(store: Store, agent: Agent, public: Public, outside: Outside) -> Arc<Self> {
        let directory = Directory::new(store.clone());
        let queue = Jobs::new(store.clone());
        Arc::new(Self {
            store,
            queue,
            agent,
            public,
            directory,
            outside,
            tasks: TaskTracker::new(),
            deploys: Arc::new(Semaphore::new(DEPLOYS_MAX)),
            lookups: Semaphore::new(LOOKUPS_MAX),
            streams: Streams::default(),
            pools: tokio::sync::Mutex::new(()),
            retired: Retired::default(),
            snapshots: RwLock::new(()),
            creating: Mutex::default(),
            agent_reachable: watch::Sender::new(false),
            started_at: now(),
        })
    }

    /// The records.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The queue of invocations that nobody waits for: whoever fills it and whoever works it off
    /// have clones of this one.
    #[must_use]
    pub const fn queue(&self) -> &Jobs {
        &self.queue
    }

    /// The agent.
    #[must_use]
    pub const fn agent(&self) -> &Agent {
        &self.agent
    }

    /// How the installation is reached.
    #[must_use]
    pub const fn public(&self) -> &Public {
        &self.public
    }

    /// What the data plane asks.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Whether the agent answered when it was last asked.
    #[must_use]
    pub fn agent_reachable(&self) -> bool {
        *self.agent_reachable.borrow()
    }

    /// Waits for the work under way. The caller bounds the wait; what is cut then is cleaned up
    /// after at the next start.
    pub async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Runs `work` to its end even if whoever awaits this hangs up.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.tasks.spawn(work).await.unwrap_or_else(|panicked| Err(ApiError::internal(panicked)))
    }

    /// Marks a capsule as being created until the guard is dropped.
    pub(crate) fn creating(&self, id: SandboxId) -> Creating<'_> {
        self.creating_set().insert(id);
        Creating { control: self, id }
    }

    pub(crate) fn is_creating(&self, id: SandboxId) -> bool {
        self.creating_set().contains(&id)
    }

    fn creating_set(&self) -> MutexGuard<'_, HashSet<SandboxId>> {
        self.creating.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a team's template by id or name; the platform's default if none is named.
    pub(crate) async fn template(
        &self,
        team: TeamId,
        wanted: Option<&str>,
    ) -> Result<TemplateId, ApiError> {
        let found = self.templates(team).await?;
        let wanted = wanted.map_or_else(|| TemplateId::DEFAULT.to_string(), str::to_owned);
        found
            .iter()
            .find(|t| t.id.to_string() == wanted || t.name == wanted)
            .map(|t| t.id)
            .ok_or_else(|| {
                let shown: String = wanted.chars().take(80).collect();
                ApiError::new(
                    pool_model::ErrorCode::TemplateNotFound,
                    format!("there is no template `{shown}`"),
                )
            })
    }
}

/// See [`Control::creating`].
pub(crate) struct Creating<'c> {
    control: &'c Control,
    id: SandboxId,
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        self.control.creating_set().remove(&self.id);
    }
}
