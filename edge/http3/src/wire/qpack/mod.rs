//! QPACK (RFC 9204) without a dynamic table: field sections to bytes and back.
//!
//! Our SETTINGS say capacity 0, so every section stands alone: decoding one changes nothing, and a
//! refused one leaves no state behind.

pub mod decoder;
pub mod encoder;
pub mod static_table;
pub mod streams;
#[cfg(test)]
mod tests;

pub use decoder::{Section, SectionError};
pub use encoder::{write_field, write_prefix};
