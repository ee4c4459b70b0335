//! The memfd that base memory is: how it is made, taken over, handed out, and filled by pages.
//!
//! # Invariants
//!
//! - The pager's own mapping is never read or written through: it exists for `UFFDIO_COPY`.
//! - Others get the memfd only opened for reading; its mode keeps them from reopening it.
//! - It can't be shrunk or grown (sealed), so no clone can be hit by `SIGBUS`.
//! - A page exists only whole. `UFFDIO_COPY` and `UFFDIO_ZEROPAGE` on a shared mapping fill a page
//!   before it is put into the file, and leave a page alone that is there. (`pwrite` would not do:
//!   where its source page has to be faulted in, a zeroed page is visible in between. A store
//!   through a mapping never does.)
//!
//! With 2 MiB pages it is made of the host's reserved huge pages; a page is then 512 of the
//! guest's.

use std::{
    fs::{File, Permissions},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::Path,
};

use pool_model::SnapshotId;
use rustix::{
    fs::{MemfdFlags, SealFlags, SeekFrom},
    io::Errno,
};

use crate::{
    error::{BaseError, step},
    limits::HugePages,
    process::link_of,
    sys::{Copied, DEVICE, Mapping, PAGE_BYTES, Uffd},
};

/// Bytes of a huge page, the only size that is used.
pub(crate) const HUGE_BYTES: usize = 2 << 20;

/// Attempts of one copy while the address space changes under it. Never seen above one.
const COPY_ATTEMPTS: u32 = 1000;

/// Only the pager may open it again; the VMM's user may not.
const MODE: u32 = 0o400;

/// Which file a descriptor is of: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity(u64, u64);

impl Identity {
    pub(crate) fn of(fd: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(fd)?;
        Ok(Self(stat.st_dev, stat.st_ino))
    }
}

/// Base memory without knowing what belongs into it.
#[derive(Debug)]
pub(crate) struct Memory {
    memfd: File,
    identity: Identity,
    uffd: Uffd,
    map: Mapping,
    huge: bool,
}

impl Memory {
    /// Makes empty memory of `bytes` for `snapshot`.
    pub(crate) fn create(
        snapshot: SnapshotId,
        bytes: u64,
        pages: HugePages,
    ) -> Result<Self, BaseError> {
        let huge = pages == HugePages::TwoMib;
        let kind =
            if huge { MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB } else { MemfdFlags::empty() };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | kind;
        let memfd =
            rustix::fs::memfd_create(name(snapshot), flags).map_err(step("make a memfd"))?;
        let memfd = File::from(memfd);
        let unit = if huge { HUGE_BYTES } else { PAGE_BYTES };
        if !bytes.is_multiple_of(unit as u64) {
            return Err(BaseError::Pages { bytes, page: unit });
        }
        memfd.set_len(bytes).map_err(step("size the memfd"))?;
        memfd.set_permissions(Permissions::from_mode(MODE)).map_err(step("protect the memfd"))?;
        rustix::fs::fcntl_add_seals(&memfd, seals()).map_err(step("seal the memfd"))?;
        Self::new(memfd, bytes, huge)
    }

    /// Takes over what a pager before us made and a VMM holds open as `held`.
    ///
    /// The VMM isn't trusted: owner, mode, name and seals show that a pager made it for this
    /// snapshot. A process without privileges can't make a file with root as its owner.
    pub(crate) fn recover(snapshot: SnapshotId, held: &OwnedFd) -> Result<Self, BaseError> {
        let not_ours = |reason: String| BaseError::NotOurs { snapshot, reason };
        let link = link_of(held.as_fd()).map_err(step("identify the memfd"))?;
        if link != format!("/memfd:{} (deleted)", name(snapshot)) {
            return Err(not_ours(format!("it is {link}")));
        }
        let memfd = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/self/fd/{}", held.as_raw_fd()))
            .map_err(step("reopen the memfd"))?;
        let meta = memfd.metadata().map_err(step("stat the memfd"))?;
        let (owner, mode) = (meta.uid(), meta.mode() & 0o7777);
        if owner != rustix::process::geteuid().as_raw() || mode != MODE {
            return Err(not_ours(format!("owner {owner}, mode {mode:o}")));
        }
        let found = rustix::fs::fcntl_get_seals(&memfd).map_err(step("read the seals"))?;
        if !found.contains(seals()) {
            return Err(not_ours("it isn't sealed".to_owned()));
        }
        // The block size of a file in huge pages is the page's.
        Self::new(memfd, meta.len(), meta.blksize() == HUGE_BYTES as u64)
    }

    fn new(memfd: File, bytes: u64, huge: bool) -> Result<Self, BaseError> {
        let pages = usize::try_from(bytes).ok().filter(|len| len.is_multiple_of(PAGE_BYTES));
        let len = pages.filter(|len| *len > 0);
        let len = len.ok_or(BaseError::Pages { bytes, page: PAGE_BYTES })?;
        let identity = Identity::of(&memfd).map_err(step("stat the memfd"))?;
        let map = Mapping::shared(memfd.as_fd(), len).map_err(|source| match source.kind() {
            // Mapping reserves all huge pages at once.
            io::ErrorKind::OutOfMemory if huge => {
                let needed = len / HUGE_BYTES;
                BaseError::HugePages { needed, free: free_huge_pages(), source }
            }
            _ => step("map the memfd")(source),
        })?;
        let uffd = Uffd::open(Path::new(DEVICE)).map_err(step("make a userfaultfd"))?;
        uffd.register(&map).map_err(step("register the mapping"))?;
        Ok(Self { memfd, identity, uffd, map, huge })
    }

    /// Its length in bytes.
    pub(crate) const fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Whether its pages are of 2 MiB.
    pub(crate) const fn is_huge(&self) -> bool {
        self.huge
    }

    /// Tells two base memories of the same snapshot apart.
    pub(crate) const fn identity(&self) -> Identity {
        self.identity
    }

    /// The memfd, opened for reading only, for a VMM to map.
    pub(crate) fn for_reading(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.memfd.as_raw_fd()))
    }

    /// Bytes in memory or swap.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.memfd.metadata().map_or(0, |meta| meta.blocks() * 512)
    }

    /// Puts in those of these guest pages that aren't there, `page` being the first. Allocates
    /// nothing.
    pub(crate) fn install(&self, page: u32, content: &[u8]) -> io::Result<()> {
        let step = if self.huge { HUGE_BYTES } else { PAGE_BYTES };
        self.install_by(page, content.len(), step, |dst, done| {
            self.uffd.copy(dst, &content[done..])
        })
    }

    /// As [`Memory::install`], zeroes. Small pages only.
    pub(crate) fn install_zeroes(&self, page: u32, pages: usize) -> io::Result<()> {
        let len = pages * PAGE_BYTES;
        self.install_by(page, len, PAGE_BYTES, |dst, done| self.uffd.zero(dst, len - done))
    }

    fn install_by(
        &self,
        page: u32,
        len: usize,
        step: usize,
        put: impl Fn(u64, usize) -> io::Result<Copied>,
    ) -> io::Result<()> {
        let start = self.map.addr() + u64::from(page) * PAGE_BYTES as u64;
        let (mut done, mut attempts) = (0, 0);
        while done < len {
            match put(start + done as u64, done)? {
                Copied::Bytes(bytes) => done += bytes,
                Copied::Present => done += step,
                Copied::Retry if attempts < COPY_ATTEMPTS => attempts += 1,
                Copied::Retry => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        Ok(())
    }

    /// Which guest pages exist; a page that exists is complete. Of huge pages none is known: their
    /// file system can't say.
    pub(crate) fn present_pages(&self) -> io::Result<Vec<bool>> {
        let mut present = vec![false; self.map.len() / PAGE_BYTES];
        if self.huge {
            return Ok(present);
        }
        let page_of = |at: u64| usize::try_from(at / PAGE_BYTES as u64).unwrap_or(usize::MAX);
        let mut at = 0;
        while at < self.bytes() {
            let start = match rustix::fs::seek(&self.memfd, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            let end = rustix::fs::seek(&self.memfd, SeekFrom::Hole(start))?;
            let last = present.len();
            present[page_of(start).min(last)..page_of(end).min(last)].fill(true);
            at = end;
        }
        Ok(present)
    }
}

/// The memfd's name, which a VMM can't choose for a file that root owns.
fn name(snapshot: SnapshotId) -> String {
    format!("wrenn-base-{}", snapshot.label())
}

fn seals() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
}

/// Huge pages that nobody uses or has reserved, for an error's text.
fn free_huge_pages() -> usize {
    let number = |name: &str| {
        let path = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}");
        let text = std::fs::read_to_string(path).ok()?;
        text.trim().parse::<usize>().ok()
    };
    let free = number("free_hugepages").unwrap_or(0);
    free.saturating_sub(number("resv_hugepages").unwrap_or(0))
}
