//! Which fields the bytes of a field block are (RFC 7541 6).

use bytes::{Buf as _, Bytes, BytesMut};
use edge_fields::{
    Field, Name, Value, huffman,
    integer::{self, Overflow},
};

use super::{
    dynamic_table::DynamicTable,
    static_table::{self, ENTRIES},
};

/// A block is not HPACK: the connection ends with COMPRESSION_ERROR (RFC 9113 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a field block can't be decoded: {0}")]
pub(crate) struct HpackError(pub(crate) &'static str);

/// What a connection's blocks share.
#[derive(Debug)]
pub(crate) struct Decoder {
    table: DynamicTable,
}

impl Decoder {
    pub(crate) const fn new() -> Self {
        Self { table: DynamicTable::new() }
    }

    /// Gives each field of a block to `each`. A block has to be read to its end whatever is made of
    /// its fields: what it says to remember counts for the blocks that follow.
    pub(crate) fn decode(
        &mut self,
        block: Bytes,
        mut each: impl FnMut(Field),
    ) -> Result<(), HpackError> {
        let mut block = Block { rest: block, scratch: BytesMut::new() };
        let mut began = false;
        while let Some(&first) = block.rest.first() {
            match first {
                0b1000_0000.. => {
                    let number = block.number(7)?;
                    each(self.field(number)?);
                }
                0b0100_0000..0b1000_0000 => {
                    let field = self.literal(&mut block, 6, false)?;
                    self.table.insert(&field);
                    each(field);
                }
                0b0010_0000..0b0100_0000 => {
                    // RFC 7541 4.2: it may only come first.
                    if began {
                        return Err(HpackError("a size update comes late"));
                    }
                    let size = block.integer(5)?;
                    if !self.table.resize(size) {
                        return Err(HpackError("its table is larger than allowed"));
                    }
                    continue;
                }
                _ => each(self.literal(&mut block, 4, first & 0b0001_0000 != 0)?),
            }
            began = true;
        }
        Ok(())
    }

    #[inline]
    fn field(&self, number: usize) -> Result<Field, HpackError> {
        let field = match static_table::get(number) {
            Some(entry) => Some(Field::of_entry(entry)),
            None => number.checked_sub(ENTRIES + 1).and_then(|index| self.table.get(index)),
        };
        field.ok_or(HpackError("it refers beyond the tables"))
    }

    fn literal(
        &self,
        block: &mut Block,
        prefix: u32,
        never_indexed: bool,
    ) -> Result<Field, HpackError> {
        let name = match block.number(prefix)? {
            0 => Name::Literal(block.string()?),
            number => self.name(number)?,
        };
        let value = Value::Literal(block.string()?);
        Ok(Field { name, value, never_indexed })
    }

    fn name(&self, number: usize) -> Result<Name, HpackError> {
        let name = match static_table::get(number) {
            Some(entry) => Some(Name::Static(entry)),
            None => number.checked_sub(ENTRIES + 1).and_then(|index| self.table.name(index)),
        };
        name.ok_or(HpackError("it refers beyond the tables"))
    }
}

/// What is left of a block.
struct Block {
    rest: Bytes,
    /// Where strings are decoded.
    scratch: BytesMut,
}

impl Block {
    fn integer(&mut self, prefix: u32) -> Result<u64, HpackError> {
        match integer::decode(&self.rest, prefix) {
            Ok(Some((value, bytes))) => {
                self.rest.advance(bytes);
                Ok(value)
            }
            Ok(None) => Err(HpackError("it is cut short")),
            Err(Overflow) => Err(HpackError("an integer is too large")),
        }
    }

    /// The number of a field.
    fn number(&mut self, prefix: u32) -> Result<usize, HpackError> {
        let number = self.integer(prefix)?;
        usize::try_from(number).map_err(|_| HpackError("an integer is too large"))
    }

    /// RFC 7541 5.2.
    fn string(&mut self) -> Result<Bytes, HpackError> {
        let first = self.rest.first().ok_or(HpackError("it is cut short"))?;
        let coded = first & 0b1000_0000 != 0;
        let len = self.number(7)?;
        if len > self.rest.len() {
            return Err(HpackError("a string is cut short"));
        }
        let bytes = self.rest.split_to(len);
        if !coded {
            return Ok(bytes);
        }
        if self.scratch.capacity() == 0 {
            // Once for all strings: what is left can't decode to more.
            self.scratch.reserve((bytes.len() + self.rest.len()) * 8 / 5 + 1);
        }
        huffman::decode(&bytes, &mut self.scratch)
            .map_err(|_| HpackError("a string is no huffman code"))?;
        Ok(self.scratch.split().freeze())
    }
}
