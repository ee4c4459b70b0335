//! How one function's warm sandboxes are made, checked and ended.

use std::{sync::Arc, time::Duration};

use pool::{Cause, Driver, ReapReason, Restored};
use pool_model::{OnTimeout, Port};
use tokio::time::Instant;

use super::PoolSpec;
use crate::{
    agent::Agent,
    error::{AgentError, chain},
    guest::Guest,
    journal::Purpose,
    lifecycle::{CreateSandbox, Source},
    sandbox::Sandbox,
};

/// Longest for a restored server to accept a connection: it listened when it was saved.
const LISTEN_MAX: Duration = Duration::from_secs(5);

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

impl Restorer {
    pub(super) fn new(agent: Agent, spec: PoolSpec) -> Self {
        Self { agent, spec }
    }

    fn to_create(&self) -> CreateSandbox {
        CreateSandbox {
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
            prefetch: self.spec.policy.prefetch,
        }
    }

    /// Health check: the server that listened when it was saved takes connections.
    async fn check(&self, guest: &Guest) -> Result<(), AgentError> {
        let dialed = guest.dial(self.spec.port, LISTEN_MAX).await;
        dialed.map(drop).map_err(AgentError::io("reach the restored server"))
    }
}

#[async_trait::async_trait]
impl Driver for Restorer {
    type Sandbox = WarmSandbox;

    async fn restore(&self) -> Result<Restored<WarmSandbox>, Cause> {
        let sandbox = self.agent.create(self.to_create()).await.map_err(shared)?;
        let guest = sandbox.serving().ok_or(AgentError::SandboxGone(sandbox.id)).map_err(shared)?;
        let began = Instant::now();
        if let Err(error) = self.check(&guest).await {
            let _ = self.agent.destroy(sandbox.id).await;
            return Err(shared(error));
        }
        let mut steps = guest.steps.clone();
        steps.push(("ready", began.elapsed()));
        Ok(Restored { sandbox: WarmSandbox { sandbox, guest, port: self.spec.port }, steps })
    }

    async fn renew(&self, warm: Arc<WarmSandbox>) -> Result<(), Cause> {
        self.agent.host.pager.record(warm.guest.record().pid).await;
        self.check(&warm.guest).await.map_err(shared)
    }

    async fn destroy(&self, warm: Arc<WarmSandbox>, why: ReapReason) {
        tracing::debug!(sandbox.id = %warm.sandbox.id, "reaping: {why}");
        if why == ReapReason::Released {
            // It has served: what it touched is what the next cold restore should have ready.
            self.agent.host.pager.record(warm.guest.record().pid).await;
        }
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
