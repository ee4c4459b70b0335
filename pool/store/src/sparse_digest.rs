//! The digest of a sparse file.
//!
//! The file is cut into blocks of 64 KiB, the last one may be shorter. Hashed, with BLAKE3 in
//! key-derivation mode under [`CONTEXT`], is for every block that is not all zeroes: its offset
//! (8 bytes, little endian), its length (8 bytes, little endian) and its bytes; and at the end
//! `2^64 - 1` and the file's length in the same form. So the digest depends on the content alone: a hole and
//! written zeroes count the same, and a hole costs no reading.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use crate::sparse::data_extents;

/// Block size in bytes. Part of the format.
const BLOCK_BYTES: usize = 64 << 10;

/// The same where offsets are computed.
const BLOCK_BYTES_U64: u64 = 64 << 10;

/// Separates these digests from every other use of BLAKE3. Part of the format.
const CONTEXT: &str = "wrenn 2026 snapshot file digest v1";

/// Digests `file` without reading its holes. Moves the file's offset.
///
/// # Errors
///
/// What reading or seeking says; `UnexpectedEof` if the file is cut short meanwhile.
pub fn digest_sparse(file: &File) -> io::Result<blake3::Hash> {
    let len = file.metadata()?.len();
    let mut blocks = Blocks::new();
    let mut buffer = vec![0; BLOCK_BYTES];
    let mut next = 0;
    for extent in data_extents(file)? {
        // Extents are finer than blocks: start at a block's edge, and never take a block twice.
        let mut at = next.max(extent.start / BLOCK_BYTES_U64 * BLOCK_BYTES_U64);
        while at < (extent.start + extent.len).min(len) {
            let want = usize::try_from(len - at).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES));
            let block = &mut buffer[..want];
            file.read_exact_at(block, at)?;
            blocks.add(at, block);
            at += BLOCK_BYTES_U64;
        }
        next = next.max(at);
    }
    Ok(blocks.finish(len))
}

/// What [`digest_sparse`] says of a file with these bytes.
pub(crate) fn digest_bytes(bytes: &[u8]) -> blake3::Hash {
    let mut blocks = Blocks::new();
    for (at, block) in (0..).step_by(BLOCK_BYTES).zip(bytes.chunks(BLOCK_BYTES)) {
        blocks.add(at, block);
    }
    blocks.finish(bytes.len() as u64)
}

/// The hash of blocks in ascending order.
struct Blocks(blake3::Hasher);

impl Blocks {
    fn new() -> Self {
        Self(blake3::Hasher::new_derive_key(CONTEXT))
    }

    fn add(&mut self, at: u64, block: &[u8]) {
        static ZEROES: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
        if *block != ZEROES[..block.len()] {
            self.0.update(&at.to_le_bytes());
            self.0.update(&(block.len() as u64).to_le_bytes());
            self.0.update(block);
        }
    }

    fn finish(mut self, len: u64) -> blake3::Hash {
        self.0.update(&u64::MAX.to_le_bytes());
        self.0.update(&len.to_le_bytes());
        self.0.finalize()
    }
}
