//! Which pages in a range of another process's addresses are that process's own.
//!
//! A page of a private file mapping is the process's own once it was written: it is anonymous then,
//! in memory or swapped out. `PAGEMAP_SCAN` (Linux 6.7) lets the kernel look for them and answers
//! with ranges; without it one 8-byte entry per page is read. Neither touches a page.
//!
//! # Invariants
//!
//! - The only pointers handed to the kernel are to live locals and to a vector with that capacity.
//! - Ranges come in ascending order, do not overlap, and lie inside the range asked for.
#![allow(unsafe_code)]

use std::{
    fs::File,
    io,
    ops::Range,
    os::{fd::AsRawFd, unix::fs::FileExt},
};

/// The kernel's page size on `x86_64`, bytes.
const PAGE: u64 = 4096;

/// `PAGEMAP_SCAN` of linux/fs.h: `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::Ioctl = 0xC060_6610;
/// Categories of a page (linux/fs.h).
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
/// Ranges asked for at once: as many as the kernel collects before it copies them out. (Asked for
/// more, Linux up to at least 6.18 leaves `walk_end` at an older stop when the walk then reaches
/// its end, and whoever goes on from there sees ranges again.)
const REGIONS: usize = 512;

/// Bits of a pagemap entry (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_OR_SHARED: u64 = 1 << 61;
/// Size of a pagemap entry, bytes.
const ENTRY: usize = size_of::<u64>();
/// Entries read at once: 256 KiB of them, for 128 MiB of memory.
const ENTRIES: usize = 32 << 10;

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

const _: () = assert!(size_of::<ScanArg>() == 96, "must match the kernel's struct");
const _: () = assert!(size_of::<Region>() == 24, "must match the kernel's struct");

/// How own pages are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// The kernel looks for them; if it can't, the entries are read.
    Scan,
    /// One entry per page is read.
    Entries,
}

/// Finds own pages, some ranges at a time.
#[derive(Debug)]
pub(crate) struct OwnPages {
    pagemap: File,
    at: u64,
    end: u64,
    method: Method,
    regions: Vec<Region>,
    entries: Vec<u8>,
}

impl OwnPages {
    /// Looks through `addresses`, whole pages, of the process whose `/proc/<pid>/pagemap` this is.
    pub(crate) fn new(pagemap: File, addresses: Range<u64>, method: Method) -> Self {
        let Range { start, end } = addresses;
        Self { pagemap, at: start, end, method, regions: Vec::new(), entries: Vec::new() }
    }

    /// How it looks; [`Method::Scan`] may have become [`Method::Entries`] at the first batch.
    #[cfg_attr(not(test), allow(dead_code, reason = "for tests and the example that compares"))]
    pub(crate) fn method(&self) -> Method {
        self.method
    }

    /// Replaces `found` by the next address ranges of own pages. `false` when there are no more.
    ///
    /// A batch may be empty before the end is reached, and a range may go on in the next one.
    pub(crate) fn next_batch(&mut self, found: &mut Vec<Range<u64>>) -> io::Result<bool> {
        found.clear();
        if self.at >= self.end {
            return Ok(false);
        }
        if self.method == Method::Scan {
            match self.scan(found) {
                Err(error) if is_unknown(&error) => self.method = Method::Entries,
                scanned => return scanned.map(|()| true),
            }
        }
        self.read_entries(found).map(|()| true)
    }

    fn scan(&mut self, found: &mut Vec<Range<u64>>) -> io::Result<()> {
        self.regions.clear();
        self.regions.reserve(REGIONS);
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            flags: 0,
            start: self.at,
            end: self.end,
            walk_end: 0,
            vec: self.regions.as_mut_ptr().expose_provenance() as u64,
            vec_len: REGIONS as u64,
            max_pages: 0,
            category_inverted: PAGE_IS_FILE,
            category_mask: PAGE_IS_FILE,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            // Which of the categories it was is of no interest, and pages that differ only in
            // it make one range.
            return_mask: 0,
        };
        // SAFETY: `arg` is live, not shared, and has the kernel's layout (asserted). It names
        // room for `REGIONS` regions, which the vector has reserved and nobody else looks at.
        let filled = unsafe { libc::ioctl(self.pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
        let filled = usize::try_from(filled).map_err(|_| io::Error::last_os_error())?;
        if filled > REGIONS || arg.walk_end <= self.at {
            return Err(io::Error::other("the page scan answered with nonsense"));
        }
        // SAFETY: the kernel has just written `filled` regions, which is not beyond the room.
        unsafe { self.regions.set_len(filled) };
        found.extend(self.regions.iter().map(|region| region.start..region.end));
        self.at = self.regions.last().map_or(0, |last| last.end).max(arg.walk_end);
        Ok(())
    }

    fn read_entries(&mut self, found: &mut Vec<Range<u64>>) -> io::Result<()> {
        let left = usize::try_from((self.end - self.at) / PAGE).unwrap_or(ENTRIES);
        self.entries.resize(left.min(ENTRIES) * ENTRY, 0);
        self.pagemap.read_exact_at(&mut self.entries, self.at / PAGE * ENTRY as u64)?;
        for entry in self.entries.chunks_exact(ENTRY) {
            let page = self.at..self.at + PAGE;
            self.at = page.end;
            if !is_own(entry.try_into().map_or(0, u64::from_ne_bytes)) {
                continue;
            }
            match found.last_mut() {
                Some(last) if last.end == page.start => last.end = page.end,
                _ => found.push(page),
            }
        }
        Ok(())
    }
}

/// Whether the page belongs to the process alone, going by its pagemap entry.
fn is_own(entry: u64) -> bool {
    entry & (PRESENT | SWAPPED) != 0 && entry & FILE_OR_SHARED == 0
}

/// Whether the kernel does not know the request, or not what was asked with it.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

    use super::*;
    use std::{os::fd::AsFd, ptr::NonNull};

    /// A private mapping of a whole file in this process, unmapped on drop.
    pub(crate) struct Mapping(NonNull<u8>, usize);

    impl Mapping {
        pub(crate) fn of(file: &impl AsFd) -> Self {
            use nix::sys::{mman, stat};
            let len = usize::try_from(stat::fstat(file).unwrap().st_size).unwrap();
            let access = mman::ProtFlags::PROT_READ | mman::ProtFlags::PROT_WRITE;
            let private = mman::MapFlags::MAP_PRIVATE;
            // SAFETY: a new mapping at an address that the kernel picks replaces no other.
            let at = unsafe { mman::mmap(None, len.try_into().unwrap(), access, private, file, 0) };
            Self(at.unwrap().cast(), len)
        }

        pub(crate) fn addresses(&self) -> Range<u64> {
            let start = self.0.as_ptr().expose_provenance() as u64;
            start..start + self.1 as u64
        }

        /// Writes `byte` all over page `page`.
        pub(crate) fn fill(&self, page: usize, byte: u8) {
            let at = self.page(page);
            // SAFETY: a page of the mapping, which is writable and of which no reference exists.
            unsafe { at.write_bytes(byte, 4096) };
        }

        /// Reads from page `page`, which maps it.
        pub(crate) fn touch(&self, page: usize) -> u8 {
            let at = self.page(page);
            // SAFETY: a page of the mapping, which is readable.
            unsafe { at.read_volatile() }
        }

        fn page(&self, page: usize) -> *mut u8 {
            assert!(page * 4096 < self.1);
            // SAFETY: in bounds of the mapping.
            unsafe { self.0.as_ptr().add(page * 4096) }
        }

        /// Asks the kernel to swap page `page` out, and says whether it did.
        pub(crate) fn swap_out(&self, page: usize) -> bool {
            let at = self.page(page);
            // SAFETY: a page of the mapping; swapping it out does not change its content.
            unsafe { libc::madvise(at.cast(), 4096, libc::MADV_PAGEOUT) };
            let pagemap = File::open("/proc/self/pagemap").unwrap();
            let mut entry = [0; ENTRY];
            let number = self.addresses().start / PAGE + page as u64;
            pagemap.read_exact_at(&mut entry, number * ENTRY as u64).unwrap();
            u64::from_ne_bytes(entry) & SWAPPED != 0
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: exactly the range that `of` mapped; no reference to it exists.
            unsafe { libc::munmap(self.0.as_ptr().cast(), self.1) };
        }
    }

    fn found(mapping: &Mapping, method: Method) -> Vec<u64> {
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let Range { start, end } = mapping.addresses();
        let mut own = OwnPages::new(pagemap, start..end, method);
        let (mut pages, mut batch) = (Vec::new(), Vec::new());
        while own.next_batch(&mut batch).unwrap() {
            for range in &batch {
                assert!(range.start >= start && range.end <= end && range.start < range.end);
                pages.extend((range.start..range.end).step_by(4096).map(|at| (at - start) / PAGE));
            }
        }
        println!("looked by {:?}", own.method());
        pages
    }

    #[test]
    fn only_written_pages_are_own_by_either_method() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192 * PAGE).unwrap();
        let mapping = Mapping::of(&file);
        // More single pages than five answers hold, both ends, and a run; some read only.
        let mut written: Vec<usize> = (0..5600).step_by(2).chain(6000..6100).collect();
        written.push(8191);
        for page in (1..5600).step_by(2).chain([8190]) {
            mapping.touch(page);
        }
        for &page in &written {
            mapping.fill(page, 7);
        }
        let expected: Vec<u64> = written.iter().map(|&page| page as u64).collect();
        assert!(found(&mapping, Method::Scan) == expected);
        assert!(found(&mapping, Method::Entries) == expected);
    }

    #[test]
    fn entries_say_what_is_own() {
        assert!(is_own(PRESENT) && is_own(SWAPPED));
        assert!(!is_own(PRESENT | FILE_OR_SHARED) && !is_own(SWAPPED | FILE_OR_SHARED));
        assert!(!is_own(0));
    }

    #[test]
    fn file_that_is_no_pagemap_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        let mut own = OwnPages::new(file, PAGE..3 * PAGE, Method::Scan);
        assert!(own.next_batch(&mut Vec::new()).is_err(), "neither way can read it");
        assert_eq!(own.method(), Method::Entries, "the request was unknown to the file");
    }
}
