//! Disturbances during a run: what is done to a target on purpose, and what that cost.
//!
//! ```text
//! prepare --> start_proxies --> run ......... fire, hold, undo ......... finish
//! (checks)                       ^                   |                      |
//!                begin_part, end_part              Board <-- note       Disturbance
//! ```
//!
//! The engine prepares before it touches the target, starts the proxies before the target needs
//! them, spawns [`Chaos::run`], and gives each worker a [`Board`], which takes every answer. It
//! frames each part with [`Chaos::begin_part`] (when measuring begins, not the warm-up) and
//! [`Chaos::end_part`] (after the last answer). At the end it cancels, joins `run`, and takes the
//! disturbances from [`Chaos::finish`].
//!
//! # Invariants
//!
//! - What is done for a time is undone: at its end, on cancel, on drop, on panic. A process that
//!   we stopped has a guard that wakes it, and the file that fills a disk has no name, so neither
//!   outlives us if we are killed.
//! - Only what the plan names is signalled: the process is held by a pidfd, and is neither us, nor
//!   an ancestor of ours, nor the first.
//! - Only a small file system of its own is filled, never one that holds a directory of the system.
//!
//! # Limits
//!
//! 64 faults and 64 proxies per plan, 10 000 disturbances per run, 64 followed at a time; 1024
//! connections per proxy with 1 MiB each way under way; an hour for one disturbance.

mod board;
mod chaos;
mod disk;
mod fault;
mod plan;
mod process;
mod proxy;
mod stop;

pub use board::Board;
pub use chaos::Chaos;
pub use disk::DiskError;
pub use plan::{ChaosError, FaultError};
pub use process::ProcessError;
pub use proxy::ProxyError;
