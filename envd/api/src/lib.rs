//! What the guest daemon speaks: its schema, its JSON bodies, and the client that hosts use.
//!
//! ```text
//! host --EnvdClient--> one TCP connection per call --> envd in the guest, port 49983
//! ```
//!
//! # Invariants
//!
//! - No connection outlives its call, so none is ever used on both sides of a snapshot.
//! - Every call has a deadline; only an event stream without a timeout may stay open.
//! - What comes from the guest is hostile: bodies are read up to a limit, never on trust.
//! - The access token appears in no `Debug` output and in no error.
//!
//! # Limits
//!
//! 64 KiB of a refusal's body, 4 MiB per streamed message, 1 MiB of JSON.

mod client;
mod error;
mod init;
mod process;
mod rpc;
mod transport;

pub use client::{EnvdClient, WrittenFile};
pub use error::EnvdError;
pub use init::{BadInit, Health, Init, Metrics};
pub use process::{End, Output, ProcessEvent, ProcessStream, Running, Signal, Start, Stdin};
pub use transport::{Connect, Io};

/// The port the guest daemon listens on; part of E2B's contract.
pub const PORT: u16 = 49983;

/// Header that carries the access token.
pub const ACCESS_TOKEN_HEADER: &str = "x-access-token";

/// Header of `/init`'s and `/health`'s answer: the daemon's version.
pub const VERSION_HEADER: &str = "x-envd-version";

/// Types and stubs generated from `proto/process.proto`.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    rustdoc::all
)]
pub mod proto {
    connectrpc::include_generated!();
}
