//! What the data plane asks, answered from the control plane's directory.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use edge_control::{Control, FunctionTarget, SandboxTarget, VersionTarget};
use edge_proxy::{
    AgentEndpoint, FunctionRoute, RouteError, Routes, SandboxRoute, Submission, SubmitError,
    Submitted, TagRoute, VersionRoute,
};
use edge_store::StoreError;
use pool_model::{SandboxId, TeamId};

use crate::jobs::Queue;

/// Routes to the one agent there is.
#[derive(Debug)]
pub struct DirectoryRoutes {
    control: Arc<Control>,
    agents: Arc<[AgentEndpoint]>,
    agent: AgentEndpoint,
    capsule_timeout: Duration,
    jobs: Queue,
}

impl DirectoryRoutes {
    /// Routes to `agent` what `control` knows.
    #[must_use]
    pub fn new(
        control: Arc<Control>,
        agent: AgentEndpoint,
        capsule_timeout: Duration,
        jobs: Queue,
    ) -> Self {
        let agents = Arc::from([agent.clone()]);
        Self { control, agents, agent, capsule_timeout, jobs }
    }

    fn function_route(&self, target: &FunctionTarget) -> Arc<FunctionRoute> {
        // Made once per answer of the directory and forgotten with it.
        target.attached.get_or_make(|| FunctionRoute {
            function: target.id,
            name: Arc::clone(&target.name),
            team: target.team,
            policy: Arc::clone(&target.policy),
            signing_secret: target
                .signing_secret
                .as_ref()
                .map(|secret| Arc::clone(secret.expose())),
            current: version(&target.current),
            tags: target
                .tags
                .iter()
                .map(|tag| TagRoute {
                    tag: Arc::clone(&tag.tag),
                    weight: tag.weight,
                    version: version(&tag.version),
                })
                .collect(),
            agents: Arc::clone(&self.agents),
        })
    }

    fn sandbox_route(&self, target: &SandboxTarget) -> Arc<SandboxRoute> {
        target.attached.get_or_make(|| SandboxRoute {
            team: target.team,
            agent: self.agent.clone(),
            traffic: Arc::clone(&target.traffic),
            traffic_token: target.traffic_token.as_ref().map(|token| Arc::clone(token.expose())),
            timeout: self.capsule_timeout,
        })
    }
}

fn version(target: &VersionTarget) -> VersionRoute {
    VersionRoute { version: target.version, pool: target.pool, timeout: target.timeout }
}

#[async_trait]
impl Routes for DirectoryRoutes {
    fn cached_function(&self, name: &str) -> Option<Result<Arc<FunctionRoute>, RouteError>> {
        let known = self.control.directory().cached_function(name)?;
        Some(known.map(|target| self.function_route(&target)).ok_or(RouteError::NotFound))
    }

    async fn function(&self, name: &str) -> Result<Arc<FunctionRoute>, RouteError> {
        let found = self.control.directory().function(name).await.map_err(unavailable)?;
        found.map(|target| self.function_route(&target)).ok_or(RouteError::NotFound)
    }

    fn cached_sandbox(&self, id: SandboxId) -> Option<Result<Arc<SandboxRoute>, RouteError>> {
        let known = self.control.directory().cached_sandbox(id)?;
        Some(known.map(|target| self.sandbox_route(&target)).ok_or(RouteError::NotFound))
    }

    async fn sandbox(&self, id: SandboxId) -> Result<Arc<SandboxRoute>, RouteError> {
        let found = self.control.directory().sandbox(id).await.map_err(unavailable)?;
        found.map(|target| self.sandbox_route(&target)).ok_or(RouteError::NotFound)
    }

    fn cached_domain(&self, host: &str) -> Option<Result<Arc<str>, RouteError>> {
        Some(self.control.directory().cached_domain(host)?.ok_or(RouteError::NotFound))
    }

    async fn domain(&self, host: &str) -> Result<Arc<str>, RouteError> {
        let found = self.control.directory().domain(host).await.map_err(unavailable)?;
        found.ok_or(RouteError::NotFound)
    }

    async fn team_of_key(&self, key: &str) -> Result<Option<TeamId>, RouteError> {
        self.control.directory().team_of_key(key).await.map_err(unavailable)
    }

    async fn submit(&self, submission: Submission) -> Result<Submitted, SubmitError> {
        self.jobs.submit(&self.control, submission).await
    }
}

fn unavailable(error: Arc<StoreError>) -> RouteError {
    tracing::error!(error = &*error as &dyn std::error::Error, "a route could not be looked up");
    RouteError::Unavailable
}
