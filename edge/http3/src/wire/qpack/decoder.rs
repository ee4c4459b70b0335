//! Which fields the bytes of a field section are (RFC 9204 4.5), within limits.

use bytes::{Buf, Bytes, BytesMut};
use edge_fields::{
    Entry, Field, Name, Value, huffman,
    integer::{self, Overflow},
};

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
    rest: Bytes,
    scratch: BytesMut,
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
            rest: payload,
            scratch: BytesMut::new(),
            limits: *limits,
            bytes_left: limits.field_section_bytes,
            fields_left: limits.fields,
        };
        if section.integer(8)? != 0 {
            return Err(SectionError::Decompression("it needs a dynamic table"));
        }
        // Without entries a base below zero is all that a sign can mean (RFC 9204 4.5.1.2).
        let first = section.peek()?;
        let _base = section.integer(7)?;
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
        if self.rest.is_empty() {
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
                let value = Value::Literal(self.string(7)?);
                Ok(Field { name, value, never_indexed: first & 0x20 != 0 })
            }
            0b0010_0000..0b0100_0000 => {
                let name = Name::Literal(self.string(3)?);
                let value = Value::Literal(self.string(7)?);
                Ok(Field { name, value, never_indexed: first & 0x10 != 0 })
            }
            _ => Err(SectionError::Decompression("it refers to a dynamic table")),
        }
    }

    fn peek(&self) -> Result<u8, SectionError> {
        self.rest.first().copied().ok_or(SectionError::Decompression("it is cut short"))
    }

    fn integer(&mut self, prefix: u32) -> Result<u64, SectionError> {
        match integer::decode(&self.rest, prefix) {
            Ok(Some((value, bytes))) => {
                self.rest.advance(bytes);
                Ok(value)
            }
            Ok(None) => Err(SectionError::Decompression("it is cut short")),
            Err(Overflow) => Err(SectionError::Decompression("an integer is too large")),
        }
    }

    fn entry(&mut self, prefix: u32) -> Result<&'static Entry, SectionError> {
        let index = self.integer(prefix)?;
        static_table::get(index)
            .ok_or(SectionError::Decompression("it refers beyond the static table"))
    }

    /// A string whose length has `prefix` bits, after one that says whether it is Huffman code.
    fn string(&mut self, prefix: u32) -> Result<Bytes, SectionError> {
        let coded = self.peek()? & (1 << prefix) != 0;
        let len = self.integer(prefix)?;
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= self.rest.len())
            .ok_or(SectionError::Decompression("a string is cut short"))?;
        let bytes = self.rest.split_to(len);
        if !coded {
            return Ok(bytes);
        }
        if self.scratch.capacity() == 0 {
            // Once for all strings: what is left can't decode to more.
            self.scratch.reserve((bytes.len() + self.rest.len()) * 8 / 5 + 1);
        }
        huffman::decode(&bytes, &mut self.scratch)
            .map_err(|_| SectionError::Decompression("a string is no huffman code"))?;
        Ok(self.scratch.split().freeze())
    }
}
