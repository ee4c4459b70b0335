//! HTTP/1.1 (RFC 9110, RFC 9112) for a proxy: a server and a client, one task per connection.
//!
//! ```text
//! client bytes --> head --> service(Request<RecvBody>) --> Response<B> --> client bytes
//!                  |                                       |
//!                  strict framing, limits                  1xx, chunks, trailers, tunnels
//! ```
//!
//! Why not a general library: a gateway has to *see* ambiguous framing in order to refuse it, has to
//! pass 1xx answers on, and is measured by what it costs per request. Heads are parsed by `httparse`.
//!
//! # Invariants
//!
//! - What two parsers could read differently is refused: Content-Length with Transfer-Encoding, a
//!   doubled field, bare LF, space before a colon, line folding.
//! - Nothing is buffered beyond its limit; a slow reader slows the writer.
//! - The two directions of a request are independent: a body may be read by another task while the
//!   answer is written.
//! - A tunnel (`101`) is two bodies: the request's and the answer's.
//!
//! # Limits
//!
//! Per connection: the head (`max_head_bytes`), 16 KiB read ahead, 16 KiB of answer being written. An
//! idle connection keeps no buffer.

mod chunk;
pub mod client;
mod decode;
mod encode;
mod framing;
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod io;
pub mod server;
mod timer;

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
