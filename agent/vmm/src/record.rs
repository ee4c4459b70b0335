//! What is remembered about a running machine: enough to find it again after a crash.

use std::{fmt, path::PathBuf, time::Duration};

use pool_model::SandboxId;
use serde::{Deserialize, Serialize};

/// Where a machine is and how to reach it; goes into the agent's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineRecord {
    /// Whose machine it is.
    pub sandbox: SandboxId,
    /// The VMM's process id.
    pub pid: i32,
    /// When the process started (field 22 of `/proc/<pid>/stat`): tells a reused id apart.
    pub start_ticks: u64,
    /// Where the guest's memory is.
    pub memory: MemoryRecord,
    /// The control socket.
    pub qmp_socket: PathBuf,
    /// The sandbox's directory.
    pub dir: PathBuf,
}

/// Where a machine's memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MemoryRecord {
    /// A booted machine's own memory file.
    Owned {
        /// Descriptor number of the memfd in the process.
        fd: i32,
        /// Size of guest memory.
        bytes: u64,
    },
    /// None yet: a VMM process that waits for a snapshot. Whoever finds this in a journal kills
    /// the process; only the agent that prepared it could restore it.
    Blank {
        /// Size of guest memory that is reserved.
        bytes: u64,
    },
    /// A private mapping of a snapshot's base memory.
    Clone {
        /// Descriptor number of the userfaultfd in the process.
        uffd_fd: i32,
        /// Descriptor number of the read-only base memory in the process.
        base_fd: i32,
        /// Where the mapping starts in the process.
        addr: u64,
        /// Size of the mapping, which is the size of guest memory.
        len: u64,
    },
}

impl MemoryRecord {
    /// Size of guest memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match *self {
            Self::Owned { bytes, .. } | Self::Blank { bytes } => bytes,
            Self::Clone { len, .. } => len,
        }
    }
}

/// What the page server needs to serve a clone that has just mapped its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryReport {
    /// The VMM's process id.
    pub pid: i32,
    /// When that process started, as in [`MachineRecord::start_ticks`].
    pub start_ticks: u64,
    /// Descriptor number of the userfaultfd in the process.
    pub uffd_fd: i32,
    /// Descriptor number of the read-only base memory in the process.
    pub base_fd: i32,
    /// Where the mapping starts in the process.
    pub addr: u64,
    /// Size of the mapping.
    pub len: u64,
}

/// How long each part of a restore took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestoreTimings {
    /// From the spawn until the VMM answered on its control socket. [`crate::Blank::restore`]
    /// leaves it at zero; a caller that had to wait for the blank puts
    /// [`crate::Blank::prepared_in`] here.
    pub prepare: Duration,
    /// Until guest memory was mapped, its faults were registered, and the page server had it.
    pub memory: Duration,
    /// Loading the device state.
    pub state_load: Duration,
    /// From the call until the machine stood ready, without `prepare`.
    pub total: Duration,
}

/// How a VMM's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It is gone; how is known only to the process that had started it.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("unknown exit"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_survives_the_journal() {
        for memory in [
            MemoryRecord::Clone { uffd_fd: 9, base_fd: 8, addr: 1 << 40, len: 1 << 28 },
            MemoryRecord::Blank { bytes: 1 << 28 },
            MemoryRecord::Owned { fd: 7, bytes: 1 << 28 },
        ] {
            let record = MachineRecord {
                sandbox: SandboxId::from_u128(7),
                pid: 42,
                start_ticks: 99,
                memory,
                qmp_socket: "/sandboxes/a/qmp.sock".into(),
                dir: "/sandboxes/a".into(),
            };
            assert_eq!(record.memory.bytes(), 1 << 28);
            let json = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<MachineRecord>(&json).unwrap(), record);
        }
    }
}
