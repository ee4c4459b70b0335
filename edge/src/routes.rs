//! What the data plane asks, answered from the control plane's directory.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use edge_control::Control;
use edge_proxy::{AgentEndpoint, FunctionRoute, RouteError, Routes, SandboxRoute};
use edge_store::StoreError;
use pool_model::SandboxId;

/// Routes to the one agent there is.
#[derive(Debug)]
pub struct DirectoryRoutes {
    control: Arc<Control>,
    agent: AgentEndpoint,
    capsule_timeout: Duration,
}

impl DirectoryRoutes {
    /// Routes to `agent` what `control` knows.
    #[must_use]
    pub const fn new(
        control: Arc<Control>,
        agent: AgentEndpoint,
        capsule_timeout: Duration,
    ) -> Self {
        Self { control, agent, capsule_timeout }
    }
}

#[async_trait]
impl Routes for DirectoryRoutes {
    async fn function(&self, name: &str) -> Result<FunctionRoute, RouteError> {
        let found = self.control.directory().function(name).await.map_err(unavailable)?;
        let target = found.ok_or(RouteError::NotFound)?;
        Ok(FunctionRoute {
            function: target.id,
            agents: vec![self.agent.clone()],
            timeout: target.timeout,
        })
    }

    async fn sandbox(&self, id: SandboxId) -> Result<SandboxRoute, RouteError> {
        if self.control.directory().has_sandbox(id).await.map_err(unavailable)? {
            Ok(SandboxRoute { agent: self.agent.clone(), timeout: self.capsule_timeout })
        } else {
            Err(RouteError::NotFound)
        }
    }
}

fn unavailable(error: StoreError) -> RouteError {
    tracing::error!(error = &error as &dyn std::error::Error, "a route could not be looked up");
    RouteError::Unavailable
}
