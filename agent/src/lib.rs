//! The agent: keeps one host's sandboxes alive, lends them, and proxies to them.
//!
//! ```text
//! edge ──RPC──► rpc ──► Agent (lifecycle, pools) ──► Guest = slot + machine + guest daemon
//!      ──HTTP─► proxy ─────────┘ lease, dial                │
//!                                                      journal, page server
//! ```
//!
//! # Invariants
//!
//! - What was acknowledged survives the agent: it is in the journal, its VMM is a process of its
//!   own, and the next agent adopts it. Everything else is reaped ([`recover`]).
//! - A sandbox is handed out only when its guest acknowledged that it is unique ([`guest`]).
//! - RPC and proxying never share a listener, a connection or a limit.

mod accept;
pub mod agent;
pub mod background;
pub mod base_disk;
pub mod blanks;
pub mod capacity;
pub mod config;
pub mod error;
mod flight;
pub mod guest;
pub mod host;
pub mod journal;
pub mod launch;
pub mod lifecycle;
pub mod memory;
pub mod pager;
pub mod pools;
pub mod proxy;
pub mod reaper;
pub mod recover;
pub mod remote;
pub mod rpc;
pub mod sandbox;
pub mod slots;
pub mod start;
pub mod template;
