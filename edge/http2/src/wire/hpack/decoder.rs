//! Which fields the bytes of a field block are (RFC 7541 6).

use bytes::Bytes;
use edge_fields::{Block, Field, Name, Undecodable, Value};

use super::{
    dynamic_table::DynamicTable,
    static_table::{self, ENTRIES},
};

/// A block is not HPACK: the connection ends with COMPRESSION_ERROR (RFC 9113 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a field block can't be decoded: {0}")]
pub(crate) struct HpackError(pub(crate) &'static str);

impl From<Undecodable> for HpackError {
    fn from(error: Undecodable) -> Self {
        Self(error.0)
    }
}

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
        let mut block = Block::new(block);
        let mut began = false;
        while let Some(first) = block.first() {
            match first {
                0b1000_0000.. => {
                    let number = number(&mut block, 7)?;
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
        let name = match number(block, prefix)? {
            0 => Name::Literal(block.string(7)?),
            number => self.name(number)?,
        };
        let value = Value::Literal(block.string(7)?);
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

/// Reads the number of a field.
fn number(block: &mut Block, prefix: u32) -> Result<usize, HpackError> {
    usize::try_from(block.integer(prefix)?).map_err(|_| HpackError("an integer is too large"))
}
