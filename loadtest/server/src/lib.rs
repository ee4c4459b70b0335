//! A test server whose delays and faults are known beforehand.
//!
//! ```text
//! clear text  TCP  HTTP/1.1, HTTP/2 by prior knowledge ----.
//! TLS         TCP  HTTP/1.1, HTTP/2 by ALPN ----------------+--> routes --> answer, delay, fault
//!             UDP  HTTP/3, same port -----------------------'
//! ```
//!
//! Load tests are tried against it, and the harness is calibrated by it: what an answer says of its
//! own delay is what the harness has to have seen. Every protocol has the same routes:
//!
//! ```text
//! /                                   ok, as fast as can be
//! /delay?ms&first_ms&last_ms&body     after a time, told in Server-Timing
//! /stall?every&ms                     each so-manyth request holds up the whole server
//! /echo   /mixup?every                the nonce and the body's digest; now and then another's nonce
//! /bytes?n&cut                        a pattern, whole or cut
//! /status?code  /error?every  /reset?every
//! /sse?n&delay_ms   /ws               events, an echo
//! /sandbox?reuse                      as if an invocation: a sandbox's id in each answer
//! ```
//!
//! # Invariants
//!
//! - Only loopback addresses are served; the certificate is made at the start and never written.
//! - Counts (every so-manyth) are of the whole server, not of a connection or a protocol.
//! - While it is stalled nothing leaves it but what was handed to the kernel before.
//!
//! # Limits
//!
//! Connections as configured (4096), 1000 streams each, waits of at most a minute by query, 30 s
//! for a request's head or body, 16 MiB per WebSocket message.

mod body;
mod certificate;
mod clock;
mod query;
mod quic;
mod route;
mod server;
mod state;
mod tasks;
mod tcp;

pub use server::{ServeError, Server, ServerConfig};
