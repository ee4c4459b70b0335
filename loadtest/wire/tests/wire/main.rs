//! Calls real servers, good and bad, over real sockets.

#![allow(clippy::unwrap_used, reason = "servers of tests may fail loudly")]

mod failures;
mod opening;
mod protocols;
mod server;
mod streams;
