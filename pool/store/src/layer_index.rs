//! Which blocks a layer has: `{layer}.index`.

use crate::{
    BlockEntry, Codec, Digest, FormatError, LayerId,
    format::{BLOCK_PAGES, Reader},
};

const WHAT: &str = "layer index";
const MAGIC: &[u8; 8] = b"wrennidx";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 16;
const ENTRY_BYTES: usize = 40;

/// [`crate::PAGE_BYTES`] as an index's lengths are.
const PAGE_BYTES_U32: u32 = 4096;

/// A layer's blocks, in the order in which they are stored. See [`crate::format`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerIndex {
    id: LayerId,
    blocks: Vec<BlockEntry>,
}

impl LayerIndex {
    /// Reads the index of layer `id` and verifies that it is that.
    ///
    /// # Errors
    ///
    /// [`FormatError`]: other bytes than this layer's, or not an index.
    pub fn from_bytes(id: LayerId, bytes: &[u8]) -> Result<Self, FormatError> {
        let found = LayerId::of(bytes);
        if found != id {
            return Err(FormatError::Identity { expected: id, found });
        }
        let mut reader = Reader::begin(WHAT, MAGIC, VERSION, bytes)?;
        let count = reader.u32()?;
        reader.expect_left(u64::from(count) * ENTRY_BYTES as u64)?;
        if count == 0 {
            return Err(reader.value(0, "number of blocks", count, "too few"));
        }
        let mut blocks = Vec::with_capacity((bytes.len() - HEAD_BYTES) / ENTRY_BYTES);
        let mut offset = 0;
        for item in 0..count as usize {
            let block = read_entry(&mut reader, item, offset)?;
            offset += u64::from(block.stored);
            blocks.push(block);
        }
        Ok(Self { id, blocks })
    }

    /// Makes the index of a new layer.
    ///
    /// The blocks are as [`crate::block::Encoder`] made them, at least one and at most `u32::MAX`.
    pub(crate) fn new(blocks: Vec<BlockEntry>) -> Self {
        let mut index = Self { id: LayerId(Digest([0; 32])), blocks };
        index.id = LayerId::of(&index.to_bytes());
        index
    }

    /// The bytes of the `.index` file.
    ///
    /// # Panics
    ///
    /// Never: no index has more blocks than a `u32` counts.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + ENTRY_BYTES * self.blocks.len());
        let count = u32::try_from(self.blocks.len()).expect("the writer stops before that");
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        for block in &self.blocks {
            bytes.extend(block.digest.0);
            bytes.extend(block.stored.to_le_bytes());
            bytes.push(block.pages);
            bytes.push(match block.codec {
                Codec::Raw => 0,
                Codec::Lz4 => 1,
            });
            bytes.extend([0; 2]);
        }
        bytes
    }

    /// The layer's id.
    #[must_use]
    pub fn id(&self) -> LayerId {
        self.id
    }

    /// The blocks, in the order in which they are stored: no gaps, from offset 0.
    #[must_use]
    pub fn blocks(&self) -> &[BlockEntry] {
        &self.blocks
    }

    /// Length of the `.blocks` file.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.blocks.last().map_or(0, |last| last.offset + u64::from(last.stored))
    }
}

fn read_entry(
    reader: &mut Reader<'_>,
    item: usize,
    offset: u64,
) -> Result<BlockEntry, FormatError> {
    let digest = Digest(reader.take()?);
    let (stored, pages, codec) = (reader.u32()?, reader.u8()?, reader.u8()?);
    let reserved = reader.u16()?;
    if pages == 0 || usize::from(pages) > BLOCK_PAGES {
        return Err(reader.value(item, "pages", pages, "not from 1 to 16"));
    }
    let content = u32::from(pages) * PAGE_BYTES_U32;
    let codec = match codec {
        0 if stored == content => Codec::Raw,
        1 if (1..content).contains(&stored) => Codec::Lz4,
        0 | 1 => return Err(reader.value(item, "stored bytes", stored, "not possible")),
        _ => return Err(reader.value(item, "codec", codec, "unknown")),
    };
    if reserved != 0 {
        return Err(reader.value(item, "reserved bytes", reserved, "not 0"));
    }
    Ok(BlockEntry { digest, offset, stored, pages, codec })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> LayerIndex {
        let block = |digit, offset, stored, pages, codec| BlockEntry {
            digest: Digest([digit; 32]),
            offset,
            stored,
            pages,
            codec,
        };
        LayerIndex::new(vec![
            block(1, 0, 65_536, 16, Codec::Raw),
            block(2, 65_536, 1000, 1, Codec::Lz4),
            block(3, 66_536, 65_535, 16, Codec::Lz4),
        ])
    }

    #[test]
    fn index_comes_back_and_knows_its_length() {
        let bytes = sample().to_bytes();
        assert_eq!(LayerIndex::from_bytes(sample().id(), &bytes), Ok(sample()));
        assert_eq!(sample().stored_bytes(), 66_536 + 65_535);
        assert_eq!(bytes.len(), 16 + 3 * 40);
    }

    #[test]
    fn every_flipped_byte_is_another_layer() {
        let bytes = sample().to_bytes();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let error = LayerIndex::from_bytes(sample().id(), &damaged).unwrap_err();
            assert!(matches!(error, FormatError::Identity { .. }), "{at}: {error:?}");
        }
    }

    #[test]
    fn what_no_writer_writes_is_refused_by_name() {
        let bytes = sample().to_bytes();
        // Offset of the byte, what is put there, and what the error has to name.
        for (at, value, named) in [
            (0, b'W', "this is no"),
            (8, 2, "version 2"),
            (12, 4, "176"),
            (12, 0, "16"),
            (16 + 32, 1, "stored bytes"),
            (16 + 36, 0, "pages"),
            (16 + 36, 17, "pages"),
            (16 + 37, 1, "stored bytes"),
            (16 + 37, 2, "codec"),
            (16 + 38, 1, "reserved"),
        ] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            let error = LayerIndex::from_bytes(LayerId::of(&damaged), &damaged).unwrap_err();
            assert!(error.to_string().contains(named), "{named}: {error}");
        }
        let empty = &[&MAGIC[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
        let error = LayerIndex::from_bytes(LayerId::of(empty), empty).unwrap_err();
        assert!(error.to_string().contains("too few"), "{error}");
        for len in 0..bytes.len() {
            let cut = &bytes[..len];
            LayerIndex::from_bytes(LayerId::of(cut), cut).unwrap_err();
        }
    }
}
