//! HPACK (RFC 7541): field sections to bytes and back.
//!
//! A client may use a dynamic table of 4 KiB, as it may without asking. Answers use none: each field is
//! a number of the static table, or a name of it and a value, or both spelled out. What that costs in
//! bytes it saves in memory per connection and in looking for what may have been sent before.

mod decoder;
mod dynamic_table;
mod encoder;
mod static_table;
#[cfg(test)]
mod tests;

pub(crate) use decoder::{Decoder, HpackError};
pub(crate) use encoder::{write_field, write_no_table, write_status};
