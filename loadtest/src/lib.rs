//! Wrenn from outside: finds a running stack, calls it over every protocol, and measures.
//!
//! ```text
//! dev.json --> Stack --> edge_api::Client       the API
//!                   \--> Connection (h1|h2|h3)  functions and ports of sandboxes
//! ```
//!
//! # Invariants
//!
//! - A black box: nothing here knows how an edge or an agent works, only what they serve.
//! - Every wait has a deadline.

mod call;
mod error;
mod quic;
mod stack;
mod tcp;
mod timing;

pub use call::{Answer, Connection, Incoming, Protocol, Request};
pub use error::CallError;
pub use stack::{DevFile, Pids, Stack};
pub use timing::{Samples, ServerTiming};
