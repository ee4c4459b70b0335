//! Drives virtual machine monitors: boot, pause, save, restore, adopt, kill.
//!
//! ```text
//! boot ----> running <--resume/pause--> stopped --save_state + capture_memory--> files
//! prepare -> blank --restore----------> stopped        kill, or its own exit, ends any of them
//! adopt --> whatever it was, but not a blank
//! ```
//!
//! This is the only crate that names a VMM. Above it there is [`Vmm`] (makes machines),
//! [`Blank`] (a process that waits for a snapshot) and [`Machine`] (one that has a guest); below
//! it there is QEMU, started without any privilege.
//!
//! # Invariants
//!
//! - A machine is killed through a pidfd, never through a bare process id.
//! - A machine outlives the agent; only `kill`, its own exit or a failed start ends it. A blank
//!   does not: it ends with its [`Blank`] or with the agent.
//! - A VMM is handed descriptors, not paths: its user needs no right on any directory.
//! - A failed or cancelled start leaves no process behind.
//! - A clone never holds a writable descriptor of the base memory.
//!
//! # Limits
//!
//! Every command has a deadline ([`QemuConfig`]); a VMM's log and a guest's console keep 64 KiB
//! each, in memory, so that no guest fills a disk.

mod accel;
mod capture;
mod error;
mod process;
mod qemu;
mod record;
mod sys;
mod usage;
mod vmm;

pub use accel::{Accel, probe_accel};
pub use capture::{Captured, PageSink, capture_memory};
pub use error::{AdoptError, Blame, BoxError, CaptureError, LogTail, VmmError};
pub use qemu::{ParseVersionError, Qemu, QemuConfig, QemuSetupError, QemuVersion, pvh_kernel};
pub use record::{Exit, MachineRecord, MemoryRecord, MemoryReport, RestoreTimings};
pub use usage::{CloneUsage, VmmUsage, clone_private_bytes, clone_usage, vmm_usage};
pub use vmm::{BaseMemory, Blank, Machine, MachineSpec, OnMemory, Restored, Vmm};
