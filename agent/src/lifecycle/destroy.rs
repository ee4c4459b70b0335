//! Destroys sandboxes, and removes the last trace of those that died.

use std::sync::Arc;

use agent_vmm::Exit;
use pool_model::{SandboxId, SandboxState};

use crate::{
    agent::Agent,
    error::{AgentError, chain},
    guest::{Ending, Guest},
    host::blocking,
    sandbox::Sandbox,
};

impl Agent {
    /// Destroys a sandbox in any state. When this returns nothing of it is left.
    ///
    /// # Errors
    ///
    /// [`AgentError::SandboxNotFound`].
    pub async fn destroy(&self, id: SandboxId) -> Result<(), AgentError> {
        let (agent, sandbox) = (self.clone(), self.sandbox(id)?);
        self.detached(async move {
            let _turn = sandbox.turn().await;
            // Another one may have been faster.
            agent.sandbox(id)?;
            agent.erase(&sandbox).await;
            tracing::info!(sandbox.id = %id, "sandbox destroyed");
            Ok(())
        })
        .await
    }

    /// Removes everything of a sandbox. The caller holds its turn.
    pub(crate) async fn erase(&self, sandbox: &Arc<Sandbox>) {
        sandbox.show(SandboxState::Stopping);
        if let Some(guest) = sandbox.serving() {
            sandbox.set_serving(None);
            guest.stop().await;
        }
        let record = sandbox.record();
        let own_images = record.image.into_iter().chain(
            // A resumed sandbox's memory is still backed by the image it was paused to.
            record.backing.as_ref().map(|backing| backing.snapshot),
        );
        for image in own_images.filter(|image| Some(*image) != record.snapshot) {
            self.host.pager.drop_base(image).await;
        }
        let dir = self.host.dir(sandbox.id);
        if let Err(error) = blocking(move || remove_dir(&dir)).await {
            // The record is still there or the whole directory is gone: the next start finishes it.
            tracing::error!(sandbox.id = %sandbox.id, "directory not removed: {}", chain(&error));
        }
        self.forget(sandbox.id);
        if record.image.is_some() {
            self.collect_layers();
        }
    }

    /// A machine ended by itself: its sandbox cannot come back, so nothing of it is kept.
    pub(crate) async fn guest_died(&self, guest: &Arc<Guest>, exit: Exit) {
        // Its requests are told before its turn comes. Whoever stopped it on purpose was faster.
        guest.end(Ending::Crashed);
        let Ok(sandbox) = self.sandbox(guest.sandbox) else { return };
        let _turn = sandbox.turn().await;
        let same = sandbox.serving().is_some_and(|serving| Arc::ptr_eq(&serving, guest));
        if !same {
            return; // it was stopped on purpose
        }
        tracing::warn!(sandbox.id = %guest.sandbox, "vmm ended by itself: {exit}");
        self.erase(&sandbox).await;
    }
}

/// Removes a sandbox's directory, its record last: what remains after a crash still has a name.
pub(crate) fn remove_dir(dir: &std::path::Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() == "sandbox.json" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    std::fs::remove_dir_all(dir)
}
