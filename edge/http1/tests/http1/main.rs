//! HTTP/1.1 over real sockets: what a server and a client of this crate do with good and bad peers.

mod client;
mod client_bad;
mod framing;
mod interim;
mod interop;
mod limits;
mod malformed;
mod memory;
mod pipeline;
mod support;
mod tunnel;
