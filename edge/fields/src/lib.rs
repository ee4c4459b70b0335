//! What field sections of HTTP/2 and HTTP/3 have in common: their alphabet, and what a message may say.
//!
//! ```text
//! bytes --(HPACK of edge-http2, QPACK of edge-http3)--> Field --RequestFields--> http::request::Parts
//!            integer, huffman                                 \--TrailerFields--> http::HeaderMap
//! ```
//!
//! # Invariants
//!
//! - Nothing here reads, writes or waits; every function is a step over bytes at hand.
//! - What two parsers could read differently is refused, so that nothing past it has to ask: RFC 9113 8
//!   and RFC 9114 4 have the same rules but for the numbers of their sections.
//!
//! # Limits
//!
//! How many fields there are, and how large, is counted by whoever decodes them: [`Field::size`].

pub mod huffman;
pub mod integer;

mod block;
mod field;
mod message;
mod name_index;
mod rules;
mod target;

pub use block::{Block, Undecodable};
pub use field::{Entry, Field, Name, Value};
pub use message::{Malformed, Protocol, RequestFields, RequestHead, TrailerFields};
pub use name_index::{Found, NameIndex};
pub use rules::is_connection_specific;
