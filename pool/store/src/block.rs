//! What one block looks like as stored bytes, and how its pages are got back.

use crate::{
    Digest,
    digest::of_block,
    format::{BLOCK_BYTES, PAGE_BYTES},
};

/// How a block's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// As they are: compression does not pay.
    Raw,
    /// LZ4 block format, the length not prepended.
    Lz4,
}

/// One block of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockEntry {
    /// Digest of the uncompressed pages.
    pub digest: Digest,
    /// Where its stored bytes begin in the `.blocks` file.
    pub offset: u64,
    /// How many bytes are stored, from 1 to 64 Ki.
    pub stored: u32,
    /// How many pages it holds, from 1 to 16.
    pub pages: u8,
    /// How they are stored.
    pub codec: Codec,
}

impl BlockEntry {
    /// Bytes of its pages, uncompressed.
    #[must_use]
    pub fn content_bytes(&self) -> usize {
        usize::from(self.pages) * PAGE_BYTES
    }

    /// [`BlockEntry::stored`] as a length in memory.
    #[must_use]
    pub fn stored_len(&self) -> usize {
        usize::try_from(self.stored).expect("at most 64 Ki")
    }
}

/// Why stored bytes are not the block they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// There are fewer or more bytes, stored or decompressed, or less room, than the entry says.
    #[error("{found} bytes where a block's index entry says {expected}")]
    Length {
        /// Bytes by the entry.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// They are not LZ4.
    #[error("the stored bytes cannot be decompressed")]
    Decompress,
    /// The pages are others.
    #[error("the pages have digest {found}, the block's is {expected}")]
    Digest {
        /// The block's digest.
        expected: Digest,
        /// The digest of what was read.
        found: Digest,
    },
}

/// Decompresses `stored` and verifies it into `out[..pages × 4096]`. Allocates nothing.
///
/// # Errors
///
/// [`BlockError`]; `out` then holds anything.
pub fn decode_block(entry: &BlockEntry, stored: &[u8], out: &mut [u8]) -> Result<(), BlockError> {
    let length = |expected, found| BlockError::Length { expected, found };
    if stored.len() != entry.stored_len() {
        return Err(length(entry.stored_len(), stored.len()));
    }
    let want = entry.content_bytes();
    let room = out.len();
    let out = out.get_mut(..want).ok_or(length(want, room))?;
    match entry.codec {
        Codec::Raw if stored.len() != want => return Err(length(want, stored.len())),
        Codec::Raw => out.copy_from_slice(stored),
        Codec::Lz4 => {
            let found = lz4_flex::block::decompress_into(stored, out)
                .map_err(|_| BlockError::Decompress)?;
            if found != want {
                return Err(length(want, found));
            }
        }
    }
    let found = of_block(out);
    if found != entry.digest {
        return Err(BlockError::Digest { expected: entry.digest, found });
    }
    Ok(())
}

/// Compresses blocks, with the same buffer each time.
#[derive(Debug)]
pub(crate) struct Encoder {
    buffer: Box<[u8]>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        let most = lz4_flex::block::get_maximum_output_size(BLOCK_BYTES);
        Self { buffer: vec![0; most].into() }
    }

    /// The bytes to store for `pages`: compressed if that saves at least an eighth. Below that a
    /// restore would pay with processor time for next to no room.
    pub(crate) fn encode<'a>(&'a mut self, pages: &'a [u8]) -> (Codec, &'a [u8]) {
        match lz4_flex::block::compress_into(pages, &mut self.buffer) {
            Ok(len) if len <= pages.len() - pages.len() / 8 => (Codec::Lz4, &self.buffer[..len]),
            // An error means that the buffer is too small, which it is not: raw is right anyway.
            Ok(_) | Err(_) => (Codec::Raw, pages),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block's entry and stored bytes.
    fn block(pages: &[u8]) -> (BlockEntry, Vec<u8>) {
        let mut encoder = Encoder::new();
        let (codec, stored) = encoder.encode(pages);
        let entry = BlockEntry {
            digest: of_block(pages),
            offset: 0,
            stored: u32::try_from(stored.len()).unwrap(),
            pages: u8::try_from(pages.len() / PAGE_BYTES).unwrap(),
            codec,
        };
        (entry, stored.to_vec())
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn compression_is_used_where_it_pays() {
        assert_eq!(block(&[7; BLOCK_BYTES]).0.codec, Codec::Lz4);
        assert_eq!(block(&noise(BLOCK_BYTES)).0.codec, Codec::Raw);
    }

    #[test]
    fn every_flipped_byte_is_refused() {
        let mut out = [0; PAGE_BYTES];
        for pages in [vec![7; PAGE_BYTES], noise(PAGE_BYTES)] {
            let (entry, stored) = block(&pages);
            for at in 0..stored.len() {
                let mut damaged = stored.clone();
                damaged[at] ^= 0x10;
                decode_block(&entry, &damaged, &mut out).unwrap_err();
            }
            decode_block(&entry, &stored, &mut out).unwrap();
            assert!(out == *pages);
        }
    }

    #[test]
    fn wrong_lengths_and_digests_are_named() {
        let (entry, stored) = block(&noise(PAGE_BYTES));
        let mut out = [0; PAGE_BYTES];
        let short = decode_block(&entry, &stored[1..], &mut out);
        assert_eq!(short, Err(BlockError::Length { expected: 4096, found: 4095 }));
        let narrow = decode_block(&entry, &stored, &mut out[..100]);
        assert_eq!(narrow, Err(BlockError::Length { expected: 4096, found: 100 }));
        let other = BlockEntry { digest: Digest([0; 32]), ..entry };
        let error = decode_block(&other, &stored, &mut out).unwrap_err();
        assert!(matches!(error, BlockError::Digest { found, .. } if found == entry.digest));
        let (entry, stored) = block(&[7; 2 * PAGE_BYTES]);
        let longer = BlockEntry { pages: 3, ..entry };
        let found = decode_block(&longer, &stored, &mut [0; BLOCK_BYTES]);
        assert_eq!(found, Err(BlockError::Length { expected: 3 * 4096, found: 2 * 4096 }));
        let lz4 = BlockEntry { stored: 3, ..entry };
        let garbage = decode_block(&lz4, &[0xff; 3], &mut [0; BLOCK_BYTES]);
        assert_eq!(garbage, Err(BlockError::Decompress));
    }

    proptest::proptest! {
        #[test]
        fn pages_come_back(
            pages in 1..=16_usize,
            content in proptest::collection::vec(0..3_u8, 1..5000),
            noisy: bool,
        ) {
            let len = pages * PAGE_BYTES;
            let bytes: Vec<u8> = if noisy { noise(len) } else {
                content.iter().copied().cycle().take(len).collect()
            };
            let (entry, stored) = block(&bytes);
            let mut out = vec![1; BLOCK_BYTES];
            decode_block(&entry, &stored, &mut out).unwrap();
            assert!(out[..len] == bytes);
            assert!(stored.len() <= len);
        }
    }
}
