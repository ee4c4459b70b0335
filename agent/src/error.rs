//! Why something could not be done to a sandbox, and which stable code says so.

use std::{io, time::Duration};

use agent_slot::{HostError, SlotError};
use agent_vmm::{AdoptError, CaptureError, VmmError};
use envd_api::EnvdError;
pub use pool_model::chain;
use pool_model::{ErrorCode, FunctionId, SandboxId, SandboxState, SnapshotId, TemplateId};

/// Why the agent could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// There is no such sandbox.
    #[error("sandbox {0} is not on this host")]
    SandboxNotFound(SandboxId),
    /// It ended while it was being used.
    #[error("sandbox {0} has ended")]
    SandboxGone(SandboxId),
    /// There is no such template.
    #[error("template {0} is not on this host")]
    TemplateNotFound(TemplateId),
    /// There is no such snapshot.
    #[error("snapshot {0} is not on this host")]
    SnapshotNotFound(SnapshotId),
    /// There is no pool for this function.
    #[error("function {0} has no pool on this host")]
    FunctionNotFound(FunctionId),
    /// The state does not allow it.
    #[error("sandbox {sandbox} is {state}, which does not allow to {action} it")]
    Conflict {
        /// Which.
        sandbox: SandboxId,
        /// What it is doing.
        state: SandboxState,
        /// What was asked.
        action: &'static str,
    },
    /// The snapshot cannot be restored here.
    #[error("snapshot {snapshot} cannot be restored on this host: {reason}")]
    Incompatible {
        /// Which.
        snapshot: SnapshotId,
        /// What does not fit.
        reason: String,
    },
    /// Something still uses the snapshot.
    #[error("snapshot {snapshot} is used by {user}")]
    SnapshotInUse {
        /// Which.
        snapshot: SnapshotId,
        /// By what.
        user: String,
    },
    /// A value is wrong.
    #[error("{field}: {reason}")]
    InvalidArgument {
        /// Which field.
        field: &'static str,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// A code archive is not a safe tar.gz.
    #[error("{reason}")]
    MalformedArchive {
        /// The guest daemon's words.
        reason: String,
    },
    /// The host is full.
    #[error("no capacity: {reason}")]
    NoCapacity {
        /// What ran out.
        reason: String,
    },
    /// A pool's floor needs more memory than the host may promise.
    #[error("{0}")]
    OverBudget(pool::budget::OverBudget),
    /// The object store failed.
    #[error("object store failed to {step}")]
    Remote {
        /// At what.
        step: &'static str,
        /// How.
        #[source]
        source: Box<pool_remote::RemoteError>,
    },
    /// The disk is full.
    #[error("no space left on the disk to {step}")]
    NoSpace {
        /// What was being written.
        step: &'static str,
    },
    /// The VMM failed.
    #[error("vmm of {sandbox} failed to {step}")]
    Vmm {
        /// Whose.
        sandbox: SandboxId,
        /// At what.
        step: &'static str,
        /// How.
        #[source]
        source: Box<VmmError>,
    },
    /// Guest memory could not be written out.
    #[error("memory of {sandbox} could not be captured")]
    Capture {
        /// Whose.
        sandbox: SandboxId,
        /// How.
        #[source]
        source: Box<CaptureError>,
    },
    /// A machine could not be taken over.
    #[error("machine of {sandbox} could not be adopted")]
    Adopt {
        /// Whose.
        sandbox: SandboxId,
        /// How.
        #[source]
        source: Box<AdoptError>,
    },
    /// The guest daemon failed.
    #[error("guest of {sandbox} failed to {step}")]
    Guest {
        /// Whose.
        sandbox: SandboxId,
        /// At what.
        step: &'static str,
        /// How.
        #[source]
        source: Box<EnvdError>,
    },
    /// A slot could not be made or used.
    #[error("network slot failed")]
    Slot(#[source] SlotError),
    /// The host could not be set up.
    #[error("host could not be set up")]
    Host(#[source] Box<HostError>),
    /// The page server failed.
    #[error("page server failed to {step}")]
    Pager {
        /// At what.
        step: &'static str,
        /// How.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("{what} took longer than {waited:?}")]
    Deadline {
        /// What.
        what: &'static str,
        /// How long we waited.
        waited: Duration,
    },
    /// The host's disk or processes failed.
    #[error("failed to {step}")]
    Io {
        /// At what.
        step: &'static str,
        /// How.
        #[source]
        source: io::Error,
    },
    /// A snapshot could not be stored or read.
    #[error("failed to {step}")]
    Store {
        /// At what.
        step: &'static str,
        /// How.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl AgentError {
    /// An I/O error, a full disk told apart.
    pub fn io(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            if pool_store::is_no_space(&source) {
                Self::NoSpace { step }
            } else {
                Self::Io { step, source }
            }
        }
    }

    /// A snapshot store's error, a full disk told apart.
    pub fn store<E>(step: &'static str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |source| {
            if chain_has_no_space(&source) {
                Self::NoSpace { step }
            } else {
                Self::Store { step, source: Box::new(source) }
            }
        }
    }

    /// The stable code that clients see.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::SandboxNotFound(_) => ErrorCode::SandboxNotFound,
            Self::SandboxGone(_) => ErrorCode::SandboxGone,
            Self::TemplateNotFound(_) => ErrorCode::TemplateNotFound,
            Self::SnapshotNotFound(_) => ErrorCode::SnapshotNotFound,
            Self::FunctionNotFound(_) => ErrorCode::FunctionNotFound,
            Self::OverBudget(_) => ErrorCode::OverBudget,
            Self::Remote { .. } => ErrorCode::SnapshotUnavailable,
            Self::Conflict { .. } | Self::SnapshotInUse { .. } | Self::Incompatible { .. } => {
                ErrorCode::Conflict
            }
            Self::InvalidArgument { .. } => ErrorCode::InvalidArgument,
            Self::MalformedArchive { .. } => ErrorCode::MalformedArchive,
            Self::NoCapacity { .. } => ErrorCode::NoCapacity,
            Self::NoSpace { .. } => ErrorCode::NoSpace,
            Self::Vmm { source, .. } if chain_has_no_space(source.as_ref()) => ErrorCode::NoSpace,
            Self::Capture { source, .. } if chain_has_no_space(source.as_ref()) => {
                ErrorCode::NoSpace
            }
            Self::Guest { source, .. } => guest_code(source),
            Self::Deadline { .. } => ErrorCode::DeadlineExceeded,
            Self::Vmm { .. }
            | Self::Capture { .. }
            | Self::Adopt { .. }
            | Self::Slot(_)
            | Self::Host(_)
            | Self::Pager { .. }
            | Self::Io { .. }
            | Self::Store { .. } => ErrorCode::Internal,
        }
    }

    /// What a client is told. Our own failures are told by the log only.
    #[must_use]
    pub fn public_message(&self) -> String {
        if let Self::Guest { source, .. } = self
            && let EnvdError::Refused { message, .. } = source.as_ref()
        {
            return message.clone();
        }
        if matches!(self, Self::Remote { .. }) {
            return chain(self);
        }
        if self.code() == ErrorCode::Internal {
            return "internal error".to_owned();
        }
        self.to_string()
    }
}

fn guest_code(error: &EnvdError) -> ErrorCode {
    match error {
        EnvdError::Refused { status, code, .. } => match (*status, code.as_str()) {
            (507, _) => ErrorCode::NoSpace,
            (400..=499, _) => ErrorCode::InvalidArgument,
            _ => ErrorCode::Internal,
        },
        EnvdError::Timeout { .. } | EnvdError::Unreachable { .. } => ErrorCode::GuestUnresponsive,
        EnvdError::Malformed { .. } => ErrorCode::Internal,
    }
}

/// Whether a full disk is anywhere among an error's causes.
fn chain_has_no_space(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let full = error.downcast_ref::<io::Error>().is_some_and(pool_store::is_no_space);
        if full || error.to_string().contains("no space") {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_is_told_apart_from_other_failures() {
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        assert_eq!(AgentError::io("write")(full).code(), ErrorCode::NoSpace);
        let other = AgentError::io("write")(io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(other.code(), ErrorCode::Internal);
        assert_eq!(other.public_message(), "internal error");
        assert!(chain(&other).starts_with("failed to write: "), "{}", chain(&other));
    }
}
