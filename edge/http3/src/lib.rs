//! HTTP/3 (RFC 9114) for servers, on quinn.
//!
//! ```text
//! QUIC stream --> request --> service(Request<RecvBody>) --> Response<B> --> respond --> QUIC stream
//!                  |   \__ one task per stream, both ways __/      |
//!                  |            exchange: 1xx, who gave up         |
//!                  +-------------------- link ---------------------+
//!                                         |
//! client's control and QPACK streams --> control        connection: SETTINGS, GOAWAY, the drain
//! ```
//!
//! Bytes are the affair of the `wire` module; the others read, write and wait.
//!
//! # Invariants
//!
//! - A body is read from QUIC when it is asked for: a slow service slows its client.
//! - A client that stops a stream ends its request, and no other. A client that breaks a rule of HTTP
//!   loses the request, one that breaks a rule of HTTP/3 the connection, each with the RFC's code.
//! - No stream is ever stopped or reset with a code that is not of HTTP/3.
//! - An answer reaches the client whole or is reset: neither a panic of the service nor a body that is
//!   not as long as its content-length makes it shorter.
//!
//! # Limits
//!
//! All in [`Config`]. A client can make a connection hold one head and one packet per stream, beside
//! what the transport's receive and send windows allow.

#[doc(hidden)]
pub use wire::fuzzing;

mod batch;
mod config;
mod connection;
mod control;
mod delivery;
mod error;
mod exchange;
mod link;
mod priority;
mod recv_body;
mod request;
mod respond;
pub(crate) mod wire;

pub use config::{Config, Counters};
pub use connection::{Ended, FIRST_REQUESTS, serve};
pub use error::{BodyError, BoxError, ConnectionError, InterimError};
pub use exchange::Interim;
pub use recv_body::RecvBody;
pub use wire::{Code, FrameError, Protocol, SettingsError};
