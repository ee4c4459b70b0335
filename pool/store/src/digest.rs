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
const BLOCK_BYTES: u64 = 64 << 10;

/// Separates these digests from every other use of BLAKE3. Part of the format.
const CONTEXT: &str = "wrenn 2026 snapshot file digest v1";

/// Digests `file` without reading its holes. Moves the file's offset.
///
/// # Errors
///
/// What reading or seeking says; `UnexpectedEof` if the file is cut short meanwhile.
pub fn digest_sparse(file: &File) -> io::Result<blake3::Hash> {
    let len = file.metadata()?.len();
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    let block_len = usize::try_from(BLOCK_BYTES).expect("64 Ki fits");
    let mut buffer = vec![0; block_len];
    let zeroes = vec![0; block_len];
    let mut next = 0;
    for extent in data_extents(file)? {
        // Extents are finer than blocks: start at a block's edge, and never take a block twice.
        let mut at = next.max(extent.start / BLOCK_BYTES * BLOCK_BYTES);
        while at < (extent.start + extent.len).min(len) {
            let want = usize::try_from((len - at).min(BLOCK_BYTES)).expect("64 Ki fits");
            let block = &mut buffer[..want];
            file.read_exact_at(block, at)?;
            if *block != zeroes[..want] {
                hasher.update(&at.to_le_bytes());
                hasher.update(&(want as u64).to_le_bytes());
                hasher.update(block);
            }
            at += BLOCK_BYTES;
        }
        next = next.max(at);
    }
    hasher.update(&u64::MAX.to_le_bytes());
    hasher.update(&len.to_le_bytes());
    Ok(hasher.finalize())
}
