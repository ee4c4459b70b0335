//! Base memory: one memfd per snapshot, filled block by block.
//!
//! ```text
//! Absent ─ first fault ─► Filling ─► Present
//!    ▲                       │ error
//!    └───────────────────────┘
//! ```
//!
//! The state only saves work: that a page is never seen half-filled is the kernel's doing, since
//! `UFFDIO_COPY` on a shared mapping of shmem fills a page before it is put into the file, and
//! leaves a page alone that is there. (`pwrite` would not do: where its source page has to be
//! faulted in, a zeroed page is visible in between. A store through a mapping never does.)
//!
//! # Invariants
//!
//! - The pager's own mapping is never read or written through: it exists for `UFFDIO_COPY`.
//! - Others get the memfd only opened for reading; its mode keeps them from reopening it.
//! - It can't be shrunk or grown (sealed), so no clone can be hit by `SIGBUS`.

use std::{
    fs::{File, Permissions},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::Path,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use pool_model::SnapshotId;
use rustix::{
    fs::{MemfdFlags, SealFlags, SeekFrom},
    io::Errno,
};

use crate::{
    process::link_of,
    sys::{Copied, DEVICE, Mapping, PAGE_BYTES, Uffd},
};

const ABSENT: u8 = 0;
const FILLING: u8 = 1;
const PRESENT: u8 = 2;

/// How long a fault waits for another one that is filling the same block before it does it too.
const FILLING_WAIT: Duration = Duration::from_secs(5);

/// Attempts of one copy while the address space changes under it. Never seen above one.
const COPY_ATTEMPTS: u32 = 1000;

/// Only the pager may open it again; the VMM's user may not.
const MODE: u32 = 0o400;

/// Why base memory can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BaseError {
    #[error("the memory file {path} has {found} bytes, expected {expected}")]
    Length { path: String, expected: u64, found: u64 },
    #[error("cannot open the memory file {path}")]
    Open {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("descriptor is not the base memory of {snapshot}: {reason}")]
    NotOurs { snapshot: SnapshotId, reason: String },
    #[error("{bytes} bytes are no whole number of pages")]
    Pages { bytes: u64 },
    #[error("cannot {step} for base memory")]
    Io {
        step: &'static str,
        #[source]
        source: io::Error,
    },
}

fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> BaseError {
    move |source| BaseError::Io { step, source: source.into() }
}

/// Which file a descriptor is of: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity(u64, u64);

impl Identity {
    pub(crate) fn of(fd: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(fd)?;
        Ok(Self(stat.st_dev, stat.st_ino))
    }
}

/// The memory of one snapshot on this host.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) snapshot: SnapshotId,
    /// Faults of all clones.
    pub(crate) faults: AtomicU64,
    memfd: File,
    identity: Identity,
    bytes: u64,
    source: File,
    uffd: Uffd,
    map: Mapping,
    block_bytes: usize,
    blocks: Box<[AtomicU8]>,
    turn: Mutex<()>,
    filled: Condvar,
}

impl Base {
    /// Makes empty base memory for `snapshot`, to be filled from `path`.
    pub(crate) fn create(
        snapshot: SnapshotId,
        path: &Path,
        bytes: u64,
        block_bytes: usize,
    ) -> Result<Self, BaseError> {
        let source = open_source(path, bytes)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memfd =
            rustix::fs::memfd_create(name(snapshot), flags).map_err(step("make a memfd"))?;
        let memfd = File::from(memfd);
        memfd.set_len(bytes).map_err(step("size the memfd"))?;
        memfd.set_permissions(Permissions::from_mode(MODE)).map_err(step("protect the memfd"))?;
        rustix::fs::fcntl_add_seals(&memfd, seals()).map_err(step("seal the memfd"))?;
        Self::new(snapshot, memfd, source, bytes, block_bytes)
    }

    /// Takes over what a pager before us made and a VMM holds open as `held`.
    ///
    /// The VMM isn't trusted: owner, mode, name and seals show that a pager made it for this
    /// snapshot. A process without privileges can't make a file with root as its owner.
    pub(crate) fn recover(
        snapshot: SnapshotId,
        held: &OwnedFd,
        path: &Path,
        block_bytes: usize,
    ) -> Result<Self, BaseError> {
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
        let source = open_source(path, meta.len())?;
        let base = Self::new(snapshot, memfd, source, meta.len(), block_bytes)?;
        base.find_present().map_err(step("find the resident blocks"))?;
        Ok(base)
    }

    fn new(
        snapshot: SnapshotId,
        memfd: File,
        source: File,
        bytes: u64,
        block_bytes: usize,
    ) -> Result<Self, BaseError> {
        let pages = usize::try_from(bytes).ok().filter(|len| len.is_multiple_of(PAGE_BYTES));
        let len = pages.filter(|len| *len > 0).ok_or(BaseError::Pages { bytes })?;
        let identity = Identity::of(&memfd).map_err(step("stat the memfd"))?;
        let map = Mapping::shared(memfd.as_fd(), len).map_err(step("map the memfd"))?;
        let uffd = Uffd::open(Path::new(DEVICE)).map_err(step("make a userfaultfd"))?;
        uffd.register(&map).map_err(step("register the mapping"))?;
        let blocks = (0..len.div_ceil(block_bytes)).map(|_| AtomicU8::new(ABSENT)).collect();
        Ok(Self {
            snapshot,
            faults: AtomicU64::new(0),
            memfd,
            identity,
            bytes,
            source,
            uffd,
            map,
            block_bytes,
            blocks,
            turn: Mutex::new(()),
            filled: Condvar::new(),
        })
    }

    /// Guest memory in bytes.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes per block; the last block may be shorter.
    pub(crate) const fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Tells two base memories of the same snapshot apart.
    pub(crate) const fn identity(&self) -> Identity {
        self.identity
    }

    /// The snapshot's memory file.
    pub(crate) const fn source(&self) -> &File {
        &self.source
    }

    /// The memfd, opened for reading only, for a VMM to map.
    pub(crate) fn for_reading(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.memfd.as_raw_fd()))
    }

    /// Bytes in memory or swap.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.memfd.metadata().map_or(0, |meta| meta.blocks() * 512)
    }

    /// Blocks that are wholly there.
    pub(crate) fn populated(&self) -> u64 {
        self.blocks.iter().filter(|block| block.load(Ordering::Relaxed) == PRESENT).count() as u64
    }

    /// Makes sure that `block` is there. Doesn't allocate.
    ///
    /// `staging` has [`Base::block_bytes`] bytes.
    pub(crate) fn fill(&self, block: usize, staging: &mut [u8]) -> io::Result<()> {
        let state = &self.blocks[block];
        match state.compare_exchange(ABSENT, FILLING, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                let outcome = self.populate(block, staging);
                let next = if outcome.is_ok() { PRESENT } else { ABSENT };
                state.store(next, Ordering::Release);
                // Under the lock, so that it can't slip in between a waiter's look and its wait.
                drop(self.turn.lock().unwrap_or_else(PoisonError::into_inner));
                self.filled.notify_all();
                outcome
            }
            Err(PRESENT) => Ok(()),
            Err(_) => {
                self.wait_while_filling(state);
                match state.load(Ordering::Acquire) {
                    PRESENT => Ok(()),
                    // It failed or takes too long: doing it (again) is always right.
                    _ => self.populate(block, staging),
                }
            }
        }
    }

    fn wait_while_filling(&self, state: &AtomicU8) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let filling = |_: &mut ()| state.load(Ordering::Acquire) == FILLING;
        drop(self.filled.wait_timeout_while(turn, FILLING_WAIT, filling));
    }

    /// Reads `block` from the snapshot and puts in those of its pages that aren't there.
    fn populate(&self, block: usize, staging: &mut [u8]) -> io::Result<()> {
        let start = block * self.block_bytes;
        let len = self.block_bytes.min(self.map.len() - start);
        let staging = &mut staging[..len];
        self.source.read_exact_at(staging, start as u64)?;
        let (mut done, mut attempts) = (0, 0);
        while done < len {
            let dst = self.map.addr() + (start + done) as u64;
            match self.uffd.copy(dst, &staging[done..])? {
                Copied::Bytes(bytes) => done += bytes,
                Copied::Present => done += PAGE_BYTES,
                Copied::Retry if attempts < COPY_ATTEMPTS => attempts += 1,
                Copied::Retry => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        Ok(())
    }

    /// Marks the blocks of which every page exists; a page that exists is complete.
    fn find_present(&self) -> io::Result<()> {
        let mut at = 0;
        while at < self.bytes {
            let start = match rustix::fs::seek(&self.memfd, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            let end = rustix::fs::seek(&self.memfd, SeekFrom::Hole(start))?;
            let block = self.block_bytes as u64;
            for index in start.div_ceil(block)..self.blocks.len() as u64 {
                if ((index + 1) * block).min(self.bytes) > end {
                    break;
                }
                let index = usize::try_from(index).expect("an index into the blocks");
                self.blocks[index].store(PRESENT, Ordering::Release);
            }
            at = end;
        }
        Ok(())
    }
}

/// The memfd's name, which a VMM can't choose for a file that root owns.
fn name(snapshot: SnapshotId) -> String {
    format!("wrenn-base-{}", snapshot.label())
}

fn seals() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
}

fn open_source(path: &Path, expected: u64) -> Result<File, BaseError> {
    let failed = |source| BaseError::Open { path: path.display().to_string(), source };
    let source = File::open(path).map_err(failed)?;
    let found = source.metadata().map_err(failed)?.len();
    if found == expected {
        Ok(source)
    } else {
        Err(BaseError::Length { path: path.display().to_string(), expected, found })
    }
}
