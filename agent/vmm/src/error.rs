//! What can go wrong with a machine, one enum per operation.

use std::{fmt, io, time::Duration};

use pool_model::SandboxId;

use crate::record::Exit;

/// Any error, as a caller's own code may return it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Who has to act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The caller gave something wrong.
    Caller,
    /// The guest or its VMM misbehaved; only this sandbox is concerned.
    Guest,
    /// This host is at fault.
    Host,
    /// Nothing is wrong except that there is too little of something.
    Capacity,
}

/// The end of a VMM's own log, as part of an error message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogTail(pub String);

impl fmt::Display for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("its log is empty")
        } else {
            write!(f, "its log ends with: {}", self.0)
        }
    }
}

/// Why a machine could not be made or driven.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// Something was missing or refused before the VMM's first instruction.
    #[error("vmm of {sandbox} could not be started: {step}")]
    Start {
        /// Whose machine.
        sandbox: SandboxId,
        /// What was being done, with the path.
        step: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The process ended.
    #[error("vmm of {sandbox} ended ({exit}) while it had to {step}; {log}")]
    Died {
        /// Whose machine.
        sandbox: SandboxId,
        /// What it was asked to do.
        step: &'static str,
        /// How it ended.
        exit: Exit,
        /// What it had said.
        log: LogTail,
    },
    /// The VMM answered with an error.
    #[error("vmm of {sandbox} refused to {step}: {reason}; {log}")]
    Refused {
        /// Whose machine.
        sandbox: SandboxId,
        /// What it was asked to do.
        step: &'static str,
        /// Its answer.
        reason: String,
        /// What it had said.
        log: LogTail,
    },
    /// The VMM lives but did not answer in time.
    #[error("vmm of {sandbox} did not {step} within {waited:?}; {log}")]
    Deadline {
        /// Whose machine.
        sandbox: SandboxId,
        /// What it was asked to do.
        step: &'static str,
        /// How long it was waited for.
        waited: Duration,
        /// What it had said.
        log: LogTail,
    },
    /// The control socket failed, or something that is not the protocol came out of it.
    #[error("talking to the vmm of {sandbox} failed: {step}")]
    Control {
        /// Whose machine.
        sandbox: SandboxId,
        /// What it was asked to do.
        step: &'static str,
        /// What was wrong.
        #[source]
        source: BoxError,
    },
    /// The library preloaded into the VMM could not set up paging.
    #[error("vmm of {sandbox} could not set up paging: {reason}; {log}")]
    Paging {
        /// Whose machine.
        sandbox: SandboxId,
        /// What the library reported.
        reason: String,
        /// What the VMM had said.
        log: LogTail,
    },
    /// The caller's `on_memory` failed.
    #[error("the memory of {sandbox} was not taken by the page server")]
    Attach {
        /// Whose machine.
        sandbox: SandboxId,
        /// What the caller said.
        #[source]
        source: BoxError,
    },
    /// The file system that the device state goes to is full.
    #[error("no space left for the device state of {sandbox}")]
    NoSpace {
        /// Whose machine.
        sandbox: SandboxId,
    },
}

impl VmmError {
    /// Who has to act.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Start { .. } | Self::Paging { .. } | Self::Attach { .. } => Blame::Host,
            Self::Died { .. }
            | Self::Refused { .. }
            | Self::Deadline { .. }
            | Self::Control { .. } => Blame::Guest,
            Self::NoSpace { .. } => Blame::Capacity,
        }
    }
}

/// Why a recorded machine could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The process is gone, or its id belongs to a later one.
    #[error("vmm of {sandbox} (pid {pid}) is gone")]
    Gone {
        /// Whose machine.
        sandbox: SandboxId,
        /// Its process id.
        pid: i32,
    },
    /// The process is not our VMM's program.
    #[error("pid {pid} of {sandbox} runs `{found}`, not {expected}")]
    NotOurs {
        /// Whose machine.
        sandbox: SandboxId,
        /// Its process id.
        pid: i32,
        /// What it runs.
        found: String,
        /// What it should run.
        expected: String,
    },
    /// It waits for a snapshot that only the agent which prepared it could have given it.
    #[error("vmm of {sandbox} (pid {pid}) is blank: there is no machine to take over")]
    Blank {
        /// Whose machine it should have become.
        sandbox: SandboxId,
        /// Its process id.
        pid: i32,
    },
    /// It lives, but its control socket does not answer.
    #[error("vmm of {sandbox} (pid {pid}) does not answer")]
    Unresponsive {
        /// Whose machine.
        sandbox: SandboxId,
        /// Its process id.
        pid: i32,
        /// What was wrong.
        #[source]
        source: BoxError,
    },
    /// Looking at the process failed.
    #[error("looking at pid {pid} of {sandbox} failed")]
    Inspect {
        /// Whose machine.
        sandbox: SandboxId,
        /// Its process id.
        pid: i32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl AdoptError {
    /// Who has to act.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Blank { .. } => Blame::Caller,
            Self::Gone { .. } | Self::Unresponsive { .. } => Blame::Guest,
            Self::NotOurs { .. } | Self::Inspect { .. } => Blame::Host,
        }
    }
}

/// Why a machine's memory could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// There is no room for what was captured.
    #[error("no space left for the memory of {sandbox}, from guest page {page} on")]
    NoSpace {
        /// Whose memory.
        sandbox: SandboxId,
        /// The first of the pages that were to be taken.
        page: u64,
        /// What the sink said.
        #[source]
        source: io::Error,
    },
    /// Base memory or the memory file is not as large as guest memory.
    #[error("{what} of {sandbox} has {found} bytes, expected {expected}")]
    Size {
        /// Whose memory.
        sandbox: SandboxId,
        /// What was measured.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The right size.
        expected: u64,
    },
    /// Reading or writing failed.
    #[error("capturing the memory of {sandbox} failed: {step}")]
    Io {
        /// Whose memory.
        sandbox: SandboxId,
        /// What was being done.
        step: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl CaptureError {
    /// Who has to act.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::NoSpace { .. } => Blame::Capacity,
            Self::Size { .. } => Blame::Caller,
            Self::Io { .. } => Blame::Host,
        }
    }
}
