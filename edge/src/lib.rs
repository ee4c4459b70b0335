//! The edge process: data plane (`edge-proxy`) and control plane (`edge-control`) on one set of
//! listeners, over one database.
//!
//! ```text
//! api.<domain>            --> edge-control's router
//! <name>.fn.<domain>      --> routes --> agent's proxy listener
//! <port>-<id>.<domain>    --> routes --> agent's proxy listener
//! ```
//!
//! # Invariants
//!
//! - Nothing is bound before the settings are checked and the database is up to date.
//! - One edge per installation: its pid file is locked.
//! - The API key is written to its file once and never printed.

pub mod admin;
pub mod config;
pub mod jobs;
pub mod list;
pub mod plane;
pub mod records;
pub mod routes;
pub mod start;
pub mod takeover;
