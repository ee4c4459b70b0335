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

use std::{
    fs::File,
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
    ptr,
};

use rustix::io::{Errno, ReadWriteFlags};
use tokio::io::unix::AsyncFd;

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
const FEATURE_MISSING_SHMEM: u64 = 1 << 5;

const IOC_NEW: libc::Ioctl = 0xAA00;
const IOC_API: libc::Ioctl = 0xC018_AA3F;
const IOC_REGISTER: libc::Ioctl = 0xC020_AA00;
const IOC_WAKE: libc::Ioctl = 0x8010_AA02;
const IOC_COPY: libc::Ioctl = 0xC028_AA03;

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

const _: () = assert!(size_of::<ApiArg>() == 24, "must match the kernel's struct");
const _: () = assert!(size_of::<RangeArg>() == 16, "must match the kernel's struct");
const _: () = assert!(size_of::<RegisterArg>() == 32, "must match the kernel's struct");
const _: () = assert!(size_of::<CopyArg>() == 40, "must match the kernel's struct");

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
    /// Anything else; its number.
    Other(u8),
}

/// A userfaultfd.
#[derive(Debug)]
pub struct Uffd(OwnedFd);

impl Uffd {
    /// Makes one for this process from [`DEVICE`]: non-blocking, kernel-mode faults included.
    ///
    /// # Errors
    ///
    /// What the kernel says; `NotFound` where it has no such device.
    pub fn open(device: &Path) -> io::Result<Self> {
        let device = File::options().read(true).write(true).open(device)?;
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the request takes its argument by value.
        let fd = unsafe { libc::ioctl(device.as_raw_fd(), IOC_NEW, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made `fd` for us and nobody else knows it.
        let uffd = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        let mut arg = ApiArg { api: API_VERSION, features: FEATURE_MISSING_SHMEM, ioctls: 0 };
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
        match outcome {
            Ok(()) => Ok(Copied::Bytes(pages.len())),
            Err(error) => match error.raw_os_error() {
                Some(libc::EEXIST) => Ok(Copied::Present),
                Some(libc::EAGAIN) => match usize::try_from(arg.copy) {
                    Ok(done) if done > 0 => Ok(Copied::Bytes(done)),
                    _ => Ok(Copied::Retry),
                },
                _ => Err(error),
            },
        }
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
            let (address, _) = message[16..].split_first_chunk().expect("a message has 32 bytes");
            match message[0] {
                EVENT_PAGEFAULT => Event::Fault(u64::from_ne_bytes(*address)),
                other => Event::Other(other),
            }
        })
    }
}

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
        // SAFETY: the range is this mapping, and neither advice used changes its content.
        let rc = unsafe { libc::madvise(self.pointer(0).cast(), self.len, advice) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
