//! HTTP/2 (RFC 9113) for servers, on the `h2` crate.
//!
//! ```text
//! bytes --> meter --> h2 --> service(Request<RecvBody>) --> Response<B> --> h2 --> bytes
//!             |                one task per stream
//!             counts frames that cost more than they bring
//! ```
//!
//! The `h2` crate speaks the protocol; hyper's server over it hides what a gateway needs: interim
//! answers, who resets how often, control frames without end.
//!
//! # Invariants
//!
//! - Flow control is released when a body is read, so a slow guest slows its client.
//! - A client that resets a stream ends its request, and no other.
//! - Extended CONNECT (RFC 8441) is two bodies: the request's and the answer's.
//!
//! # Limits
//!
//! All in [`Config`]. A client can make a connection hold its window (`connection_window_bytes`), one
//! head per stream, and `send_buffer_bytes` per stream of answers that it does not take.

mod batched;
mod check;
mod config;
mod connection;
mod keep_alive;
mod meter;
mod recv_body;
mod stream;

pub use config::{Config, Counters};
pub use connection::{Ended, ServeError, serve};
pub use recv_body::RecvBody;
pub use stream::{Interim, InterimError, Protocol};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
