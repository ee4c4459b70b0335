//! Resumes a paused sandbox from its image.
//!
//! # Invariants
//!
//! - The image stays untouched until the next pause: the disk is copied out of it (shared where
//!   the file system can), the memory is mapped privately. A resume that fails, or an agent that
//!   dies in the middle, leaves the sandbox paused as it was.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use pool_model::{Prefetch, SandboxId, SandboxState};
use tokio::time::timeout;

use crate::{
    agent::Agent,
    error::AgentError,
    guest::Guest,
    host::blocking,
    journal::{Durability, Record},
    launch::Origin,
    lifecycle::check_timeout,
    sandbox::Sandbox,
};

/// Why a sandbox does not serve a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Asleep {
    /// It is being created.
    #[error("the sandbox is being created")]
    Starting,
    /// Its resume takes longer than a request waits.
    #[error("the sandbox is being resumed")]
    Resuming,
    /// It cannot.
    #[error(transparent)]
    Failed(#[from] Arc<AgentError>),
}

impl Agent {
    /// Resumes a sandbox with a new lifetime (`timeout_ms`, or the one it was created with when
    /// 0). A running one runs on, its lifetime extended if the new one is longer.
    ///
    /// # Errors
    ///
    /// [`AgentError`]; a paused sandbox is still paused then.
    pub async fn resume(&self, id: SandboxId, timeout_ms: u64) -> Result<Arc<Sandbox>, AgentError> {
        let (agent, sandbox) = (self.clone(), self.sandbox(id)?);
        self.detached(async move {
            let _turn = sandbox.turn().await;
            agent.resume_here(&sandbox, timeout_ms).await?;
            Ok(sandbox)
        })
        .await
    }

    /// The guest of a sandbox, resumed first if it is paused. Many callers resume it once.
    ///
    /// # Errors
    ///
    /// [`AgentError`].
    pub async fn running(&self, id: SandboxId) -> Result<Arc<Guest>, AgentError> {
        if let Some(guest) = self.sandbox(id)?.serving() {
            return Ok(guest);
        }
        let sandbox = self.resume(id, 0).await?;
        sandbox.serving().ok_or(AgentError::SandboxGone(id))
    }

    /// As [`Agent::running`], for a request: many wait for one resume, none for longer than `limit`.
    ///
    /// # Errors
    ///
    /// [`Asleep`]. A resume that takes longer goes on.
    ///
    /// # Cancel safety
    ///
    /// The resume goes on for those that come later.
    pub(crate) async fn awake(&self, id: SandboxId, limit: Duration) -> Result<Arc<Guest>, Asleep> {
        let sandbox = self.sandbox(id).map_err(Arc::new)?;
        if let Some(guest) = sandbox.serving() {
            return Ok(guest);
        }
        match sandbox.state() {
            SandboxState::Starting => return Err(Asleep::Starting),
            SandboxState::Stopping => return Err(Arc::new(AgentError::SandboxGone(id)).into()),
            _ => {}
        }
        let agent = self.clone();
        let waking = sandbox.waking.join(&self.host.tasks, || {
            Box::pin(async move { agent.running(id).await.map(drop).map_err(Arc::new) })
        });
        match timeout(limit, waking).await {
            // It may have been paused again at once.
            Ok(result) => result.map(|()| sandbox.serving())?.ok_or(Asleep::Resuming),
            Err(_) => Err(Asleep::Resuming),
        }
    }

    async fn resume_here(&self, sandbox: &Arc<Sandbox>, timeout_ms: u64) -> Result<(), AgentError> {
        let paused = sandbox.record();
        let timeout = match timeout_ms {
            0 => paused.timeout(),
            asked => {
                check_timeout(asked, self.host.config.timeout_max_ms)?;
                Duration::from_millis(asked)
            }
        };
        if paused.state != SandboxState::Paused {
            return self.extend(sandbox, timeout_ms, timeout).await;
        }
        let origin = self.image(&paused).await?;
        let mut record = Record {
            state: SandboxState::Resuming,
            generation: paused.generation.next(),
            ..paused.clone()
        };
        sandbox.store(record.clone(), Durability::Process).await?;
        match self.start_again(sandbox, &mut record, origin, timeout).await {
            Ok(guest) => {
                self.serve(sandbox, guest);
                tracing::info!(sandbox.id = %sandbox.id, generation = record.generation.0, "sandbox resumed");
                Ok(())
            }
            Err(error) => {
                sandbox.store(paused, Durability::Process).await?;
                Err(error)
            }
        }
    }

    async fn start_again(
        &self,
        sandbox: &Arc<Sandbox>,
        record: &mut Record,
        origin: Origin,
        timeout: Duration,
    ) -> Result<Guest, AgentError> {
        let guest = Guest::start(&self.host, record, origin).await?;
        record.state = SandboxState::Running;
        record.expires_at = Some(Timestamp::now() + timeout);
        if let Err(error) = sandbox.store(record.clone(), Durability::Process).await {
            guest.stop().await;
            return Err(error);
        }
        Ok(guest)
    }

    async fn image(&self, record: &Record) -> Result<Origin, AgentError> {
        let store = self.host.images(record.sandbox);
        let (sandbox, image) = (record.sandbox, record.image);
        let image = image.ok_or(AgentError::SandboxGone(sandbox))?;
        let snapshot = blocking(move || store.open(image)).await;
        let snapshot = snapshot.map_err(AgentError::store("open the pause image"))?;
        self.origin_of(snapshot, Prefetch::WorkingSet).await
    }

    async fn extend(
        &self,
        sandbox: &Arc<Sandbox>,
        timeout_ms: u64,
        timeout: Duration,
    ) -> Result<(), AgentError> {
        if sandbox.serving().is_none() {
            return Err(AgentError::SandboxNotFound(sandbox.id));
        }
        let record = sandbox.record();
        let end = Timestamp::now() + timeout;
        if timeout_ms == 0 || record.expires_at.is_some_and(|old| old >= end) {
            return Ok(());
        }
        sandbox.store(Record { expires_at: Some(end), ..record }, Durability::Process).await
    }
}
