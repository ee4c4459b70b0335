//! Which memory a process has touched, by its `/proc/{pid}/pagemap`.

use std::{collections::BTreeSet, fs::File, io, os::unix::fs::FileExt as _};

use pool_store::{BLOCK_PAGES, PAGE_BYTES};

/// Bytes of one page's entry. Source: the kernel's `Documentation/admin-guide/mm/pagemap.rst`.
const ENTRY_BYTES: usize = 8;

/// Bits 63 and 62: the page is in memory, or in swap.
const TOUCHED: u64 = 0b11 << 62;

/// Pages asked for at a time.
const CHUNK_PAGES: usize = 1024 * BLOCK_PAGES;

/// The 64 KiB windows from `addr` on of which the process has mapped at least a page, whatever kind
/// of page that is.
///
/// At a touch the kernel also maps up to 15 neighbours that exist, those of the window: so
/// windows are as exact as it gets.
///
/// # Errors
///
/// `NotFound` if there is no such process; `UnexpectedEof` if it ended meanwhile.
pub(crate) fn touched_windows(pid: i32, addr: u64, len: u64) -> io::Result<BTreeSet<u32>> {
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let outside = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let pages = usize::try_from(len).map_err(outside)? / PAGE_BYTES;
    let first = addr / PAGE_BYTES as u64;
    let mut touched = BTreeSet::new();
    let mut buffer = vec![0; CHUNK_PAGES.min(pages) * ENTRY_BYTES];
    for start in (0..pages).step_by(CHUNK_PAGES) {
        let count = CHUNK_PAGES.min(pages - start);
        let entries = &mut buffer[..count * ENTRY_BYTES];
        pagemap.read_exact_at(entries, (first + start as u64) * ENTRY_BYTES as u64)?;
        let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
        for (window, entries) in entries.chunks(BLOCK_PAGES).enumerate() {
            if entries.iter().any(|entry| u64::from_ne_bytes(*entry) & TOUCHED != 0) {
                let window = start / BLOCK_PAGES + window;
                touched.insert(u32::try_from(window).map_err(outside)?);
            }
        }
    }
    Ok(touched)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::sys::Mapping;

    #[test]
    fn only_touched_windows_are_found() {
        let memfd = rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let len = 4 << 20;
        rustix::fs::ftruncate(&memfd, len).unwrap();
        let mapping = Mapping::private(memfd.as_fd(), 4 << 20).unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        let touched = || touched_windows(pid, mapping.addr(), len).unwrap();
        assert_eq!(touched(), BTreeSet::new());
        mapping.write(5 * 65536 + 4096, &[1]);
        mapping.write(63 * 65536, &[1]);
        assert_eq!(touched(), BTreeSet::from([5, 63]));
        let fewer = touched_windows(pid, mapping.addr(), 6 * 65536 - 4096 * 15).unwrap();
        assert_eq!(fewer, BTreeSet::new(), "the touched page is beyond the range");
    }

    #[test]
    fn nobody_has_touched_nothing() {
        let gone = touched_windows(i32::MAX, 0, 4096).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }
}
