//! Base memory as a page server has it: a memfd, here of a pattern that can be checked.

use std::{
    ffi::CStr,
    fs::File,
    io::Write as _,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
    sys::memfd::{MFdFlags, memfd_create},
    unistd::{Whence, lseek},
};

/// Size of guest memory.
pub(crate) const MEMORY_BYTES: u64 = 64 << 20;

/// Base memory: a memfd that holds the pattern.
pub(crate) struct Base {
    pub(crate) writable: File,
    pub(crate) read_only: File,
}

impl Base {
    pub(crate) fn new() -> Self {
        let mut bytes = vec![0; usize::try_from(MEMORY_BYTES).unwrap()];
        for (index, word) in (0..).zip(bytes.as_chunks_mut().0) {
            *word = pattern(index);
        }
        let mut writable = memory_file(c"base");
        writable.write_all(&bytes).unwrap();
        let read_only = File::open(format!("/proc/self/fd/{}", writable.as_raw_fd())).unwrap();
        Self { writable, read_only }
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(MEMORY_BYTES).unwrap()];
        self.read_only.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    pub(crate) fn punch(&self, at: i64) {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.writable, flags, at, 4096).unwrap();
    }

    pub(crate) fn is_hole(&self, at: i64) -> bool {
        match lseek(&self.read_only, at, Whence::SeekHole) {
            Ok(found) => found == at,
            Err(errno) => errno == Errno::ENXIO,
        }
    }
}

/// An empty file in memory, of guest memory's size.
pub(crate) fn memory_file(name: &CStr) -> File {
    let file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(MEMORY_BYTES).unwrap();
    file
}

/// Eight bytes of guest memory: word number `index`.
pub(crate) fn pattern(index: u64) -> [u8; 8] {
    (index.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1).to_le_bytes()
}
