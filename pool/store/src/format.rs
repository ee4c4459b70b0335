//! What the files look like, byte by byte.
//!
//! Numbers are little endian. A *page* is 4096 bytes of the guest. A *block* is 1 to 16 pages of content,
//! packed; a *layer* is a file of blocks and an index of them; a *page map* says which pages of
//! the guest have which content. All of them are written once and never changed.
//!
//! # `{layer}.blocks`
//!
//! The stored bytes of the blocks, one after the other, without gaps.
//!
//! # `{layer}.index`
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `wrennidx` |
//! | 4 | version, 1 |
//! | 4 | number of blocks, at least 1 |
//! | 40 each | the blocks, in the order of the `.blocks` file |
//!
//! A block: digest of its uncompressed pages (32), stored bytes (4), pages (1, from 1 to 16), codec (1: 0 raw, 1
//! LZ4 block format without a length), zeroes (2). A raw block stores `pages × 4096` bytes, an
//! LZ4 block fewer. A block's offset is the sum of what is stored before it. The layer's id is
//! BLAKE3 of these bytes in key-derivation mode under `wrenn 2026 layer index v1`; a block's
//! digest the same under `wrenn 2026 snapshot block v1`.
//!
//! # `memory.map`
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `wrennmap` |
//! | 4 | version, 1 |
//! | 4 | number of layers, at most 65535 |
//! | 8 | guest memory in bytes, a multiple of 4096 |
//! | 4 | number of runs |
//! | 4 | zeroes |
//! | 32 each | ids of the layers, no two the same |
//! | 16 each | runs, sorted by page, none overlapping |
//!
//! A run: first guest page (8), block (4), layer as an index into the list (2), page within the
//! block (1), pages (1). A run lies within its block. Pages in no run are zero.
//!
//! # `working-set`
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `wrennwks` |
//! | 4 | version, 1 |
//! | 4 | restores that were observed |
//! | 8 | guest memory in bytes |
//! | 4 | number of windows |
//! | 5 each | window of 64 KiB (4), score from 1 to 7 (1), sorted by window |
//! | 32 | BLAKE3 of everything before, key derivation under `wrenn 2026 working set v1` |
//!
//! # `manifest.json`
//!
//! See [`crate::Manifest`]. The files it names are digested by [`crate::digest_sparse`].

use crate::LayerId;

/// A page of guest memory in bytes: the smallest thing that is stored, and what x86-64 faults on.
pub const PAGE_BYTES: usize = 4096;

/// Most pages of a block.
pub const BLOCK_PAGES: usize = 16;

/// Most uncompressed bytes of a block; also the size of the guest windows that memory is filled
/// and observed by.
pub const BLOCK_BYTES: usize = 64 << 10;

/// A map that names more layers is compacted. Every layer is an open file of the page server.
pub const LAYERS_MAX: usize = 8;

/// [`PAGE_BYTES`] where file offsets and lengths are computed.
pub(crate) const PAGE_BYTES_U64: u64 = 4096;

/// Why bytes are not what this format writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// They don't begin as they should.
    #[error("this is no {what}: its first bytes are others")]
    Magic {
        /// What was to be read.
        what: &'static str,
    },
    /// Written by a version of the software that this one doesn't know.
    #[error("{what} has version {found}, this program reads {expected}")]
    Version {
        /// What was to be read.
        what: &'static str,
        /// The version found.
        found: u32,
        /// The version understood.
        expected: u32,
    },
    /// Shorter or longer than its own counts say.
    #[error("{what} has {found} bytes, by its counts it has {expected}")]
    Length {
        /// What was to be read.
        what: &'static str,
        /// Bytes by its counts.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A layer's index under a name that its content doesn't have.
    #[error("the index of layer {expected} has the content of {found}")]
    Identity {
        /// The layer asked for.
        expected: LayerId,
        /// What the bytes hash to.
        found: LayerId,
    },
    /// The checksum at the end is another.
    #[error("{what} is damaged: its checksum is another")]
    Checksum {
        /// What was to be read.
        what: &'static str,
    },
    /// A value that is not allowed.
    #[error("{what}, item {item}: {field} is {found}, which is {problem}")]
    Value {
        /// What was to be read.
        what: &'static str,
        /// Which of its items, from 0; 0 for the head.
        item: usize,
        /// Which value.
        field: &'static str,
        /// The value.
        found: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Reads a file's head and items, knowing what to call it in an error.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    what: &'static str,
    total: usize,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Checks magic and version.
    pub(crate) fn begin(
        what: &'static str,
        magic: &[u8; 8],
        version: u32,
        bytes: &'a [u8],
    ) -> Result<Self, FormatError> {
        let Some(rest) = bytes.strip_prefix(magic) else {
            return Err(FormatError::Magic { what });
        };
        let mut reader = Self { what, total: bytes.len(), rest };
        let found = reader.u32()?;
        if found != version {
            return Err(FormatError::Version { what, found, expected: version });
        }
        Ok(reader)
    }

    /// The next `N` bytes.
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let Some((first, rest)) = self.rest.split_first_chunk() else {
            let done = self.total - self.rest.len();
            return Err(self.length((done + N) as u64));
        };
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        self.take().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        self.take().map(u64::from_le_bytes)
    }

    /// Before anything is allocated for it: exactly `bytes` are left.
    pub(crate) fn expect_left(&self, bytes: u64) -> Result<(), FormatError> {
        if self.rest.len() as u64 == bytes {
            return Ok(());
        }
        let done = self.total - self.rest.len();
        Err(self.length((done as u64).saturating_add(bytes)))
    }

    /// The error for a value that is not allowed.
    pub(crate) fn value(
        &self,
        item: usize,
        field: &'static str,
        found: impl Into<u64>,
        problem: &'static str,
    ) -> FormatError {
        FormatError::Value { what: self.what, item, field, found: found.into(), problem }
    }

    fn length(&self, expected: u64) -> FormatError {
        FormatError::Length { what: self.what, expected, found: self.total as u64 }
    }
}
