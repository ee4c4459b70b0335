//! Which memory of this process is a file: mappings that are only touched by raw copies.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

/// A mapping of a whole file, unmapped when dropped. Small pages only, not in core dumps.
#[derive(Debug)]
pub struct Mapping {
    addr: usize,
    len: usize,
}

impl Mapping {
    /// Maps so that what is written here is written to the file.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn shared(file: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::new(file, len, libc::MAP_SHARED)
    }

    /// Maps so that what is written here stays here.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn private(file: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::new(file, len, libc::MAP_PRIVATE | libc::MAP_NORESERVE)
    }

    fn new(file: BorrowedFd<'_>, len: usize, flags: i32) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let addr = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, file.as_raw_fd(), 0) };
        if addr == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = Self { addr: addr.addr(), len };
        mapping.advise(libc::MADV_DONTDUMP)?;
        match mapping.advise(libc::MADV_NOHUGEPAGE) {
            // A kernel without huge pages has none to avoid.
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(error),
            _ => Ok(mapping),
        }
    }

    fn advise(&self, advice: i32) -> io::Result<()> {
        self.advise_range(0, self.len, advice)
    }

    fn advise_range(&self, offset: usize, len: usize, advice: i32) -> io::Result<()> {
        self.check(offset, len);
        // SAFETY: the range is in this mapping (checked), which nothing borrows: advice that
        // changes its content changes it as another process's write would.
        let rc = unsafe { libc::madvise(self.pointer(offset).cast(), len, advice) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Gives the pages of a range back, as a guest's balloon has its VMM do. Waits until whoever
    /// serves the userfaultfd has read the event.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    ///
    /// # Panics
    ///
    /// If the range isn't inside.
    pub fn discard(&self, offset: usize, len: usize) -> io::Result<()> {
        self.advise_range(offset, len, libc::MADV_DONTNEED)
    }

    /// Its first address.
    #[must_use]
    pub const fn addr(&self) -> u64 {
        self.addr as u64
    }

    /// Its length in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "the kernel makes no empty mappings")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Copies out what is there; waits for a page that is missing.
    ///
    /// # Panics
    ///
    /// If the range isn't inside.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        self.check(offset, out.len());
        // SAFETY: the source lies in this mapping (checked), which lives as long as `self` and
        // is read through a raw pointer only; `out` is ours, so they can't overlap.
        unsafe { ptr::copy_nonoverlapping(self.pointer(offset), out.as_mut_ptr(), out.len()) };
    }

    /// Copies `bytes` in; waits for a page that is missing.
    ///
    /// # Panics
    ///
    /// If the range isn't inside.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        // SAFETY: the target lies in this mapping (checked), which is writable, lives as long as
        // `self` and is never borrowed as a slice; `bytes` lies elsewhere.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.pointer(offset), bytes.len()) };
    }

    fn check(&self, offset: usize, len: usize) {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(inside, "{len} bytes at {offset} are outside a mapping of {}", self.len);
    }

    const fn pointer(&self, offset: usize) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.addr + offset)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, nothing else unmaps it, and nothing borrows it.
        unsafe { libc::munmap(self.pointer(0).cast(), self.len) };
    }
}
