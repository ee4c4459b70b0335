//! The interposed functions of the C library and the calls they make.
//!
//! The library's every export takes the place of a C function, and its every call in them is a
//! raw system call: nothing here may use what it replaces, since QEMU and its libraries call
//! these functions at any time, from any thread, with locks held. The one exception is the
//! reservation of guest memory, which QEMU makes once, from its first thread, before a machine
//! exists: it starts a thread (`restore`), and that allocates.
#![allow(unsafe_code)]

mod restore;

use std::{
    ffi::{CStr, c_int, c_long, c_void},
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

use libc::{off_t, size_t};

use crate::report::{Line, descriptor};

/// The number of the file that QEMU opens as guest memory; it stays empty.
const MEMORY_FD: &CStr = c"WRENN_UFFD_MEMORY_FD";
/// The number of our end of the socket to the agent.
const SOCKET_FD: &CStr = c"WRENN_UFFD_SOCKET_FD";

/// Where guest memory is reserved; 0 before. The length is written before the address.
static MEMORY_ADDR: AtomicUsize = AtomicUsize::new(0);
static MEMORY_LEN: AtomicUsize = AtomicUsize::new(0);

/// Replaces `mmap`: memory of the guest-memory file is reserved instead of mapped.
///
/// # Safety
///
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    addr: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { map_or_reserve(addr, len, prot, flags, fd, offset) }
}

/// Replaces `mmap64`, as [`mmap`].
///
/// # Safety
///
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    addr: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { map_or_reserve(addr, len, prot, flags, fd, offset) }
}

/// Replaces `madvise`: guest memory keeps its small pages, and its pages are not merged with
/// those of other guests (which would tell one guest what another has in memory).
///
/// # Safety
///
/// As the C function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn madvise(addr: *mut c_void, len: size_t, advice: c_int) -> c_int {
    let start = MEMORY_ADDR.load(Ordering::Acquire);
    let end = start + MEMORY_LEN.load(Ordering::Relaxed);
    let in_memory = start != 0 && addr.addr() < end && addr.addr().saturating_add(len) > start;
    if in_memory && matches!(advice, libc::MADV_HUGEPAGE | libc::MADV_MERGEABLE) {
        return 0;
    }
    // SAFETY: the caller's promise; this is the system call the C function makes.
    int(unsafe { libc::syscall(libc::SYS_madvise, addr, len, c_long::from(advice)) })
}

/// # Safety
///
/// As `mmap`.
unsafe fn map_or_reserve(
    addr: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    if fd < 0 || !is_memory(fd) {
        // SAFETY: the caller's promise.
        return unsafe { map(addr, len, prot, flags, fd, offset) };
    }
    if offset != 0 || MEMORY_ADDR.load(Ordering::Relaxed) != 0 {
        fail("reserve guest memory in one piece")
    }
    let kind = libc::MAP_SHARED_VALIDATE | libc::MAP_SHARED | libc::MAP_PRIVATE;
    let flags = flags & !kind | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the caller's promise: what is mapped takes the range that the caller's would have.
    let reserved = unsafe { map(addr, len, prot, flags, -1, 0) };
    if reserved == libc::MAP_FAILED {
        fail("reserve guest memory")
    }
    MEMORY_LEN.store(len, Ordering::Relaxed);
    MEMORY_ADDR.store(reserved.addr(), Ordering::Release);
    restore::start();
    reserved
}

/// The system call.
///
/// # Safety
///
/// As `mmap`.
unsafe fn map(
    addr: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    let (prot, flags, fd) = (c_long::from(prot), c_long::from(flags), c_long::from(fd));
    // SAFETY: the caller's promise; this is the system call the C function makes.
    let mapped = unsafe { libc::syscall(libc::SYS_mmap, addr, len, prot, flags, fd, offset) };
    let mapped = isize::try_from(mapped).expect("a long is as wide as a pointer");
    ptr::with_exposed_provenance_mut(mapped.cast_unsigned())
}

/// Whether `fd` is of the file that stands for guest memory.
fn is_memory(fd: c_int) -> bool {
    let Some(text) = env(MEMORY_FD) else { return false };
    let Some(memory) = descriptor(text.to_bytes()) else {
        fail("read the descriptors from the environment")
    };
    match (stat(fd), stat(memory)) {
        (Some(this), Some(memory)) => (this.st_dev, this.st_ino) == (memory.st_dev, memory.st_ino),
        _ => false,
    }
}

fn stat(fd: c_int) -> Option<libc::stat> {
    // SAFETY: all zeroes is a value of this plain C struct.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is live, not shared, and what the call fills.
    let rc = unsafe { libc::fstat(fd, &raw mut stat) };
    (rc == 0).then_some(stat)
}

/// Says what failed, with the last error, to the agent and in QEMU's log; ends the process.
fn fail(step: &'static str) -> ! {
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    let line = Line::error(step, errno);
    if let Some(socket) = env(SOCKET_FD).and_then(|text| descriptor(text.to_bytes())) {
        say(socket, &line);
    }
    let bytes = line.as_bytes();
    // SAFETY: the pointer and the length are those of a live slice.
    unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
    // SAFETY: ends the process.
    unsafe { libc::abort() }
}

/// Sends a line to the agent.
fn say(socket: c_int, line: &Line) -> bool {
    let bytes = line.as_bytes();
    // SAFETY: the pointer and the length are those of a live slice.
    let sent =
        unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    usize::try_from(sent) == Ok(bytes.len())
}

/// The descriptor that the agent must have set.
fn required(name: &'static CStr) -> c_int {
    match env(name).and_then(|text| descriptor(text.to_bytes())) {
        Some(fd) => fd,
        None => fail("read the descriptors from the environment"),
    }
}

fn env(name: &'static CStr) -> Option<&'static CStr> {
    // SAFETY: `name` is a C string. QEMU doesn't change its environment while it runs.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: not null, so it is a C string, which stays where it is for the same reason.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) })
}

/// System calls return 0 or -1 here: both fit.
fn int(value: c_long) -> c_int {
    c_int::try_from(value).unwrap_or(-1)
}
