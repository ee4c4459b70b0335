//! The unsafe floor: userfaultfd and memory mappings behind safe functions.
//!
//! Everything here is either an `ioctl` on a userfaultfd whose argument struct has the kernel's
//! layout (asserted), or a mapping that is only ever touched through raw copies. The kernel
//! refuses ranges that aren't registered, so a wrong address is an error, not corruption.
//!
//! # Invariants
//!
//! - A [`Mapping`] is never lent out as a slice: other processes and the kernel change it.
//! - Nothing here allocates after the constructors.
//!
//! Public because the probe, the tests and the benchmarks are VMMs in miniature.
#![allow(unsafe_code)]

mod alloc;
mod mapping;

use std::{
    fs::File,
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
    ptr,
};

use rustix::io::{Errno, ReadWriteFlags};
use tokio::io::unix::AsyncFd;

pub use alloc::CountingAllocator;
pub use mapping::Mapping;

/// Bytes per page. Guests, base memory and snapshots are made of these.
pub const PAGE_BYTES: usize = 4096;

/// Most faults read in one turn. A VMM has at most one pending per thread.
pub const FAULTS_PER_READ: usize = 16;

/// Where the kernel gives out userfaultfds that serve kernel-mode faults too.
pub const DEVICE: &str = "/dev/userfaultfd";

const MESSAGE_BYTES: usize = 32;
const EVENT_PAGEFAULT: u8 = 0x12;
const API_VERSION: u64 = 0xAA;
const REGISTER_MODE_MISSING: u64 = 1;
const EVENT_REMOVE: u8 = 0x15;
const FEATURE_EVENT_REMOVE: u64 = 1 << 3;
const FEATURE_MISSING_HUGETLBFS: u64 = 1 << 4;
const FEATURE_MISSING_SHMEM: u64 = 1 << 5;

const IOC_NEW: libc::Ioctl = 0xAA00;
const IOC_API: libc::Ioctl = 0xC018_AA3F;
const IOC_REGISTER: libc::Ioctl = 0xC020_AA00;
const IOC_WAKE: libc::Ioctl = 0x8010_AA02;
const IOC_COPY: libc::Ioctl = 0xC028_AA03;
const IOC_ZEROPAGE: libc::Ioctl = 0xC020_AA04;

#[repr(C)]
struct ApiArg {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct RangeArg {
    start: u64,
    len: u64,
}

#[repr(C)]
struct RegisterArg {
    range: RangeArg,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct CopyArg {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

#[repr(C)]
struct ZeroArg {
    range: RangeArg,
    mode: u64,
    zeroed: i64,
}

const _: () = assert!(size_of::<ApiArg>() == 24, "must match the kernel's struct");
const _: () = assert!(size_of::<RangeArg>() == 16, "must match the kernel's struct");
const _: () = assert!(size_of::<RegisterArg>() == 32, "must match the kernel's struct");
const _: () = assert!(size_of::<CopyArg>() == 40, "must match the kernel's struct");
const _: () = assert!(size_of::<ZeroArg>() == 32, "must match the kernel's struct");

/// Puts `fd` under the eyes of the async runtime this is called in.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the `AsyncFd` owns the descriptor, and an `OwnedFd` in it can't be closed or
    // replaced through shared references; nobody here takes a mutable one out of an `AsyncFd`.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// This many bytes from the start are in place, at least one page.
    Bytes(usize),
    /// The first page was there already; it was not changed.
    Present,
    /// The address space is changing; try again.
    Retry,
}

/// One thing read from a userfaultfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A page is missing at this address.
    Fault(u64),
    /// The process gave these addresses back (`madvise`); it went on when this was read.
    Removed {
        /// The first address.
        start: u64,
        /// The first address behind.
        end: u64,
    },
    /// Anything else; its number.
    Other(u8),
}

/// A userfaultfd.
#[derive(Debug)]
pub struct Uffd(OwnedFd);

impl Uffd {
    /// Makes one for this process from [`DEVICE`]: non-blocking, kernel-mode faults included,
    /// for shared memory of either page size.
    ///
    /// # Errors
    ///
    /// What the kernel says; `NotFound` where it has no such device.
    pub fn open(device: &Path) -> io::Result<Self> {
        Self::open_with(device, FEATURE_MISSING_SHMEM | FEATURE_MISSING_HUGETLBFS)
    }

    /// As [`Uffd::open`], and whoever serves it is told what is discarded: what a VMM makes.
    /// Unmapping is not asked for: it would wait for a reader, also in a VMM that ends.
    ///
    /// # Errors
    ///
    /// As [`Uffd::open`].
    pub fn open_with_events(device: &Path) -> io::Result<Self> {
        let missing = FEATURE_MISSING_SHMEM | FEATURE_MISSING_HUGETLBFS;
        Self::open_with(device, missing | FEATURE_EVENT_REMOVE)
    }

    fn open_with(device: &Path, features: u64) -> io::Result<Self> {
        let device = File::options().read(true).write(true).open(device)?;
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the request takes its argument by value.
        let fd = unsafe { libc::ioctl(device.as_raw_fd(), IOC_NEW, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made `fd` for us and nobody else knows it.
        let uffd = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        let mut arg = ApiArg { api: API_VERSION, features, ioctls: 0 };
        uffd.ioctl(IOC_API, &mut arg)?;
        Ok(uffd)
    }

    /// Takes over another process's userfaultfd.
    #[must_use]
    pub const fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Asks for an event at the first touch of every page of `mapping` that isn't there.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn register(&self, mapping: &Mapping) -> io::Result<()> {
        let range = RangeArg { start: mapping.addr(), len: mapping.len() as u64 };
        let mut arg = RegisterArg { range, mode: REGISTER_MODE_MISSING, ioctls: 0 };
        self.ioctl(IOC_REGISTER, &mut arg)
    }

    /// Lets every thread that waits in this range try again.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn wake(&self, start: u64, len: u64) -> io::Result<()> {
        self.ioctl(IOC_WAKE, &mut RangeArg { start, len })
    }

    /// Puts `pages` at `dst`, each page at once with its whole content, and wakes who waits.
    ///
    /// # Errors
    ///
    /// What the kernel says, except for what [`Copied`] tells.
    pub fn copy(&self, dst: u64, pages: &[u8]) -> io::Result<Copied> {
        let (src, len) = (pages.as_ptr() as u64, pages.len() as u64);
        let mut arg = CopyArg { dst, src, len, mode: 0, copy: 0 };
        let outcome = self.ioctl(IOC_COPY, &mut arg);
        installed(outcome, pages.len(), arg.copy)
    }

    /// Puts `len` bytes of zeroes at `dst`, whole pages, and wakes who waits. Small pages only.
    ///
    /// # Errors
    ///
    /// What the kernel says, except for what [`Copied`] tells.
    pub fn zero(&self, dst: u64, len: usize) -> io::Result<Copied> {
        let range = RangeArg { start: dst, len: len as u64 };
        let mut arg = ZeroArg { range, mode: 0, zeroed: 0 };
        let outcome = self.ioctl(IOC_ZEROPAGE, &mut arg);
        installed(outcome, len, arg.zeroed)
    }

    /// Reads what is pending without waiting; none if there is nothing.
    ///
    /// Asks not to wait on each call, since the process that shares this descriptor could have
    /// taken back its `O_NONBLOCK`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn read(&self, events: &mut Events) -> io::Result<()> {
        events.len = 0;
        let mut bufs = [IoSliceMut::new(&mut events.bytes[..])];
        let read = match rustix::io::preadv2(&self.0, &mut bufs, u64::MAX, ReadWriteFlags::NOWAIT) {
            // A kernel that doesn't know the flag here: `O_NONBLOCK` has to do.
            Err(Errno::OPNOTSUPP) => rustix::io::read(&self.0, &mut events.bytes[..]),
            other => other,
        };
        match read {
            Ok(bytes) => events.len = bytes / MESSAGE_BYTES,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn ioctl<T>(&self, request: libc::Ioctl, arg: &mut T) -> io::Result<()> {
        // SAFETY: every caller pairs `request` with the struct the kernel expects for it (sizes
        // asserted above); it is live and not shared. Memory that the request names by address
        // is checked by the kernel: the source of a copy is a live slice, and everything
        // else must lie in a registered range.
        let rc = unsafe { libc::ioctl(self.0.as_raw_fd(), request, ptr::from_mut(arg)) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Room for the events of one turn, allocated once per session.
#[derive(Debug)]
pub struct Events {
    bytes: Box<[u8; FAULTS_PER_READ * MESSAGE_BYTES]>,
    len: usize,
}

impl Default for Events {
    fn default() -> Self {
        Self { bytes: Box::new([0; FAULTS_PER_READ * MESSAGE_BYTES]), len: 0 }
    }
}

impl Events {
    /// What the last read brought.
    pub fn iter(&self) -> impl Iterator<Item = Event> + '_ {
        let (messages, _) = self.bytes.as_chunks::<MESSAGE_BYTES>();
        messages[..self.len].iter().map(|message| {
            // struct uffd_msg: event in byte 0, a fault's address in bytes 16 to 23.
            // A removed range has its start in bytes 8 to 15 and its end in bytes 16 to 23.
            let (words, _) = message.as_chunks::<8>();
            match message[0] {
                EVENT_PAGEFAULT => Event::Fault(u64::from_ne_bytes(words[2])),
                EVENT_REMOVE => Event::Removed {
                    start: u64::from_ne_bytes(words[1]),
                    end: u64::from_ne_bytes(words[2]),
                },
                other => Event::Other(other),
            }
        })
    }
}

/// What became of a request to put in `len` bytes, of which the kernel says to have done `done`.
fn installed(outcome: io::Result<()>, len: usize, done: i64) -> io::Result<Copied> {
    match outcome {
        Ok(()) => Ok(Copied::Bytes(len)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EEXIST) => Ok(Copied::Present),
            Some(libc::EAGAIN) => match usize::try_from(done) {
                Ok(done) if done > 0 => Ok(Copied::Bytes(done)),
                _ => Ok(Copied::Retry),
            },
            _ => Err(error),
        },
    }
}
