//! HTTP/2 over real sockets: what the server does with good and bad clients.

mod conformance_flow;
mod conformance_frames;
mod conformance_headers;
mod conformance_streams;
mod connect;
mod floods;
mod good;
mod raw;
mod support;
