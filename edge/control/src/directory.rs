//! What the data plane asks on every request: which function has this name, who may reach this
//! sandbox, whose is this domain, whose is this key.

mod attached;
mod remembered;

use std::{sync::Arc, time::Duration};

use edge_store::{ApiKey, LiveFunction, Secret, Store, StoreError, VersionRecord};
use pool_model::{FunctionId, InvocationPolicy, Port, SandboxId, TeamId, TrafficPolicy};

pub use attached::Attached;
use remembered::Remembered;

/// Longest that an answer is remembered. Changes are forgotten at once; this bounds what a change
/// by another process may cost.
pub(crate) const TTL: Duration = Duration::from_secs(5);

/// One version of a function, as requests are sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionTarget {
    /// Its number.
    pub version: u32,
    /// The pool that serves it.
    pub pool: FunctionId,
    /// Where its server listens.
    pub port: Port,
    /// Longest time of one invocation.
    pub timeout: Duration,
}

/// A tag of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagTarget {
    /// The tag.
    pub tag: Arc<str>,
    /// Its share of the requests to the plain name; 0: none.
    pub weight: u32,
    /// What it stands for.
    pub version: VersionTarget,
}

/// Where a function's requests go, and which may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionTarget {
    /// Its id.
    pub id: FunctionId,
    /// Whose it is.
    pub team: TeamId,
    /// Its name.
    pub name: Arc<str>,
    /// How it may be invoked.
    pub policy: Arc<InvocationPolicy>,
    /// What its URLs are signed with, if any ever was.
    pub signing_secret: Option<Secret>,
    /// What its plain name means if no tag has a weight.
    pub current: VersionTarget,
    /// Its tags, in the order of their names.
    pub tags: Vec<TagTarget>,
    /// What the data plane makes of all this.
    pub attached: Attached,
}

/// Who may reach a sandbox's ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxTarget {
    /// Whose it is.
    pub team: TeamId,
    /// How its ports may be reached.
    pub traffic: Arc<TrafficPolicy>,
    /// What opens its private ports.
    pub traffic_token: Option<Secret>,
    /// What the data plane makes of all this.
    pub attached: Attached,
}

/// A cache over the store. Cheap to clone. Every `cached_` getter answers from memory: `None` if it
/// doesn't know, `Some(None)` if it knows that there is nothing.
#[derive(Debug, Clone)]
pub struct Directory {
    store: Store,
    functions: Arc<Remembered<String, Arc<FunctionTarget>>>,
    sandboxes: Arc<Remembered<SandboxId, Arc<SandboxTarget>>>,
    domains: Arc<Remembered<String, Arc<str>>>,
    /// By the keys' hashes.
    keys: Arc<Remembered<String, TeamId>>,
}

impl Directory {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            functions: Arc::new(Remembered::new(TTL)),
            sandboxes: Arc::new(Remembered::new(TTL)),
            domains: Arc::new(Remembered::new(TTL)),
            keys: Arc::new(Remembered::new(TTL)),
        }
    }

    /// The function of this name, whoever owns it, if that is known.
    #[must_use]
    pub fn cached_function(&self, name: &str) -> Option<Option<Arc<FunctionTarget>>> {
        self.functions.get(name)
    }

    /// The function of this name, whoever owns it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store can't be asked.
    pub async fn function(
        &self,
        name: &str,
    ) -> Result<Option<Arc<FunctionTarget>>, Arc<StoreError>> {
        let lookup = || {
            let (store, name) = (self.store.clone(), name.to_owned());
            async move {
                let found = store.live_function_by_name(&name).await?;
                Ok(found.map(|live| Arc::new(target(&live))))
            }
        };
        self.functions.get_or(name, || name.to_owned(), lookup).await
    }

    /// The capsule of this id, whoever owns it, if that is known.
    #[must_use]
    pub fn cached_sandbox(&self, id: SandboxId) -> Option<Option<Arc<SandboxTarget>>> {
        self.sandboxes.get(&id)
    }

    /// The capsule of this id, whoever owns it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store can't be asked, or what it has of the capsule can't be read.
    pub async fn sandbox(
        &self,
        id: SandboxId,
    ) -> Result<Option<Arc<SandboxTarget>>, Arc<StoreError>> {
        let lookup = || {
            let store = self.store.clone();
            async move {
                let found = store.capsule_of_any(id).await?;
                Ok(found.map(|capsule| {
                    Arc::new(SandboxTarget {
                        team: capsule.team,
                        traffic: Arc::new(capsule.traffic),
                        traffic_token: capsule.traffic_token,
                        attached: Attached::default(),
                    })
                }))
            }
        };
        self.sandboxes.get_or(&id, || id, lookup).await
    }

    /// The name of the function that a domain (lower case) leads to, if that is known.
    #[must_use]
    pub fn cached_domain(&self, host: &str) -> Option<Option<Arc<str>>> {
        self.domains.get(host)
    }

    /// The name of the function that a verified domain (lower case) leads to.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store can't be asked.
    pub async fn domain(&self, host: &str) -> Result<Option<Arc<str>>, Arc<StoreError>> {
        let lookup = || {
            let (store, host) = (self.store.clone(), host.to_owned());
            async move { Ok(store.function_of_domain(&host).await?.map(Arc::from)) }
        };
        self.domains.get_or(host, || host.to_owned(), lookup).await
    }

    /// Whose API key this is, if that is known. A text that is no key is nobody's.
    #[must_use]
    pub fn cached_team_of_key(&self, key: &str) -> Option<Option<TeamId>> {
        match key.parse::<ApiKey>() {
            Ok(key) => self.keys.get(&key.hash()),
            Err(_) => Some(None),
        }
    }

    /// Whose API key this is.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store can't be asked.
    pub async fn team_of_key(&self, key: &str) -> Result<Option<TeamId>, Arc<StoreError>> {
        let Ok(key) = key.parse::<ApiKey>() else { return Ok(None) };
        let hash = key.hash();
        let lookup = || {
            let (store, key) = (self.store.clone(), key.clone());
            async move { store.team_of_key(&key).await }
        };
        self.keys.get_or(&hash, || hash.clone(), lookup).await
    }

    pub(crate) fn forget_function(&self, name: &str) {
        self.functions.forget(name);
    }

    pub(crate) fn forget_sandbox(&self, id: SandboxId) {
        self.sandboxes.forget(&id);
    }

    pub(crate) fn forget_domain(&self, host: &str) {
        self.domains.forget(host);
    }
}

fn target(live: &LiveFunction) -> FunctionTarget {
    let function = &live.function;
    let tag = |tag: &edge_store::TagRecord| {
        let version = version(live.version(tag.version)?);
        Some(TagTarget { tag: tag.tag.as_str().into(), weight: tag.weight, version })
    };
    FunctionTarget {
        id: function.id,
        team: function.team,
        name: function.name.as_str().into(),
        policy: Arc::new(function.invocation.clone()),
        signing_secret: function.signing_secret.clone(),
        current: version(&function.as_version()),
        tags: live.tags.iter().filter_map(tag).collect(),
        attached: Attached::default(),
    }
}

fn version(found: &VersionRecord) -> VersionTarget {
    VersionTarget {
        version: found.version,
        pool: found.pool,
        port: found.port,
        timeout: Duration::from_millis(found.timeout_ms),
    }
}
