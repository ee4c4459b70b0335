//! What do the tests of several of the edge's crates share?
//!
//! ```text
//! Corpus ──► body(input)                    fuzz: seeds, every cut of them, then mutations
//!              └─► block_on(server(Peer))   peer: a client that sends an input, on a clock that jumps
//!                                           (feature `peer`)
//! program(path, text)                       program: a script that can be run at once
//! ```
//!
//! # Invariants
//!
//! - Only `[dev-dependencies]` name this crate; it knows none of ours, so each of them may use it.
//! - The same seed makes the same inputs.
//!
//! # Limits
//!
//! It panics where a test would.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fuzz;
#[cfg(feature = "peer")]
mod peer;
mod program;

pub use fuzz::Corpus;
#[cfg(feature = "peer")]
pub use peer::{Peer, block_on};
pub use program::program;
