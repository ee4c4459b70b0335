//! Ends of life: what happens when a sandbox's time passes.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use pool_model::{OnTimeout, SandboxId, SandboxState};

use crate::{
    agent::Agent,
    error::{AgentError, chain},
    journal::{Durability, Record},
    lifecycle::check_timeout,
    sandbox::Sandbox,
};

impl Agent {
    /// Sets the end of a running sandbox's life to `timeout_ms` from now. It may come sooner.
    ///
    /// # Errors
    ///
    /// [`AgentError::Conflict`] if it is not running.
    pub async fn set_timeout(
        &self,
        id: SandboxId,
        timeout_ms: u64,
    ) -> Result<Arc<Sandbox>, AgentError> {
        check_timeout(timeout_ms, self.host.config.timeout_max_ms)?;
        let sandbox = self.sandbox(id)?;
        let _turn = sandbox.turn().await;
        let record = sandbox.record();
        if record.state != SandboxState::Running {
            let state = record.state;
            return Err(AgentError::Conflict { sandbox: id, state, action: "set the timeout of" });
        }
        let expires_at = Some(Timestamp::now() + Duration::from_millis(timeout_ms));
        sandbox.store(Record { expires_at, ..record }, Durability::Process).await?;
        Ok(sandbox)
    }

    /// Ends a sandbox if its time is over: destroys or pauses it, as it was created to.
    pub(crate) async fn end(&self, id: SandboxId) {
        let Ok(sandbox) = self.sandbox(id) else { return };
        self.end_here(&sandbox).await;
    }

    async fn end_here(&self, sandbox: &Arc<Sandbox>) {
        let _turn = sandbox.turn().await;
        let record = sandbox.record();
        // It may have been extended, paused or destroyed while we waited for the turn.
        if self.sandbox(sandbox.id).is_err() {
            return;
        }
        if !is_due(&record) {
            let end = record.expires_at.filter(|_| record.state == SandboxState::Running);
            return self.host.reaper.set(sandbox.id, end);
        }
        tracing::info!(sandbox.id = %sandbox.id, action = ?record.on_timeout, "sandbox's time is over");
        match record.on_timeout {
            OnTimeout::Kill => self.erase(sandbox).await,
            OnTimeout::Pause => {
                if let Err(error) = self.pause_here(sandbox).await {
                    tracing::error!(sandbox.id = %sandbox.id, "not paused at its end: {}", chain(&error));
                    self.postpone(sandbox).await;
                }
            }
        }
    }

    /// A pause that failed (a full disk, say) is tried again, not at every tick.
    async fn postpone(&self, sandbox: &Arc<Sandbox>) {
        const AGAIN: Duration = Duration::from_secs(10);
        let expires_at = Some(Timestamp::now() + AGAIN);
        let record = Record { expires_at, ..sandbox.record() };
        if let Err(error) = sandbox.store(record, Durability::Process).await {
            tracing::error!(sandbox.id = %sandbox.id, "{}", chain(&error));
        }
    }
}

fn is_due(record: &Record) -> bool {
    record.state == SandboxState::Running
        && record.expires_at.is_some_and(|end| end <= Timestamp::now())
}
