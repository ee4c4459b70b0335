//! What the edge and an agent say to each other.
//!
//! Two transports that never share a connection: the Connect RPC service of
//! `proto/wrenn/agent/v1/agent.proto` ([`v1`], opened with [`connect`]), and HTTP/1.1 proxying
//! whose headers are in [`proxy`]. Errors of both carry a [`pool_model::ErrorCode`] ([`error`]).

mod client;
pub mod error;
pub mod proxy;

pub use client::{CALL_TIMEOUT, MESSAGE_BYTES_MAX, Token, connect};

/// Generated messages, service trait and client.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used
)]
mod generated {
    connectrpc::include_generated!();
}

/// The RPC schema, version 1: messages, the service trait `Agent` and its client.
pub use generated::wrenn::agent::v1;
