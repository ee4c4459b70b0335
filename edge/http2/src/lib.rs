//! HTTP/2 (RFC 9113) for servers.
//!
//! ```text
//! bytes --> input --> inbound --> service(Request<RecvBody>) --> Response<B> --> answer --> out --> bytes
//!                        |  \__ one future per stream, run by the connection's task __/      |
//!                        |                       tasks                                      |
//!                        +----------------------- link: streams, windows --------------------+
//! ```
//!
//! Bytes are the affair of the `wire` module; the others read, write and wait. A connection has turns:
//! it does what the frames say that have come, runs the streams that have something to do, and writes
//! what they all have to say at once.
//!
//! # Invariants
//!
//! - Flow control is released when a body is read, so a slow guest slows its client.
//! - A client that resets a stream ends its request, and no other. A client that breaks a rule of HTTP
//!   loses the request, one that breaks a rule of HTTP/2 the connection, each with the RFC's code.
//! - Extended CONNECT (RFC 8441) is two bodies: the request's and the answer's.
//! - A connection without a stream holds no buffer.
//!
//! # Limits
//!
//! All in [`Config`]. A client can make a connection hold its window (`connection_window_bytes`), one
//! head per stream, a dynamic table of 4 KiB, and `send_buffer_bytes` of answers that it does not take.

mod answer;
mod config;
mod connection;
mod drain;
mod error;
mod inbound;
mod inbox;
mod input;
mod keep_alive;
mod limits;
mod link;
mod out;
mod recv_body;
mod section;
mod streams;
mod tasks;
mod window;
mod wire;

pub use config::{Config, Counters};
pub use connection::{Ended, serve};
pub use edge_fields::Protocol;
pub use error::{BodyError, BoxError, InterimError, ServeError};
pub use recv_body::{Interim, RecvBody};
pub use wire::code::Code;
