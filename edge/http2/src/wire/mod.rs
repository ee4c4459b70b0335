//! HTTP/2 as bytes (RFC 9113 4, 6): what goes over a connection, without the connection.

pub(crate) mod code;
pub(crate) mod frame;
pub(crate) mod hpack;
pub(crate) mod settings;

pub(crate) use code::Code;
pub(crate) use frame::Header;
