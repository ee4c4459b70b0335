//! Which fields the bytes of a field section are (RFC 9204 4.5), within limits.

use bytes::Bytes;
use edge_fields::{Block, Entry, Field, Name, Undecodable, Value};

use super::static_table;
use crate::wire::{Code, Limits};

/// Why a field section is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SectionError {
    /// It isn't QPACK, or it needs a dynamic table: the connection ends.
    #[error("a field section can't be decoded: {0}")]
    Decompression(&'static str),
    /// Its fields are larger than the limit.
    #[error("the fields are larger than {limit} bytes")]
    TooLarge {
        /// The limit for field sections in bytes.
        limit: usize,
    },
    /// It has more fields than the limit.
    #[error("there are more than {limit} fields")]
    TooMany {
        /// The limit.
        limit: usize,
    },
}

impl From<Undecodable> for SectionError {
    fn from(error: Undecodable) -> Self {
        Self::Decompression(error.0)
    }
}

impl SectionError {
    /// The code to close the connection with, or to reset the stream if it is about a limit.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::Decompression(_) => Code::QPACK_DECOMPRESSION_FAILED,
            Self::TooLarge { .. } | Self::TooMany { .. } => Code::H3_EXCESSIVE_LOAD,
        }
    }
}

/// The fields of one section, decoded one after the other.
///
/// It holds the section's bytes and at most 8/5 as many for what is Huffman coded.
#[derive(Debug)]
pub struct Section {
    block: Block,
    limits: Limits,
    bytes_left: usize,
    fields_left: usize,
}

impl Section {
    /// Begins with the payload of a HEADERS frame.
    ///
    /// # Errors
    ///
    /// [`SectionError::Decompression`] if it needs entries of a dynamic table.
    pub fn new(payload: Bytes, limits: &Limits) -> Result<Self, SectionError> {
        let mut section = Self {
            block: Block::new(payload),
            limits: *limits,
            bytes_left: limits.field_section_bytes,
            fields_left: limits.fields,
        };
        if section.block.integer(8)? != 0 {
            return Err(SectionError::Decompression("it needs a dynamic table"));
        }
        // Without entries a base below zero is all that a sign can mean (RFC 9204 4.5.1.2).
        let first = section.peek()?;
        let _base = section.block.integer(7)?;
        if first & 0x80 != 0 {
            return Err(SectionError::Decompression("its base is negative"));
        }
        Ok(section)
    }

    /// The next field, or `None` at the end.
    ///
    /// # Errors
    ///
    /// [`SectionError`]; the section is of no more use then.
    pub fn next_field(&mut self) -> Result<Option<Field>, SectionError> {
        if self.block.first().is_none() {
            return Ok(None);
        }
        if self.fields_left == 0 {
            return Err(SectionError::TooMany { limit: self.limits.fields });
        }
        self.fields_left -= 1;
        let field = self.field()?;
        self.bytes_left = self
            .bytes_left
            .checked_sub(field.size())
            .ok_or(SectionError::TooLarge { limit: self.limits.field_section_bytes })?;
        Ok(Some(field))
    }

    fn field(&mut self) -> Result<Field, SectionError> {
        let first = self.peek()?;
        match first {
            0b1100_0000.. => {
                let entry = self.entry(6)?;
                Ok(Field::of_entry(entry))
            }
            0b0101_0000..0b0110_0000 | 0b0111_0000..0b1000_0000 => {
                let name = Name::Static(self.entry(4)?);
                let value = Value::Literal(self.block.string(7)?);
                Ok(Field { name, value, never_indexed: first & 0x20 != 0 })
            }
            0b0010_0000..0b0100_0000 => {
                let name = Name::Literal(self.block.string(3)?);
                let value = Value::Literal(self.block.string(7)?);
                Ok(Field { name, value, never_indexed: first & 0x10 != 0 })
            }
            _ => Err(SectionError::Decompression("it refers to a dynamic table")),
        }
    }

    fn peek(&self) -> Result<u8, SectionError> {
        self.block.first().ok_or(SectionError::Decompression("it is cut short"))
    }

    fn entry(&mut self, prefix: u32) -> Result<&'static Entry, SectionError> {
        let index = self.block.integer(prefix)?;
        static_table::get(index)
            .ok_or(SectionError::Decompression("it refers beyond the static table"))
    }
}
