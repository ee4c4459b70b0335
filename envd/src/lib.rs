//! The guest daemon: what the host can ask of a sandbox from the inside.
//!
//! ```text
//! agent, edge --HTTP/1.1, port 49983--> connections --> http --+--> process (Connect RPC)
//!                                           ^                  +--> files, metrics
//!                                           |                  +--> lifecycle: init, quiesce
//!                                           `--- closes all ------------'
//! ```
//!
//! # Invariants
//!
//! - Before a snapshot nothing is left open, running or secret; after it nothing runs before the
//!   guest is unique again (see [`Guest`] and `lifecycle`).
//! - Every request is checked against the access token once there is one.
//! - User input reaches no shell; users come from `/etc/passwd` and nowhere else.
//!
//! # Limits
//!
//! Stated by each module; all of them are bounds on what one guest can use of its own machine.

mod access;
mod accounts;
mod cgroup;
mod connections;
mod files;
mod guest;
mod http;
mod identity;
mod lifecycle;
mod metrics;
mod process;
mod sys;
mod system;

pub use accounts::{Accounts, LookUpUserError, User};
pub use cgroup::{FreezeError, UserCgroup};
pub use connections::{ListenError, listen, serve};
pub use guest::{Guest, Surroundings};
pub use sys::WipingAllocator;
pub use system::{HandsOff, Linux, System};

/// This daemon's version, as `/health` and `/init` tell it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Puts the daemon before all others, and out of reach of the out-of-memory killer.
///
/// # Errors
///
/// What the system said; the daemon works without, only worse under load.
pub fn take_precedence() -> std::io::Result<()> {
    sys::set_nice(-20)?;
    std::fs::write("/proc/self/oom_score_adj", "-1000")
}
