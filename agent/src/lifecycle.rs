//! What can be done to a sandbox, one file per operation.
//!
//! ```text
//! create ─► Starting ─► Running ─pause─► Pausing ─► Paused ─resume─► Resuming ─► Running
//!                          │ ▲                        │
//!                          └─┘ snapshot               └ snapshot (of the image)
//! destroy, from any state: Stopping ─► nothing is left
//! ```
//!
//! Every operation runs in a task of its own and holds the sandbox's turn.

mod create;
mod destroy;
mod end;
mod pause;
mod resume;
mod snapshot;
mod upkeep;

pub(crate) use create::random_id;
pub use create::{CreateSandbox, Source};
pub(crate) use destroy::remove_dir;
pub(crate) use resume::Asleep;
pub(crate) use upkeep::{Verified, damaged};

use crate::error::AgentError;

/// The shortest lifetime that may be asked for, milliseconds.
const TIMEOUT_MIN_MS: u64 = 1;

/// Refuses lifetimes out of range.
fn check_timeout(timeout_ms: u64, max_ms: u64) -> Result<(), AgentError> {
    if (TIMEOUT_MIN_MS..=max_ms).contains(&timeout_ms) {
        return Ok(());
    }
    let reason = format!("{timeout_ms} is not {TIMEOUT_MIN_MS} to {max_ms}");
    Err(AgentError::InvalidArgument { field: "timeout_ms", reason })
}
