//! Wrenn from outside: finds a running stack, loads it or any other target, measures, checks.
//!
//! ```text
//! Plan --> Runner --> RunReport         (engine: when; work, paced, lifecycle: what; chaos)
//! dev.json --> Stack --> edge_api::Client                 the API
//!                   \--> Connection (h1|h2|h3)            functions and ports of sandboxes
//! ```
//!
//! # Invariants
//!
//! - A black box: nothing here knows how an edge or an agent works, only what they serve.
//! - Every wait has a deadline, and what was made for a test is removed after it.
//! - Open loops are free of coordinated omission: latency runs from the moment that a request was
//!   due, however long the harness or the target kept it waiting.

pub mod calibrate;
mod engine;
mod error;
mod lifecycle;
mod outcome;
mod paced;
mod pool_watch;
mod stack;
mod target;
mod work;

pub(crate) use loadtest_model::chain;

pub use engine::{Runner, commit, machine};
pub use error::RunError;
pub use loadtest_model::Protocol;
pub use loadtest_wire::{Answer, CallError, Connection, Incoming, Request, ServerTiming};
pub use stack::{DevFile, Pids, Stack};
