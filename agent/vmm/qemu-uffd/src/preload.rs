//! The interposed functions of the C library and the calls they make.
//!
//! The library's every export takes the place of a C function, and its every call is a raw system
//! call: nothing here may use what it replaces, nor anything that allocates, since QEMU and
//! its libraries call these functions at any time, from any thread, with locks held.
//!
//! The functions of the `open` family are variadic in C. Here they take the mode as a fixed
//! argument: on x86-64 and aarch64 Linux an integer argument is passed in the same register either
//! way, and when the caller gave none the kernel ignores what it finds there.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_int, c_long, c_void},
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

use libc::{mode_t, off_t, size_t};

use crate::report::{Line, descriptor};

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the fixed mode argument is only known to be right on x86-64 and aarch64");

const IOC_NEW: libc::Ioctl = 0xAA00;
const IOC_API: libc::Ioctl = 0xC018_AA3F;
const IOC_REGISTER: libc::Ioctl = 0xC020_AA00;
const API_VERSION: u64 = 0xAA;
const FEATURE_MISSING_SHMEM: u64 = 1 << 5;
const REGISTER_MODE_MISSING: u64 = 1;

#[repr(C)]
struct ApiArg {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct RegisterArg {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

const _: () = assert!(size_of::<ApiArg>() == 24, "must match the kernel's struct");
const _: () = assert!(size_of::<RegisterArg>() == 32, "must match the kernel's struct");

/// Where guest memory is, once it is mapped; 0 before.
static MEMORY_ADDR: AtomicUsize = AtomicUsize::new(0);
static MEMORY_LEN: AtomicUsize = AtomicUsize::new(0);

/// Replaces `open`.
///
/// # Safety
///
/// As the C function: `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { open_at(libc::AT_FDCWD, path, flags, mode) }
}

/// Replaces `open64`.
///
/// # Safety
///
/// As the C function: `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { open_at(libc::AT_FDCWD, path, flags, mode) }
}

/// Replaces `__open_2`, which `open` becomes under `_FORTIFY_SOURCE`.
///
/// # Safety
///
/// As the C function: `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __open_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { open_at(libc::AT_FDCWD, path, flags, 0) }
}

/// Replaces `__open64_2`, which `open64` becomes under `_FORTIFY_SOURCE`.
///
/// # Safety
///
/// As the C function: `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __open64_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { open_at(libc::AT_FDCWD, path, flags, 0) }
}

/// Replaces `openat`.
///
/// # Safety
///
/// As the C function: `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { open_at(dir, path, flags, mode) }
}

/// Replaces `openat64`.
///
/// # Safety
///
/// As the C function: `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat64(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { open_at(dir, path, flags, mode) }
}

/// Replaces `__openat_2`.
///
/// # Safety
///
/// As the C function: `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __openat_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { open_at(dir, path, flags, 0) }
}

/// Replaces `__openat64_2`.
///
/// # Safety
///
/// As the C function: `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __openat64_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { open_at(dir, path, flags, 0) }
}

/// Replaces `mmap`.
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
    unsafe { map(addr, len, prot, flags, fd, offset) }
}

/// Replaces `mmap64`.
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
    unsafe { map(addr, len, prot, flags, fd, offset) }
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
/// `path` is a C string.
unsafe fn open_at(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    if let Some(wanted) = env(c"WRENN_UFFD_PATH") {
        // SAFETY: the caller's promise. A null path has no string and fails in the kernel.
        let given = (!path.is_null()).then(|| unsafe { CStr::from_ptr(path) });
        if given == Some(wanted) {
            return duplicate(required(c"WRENN_UFFD_BASE_FD"));
        }
    }
    // SAFETY: the caller's promise; this is the system call the C function makes.
    int(unsafe {
        libc::syscall(libc::SYS_openat, c_long::from(dir), path, c_long::from(flags), mode)
    })
}

fn duplicate(fd: c_int) -> c_int {
    // SAFETY: takes and gives numbers only.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        fail("duplicate the base")
    }
    copy
}

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
    let ours = fd >= 0 && env(c"WRENN_UFFD_PATH").is_some() && is_base(fd);
    let kind = libc::MAP_SHARED_VALIDATE | libc::MAP_SHARED | libc::MAP_PRIVATE;
    let flags = if ours { flags & !kind | libc::MAP_PRIVATE } else { flags };
    // SAFETY: the caller's promise; this is the system call the C function makes. Where the
    // mapping is ours it replaces the same range as the caller's would have.
    let mapped = unsafe {
        libc::syscall(
            libc::SYS_mmap,
            addr,
            len,
            c_long::from(prot),
            c_long::from(flags),
            c_long::from(fd),
            offset,
        )
    };
    let mapped = isize::try_from(mapped).expect("a long is as wide as a pointer");
    let mapped: *mut c_void = ptr::with_exposed_provenance_mut(mapped.cast_unsigned());
    if ours {
        if mapped == libc::MAP_FAILED || offset != 0 {
            fail("map base memory")
        }
        register(mapped.addr(), len);
    }
    mapped
}

/// Whether `fd` is of the same file as the base descriptor.
fn is_base(fd: c_int) -> bool {
    match (identity(fd), identity(required(c"WRENN_UFFD_BASE_FD"))) {
        (Some(this), Some(base)) => this == base,
        _ => false,
    }
}

fn identity(fd: c_int) -> Option<(libc::dev_t, libc::ino_t)> {
    // SAFETY: all zeroes is a value of this plain C struct.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is live, not shared, and what the call fills.
    let rc = unsafe { libc::fstat(fd, &raw mut stat) };
    (rc == 0).then_some((stat.st_dev, stat.st_ino))
}

/// Sends the faults of `addr..addr + len` to a new userfaultfd and says so; aborts if it can't.
fn register(addr: usize, len: usize) {
    if MEMORY_ADDR.load(Ordering::Relaxed) != 0 {
        fail("map base memory a second time")
    }
    let device = required(c"WRENN_UFFD_DEV_FD");
    let base = required(c"WRENN_UFFD_BASE_FD");
    let report = required(c"WRENN_UFFD_REPORT_FD");
    advise(addr, len, libc::MADV_NOHUGEPAGE);
    advise(addr, len, libc::MADV_DONTDUMP);
    // SAFETY: the request takes its argument by value.
    let uffd = unsafe { libc::ioctl(device, IOC_NEW, libc::O_CLOEXEC | libc::O_NONBLOCK) };
    if uffd < 0 {
        fail("make a userfaultfd")
    }
    let mut api = ApiArg { api: API_VERSION, features: FEATURE_MISSING_SHMEM, ioctls: 0 };
    // SAFETY: `api` is live, not shared, and has the kernel's layout (asserted).
    if unsafe { libc::ioctl(uffd, IOC_API, &raw mut api) } < 0 {
        fail("agree on the userfaultfd API")
    }
    let mode = REGISTER_MODE_MISSING;
    let mut range = RegisterArg { start: addr as u64, len: len as u64, mode, ioctls: 0 };
    // SAFETY: `range` is live, not shared, and has the kernel's layout (asserted). It names the
    // mapping just made; registering changes only how its missing pages come to be.
    if unsafe { libc::ioctl(uffd, IOC_REGISTER, &raw mut range) } < 0 {
        fail("register guest memory")
    }
    MEMORY_LEN.store(len, Ordering::Relaxed);
    MEMORY_ADDR.store(addr, Ordering::Release);
    if !say(report, &Line::mapped(uffd, addr, len, base)) {
        fail("report the mapping")
    }
    close(report);
    close(device);
}

fn advise(addr: usize, len: usize, advice: c_int) {
    // SAFETY: the range is the mapping just made; neither advice used changes its content. A
    // refusal is fine: a kernel without huge pages has none to avoid.
    unsafe { libc::syscall(libc::SYS_madvise, addr, len, c_long::from(advice)) };
}

fn close(fd: c_int) {
    // SAFETY: the descriptor was handed to this library alone; nobody uses it after this.
    unsafe { libc::close(fd) };
}

/// Reports what failed, with the last error, and ends the process.
fn fail(step: &'static str) -> ! {
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    let line = Line::error(step, errno);
    let report = env(c"WRENN_UFFD_REPORT_FD").and_then(|text| descriptor(text.to_bytes()));
    say(report.unwrap_or(libc::STDERR_FILENO), &line);
    // SAFETY: ends the process.
    unsafe { libc::abort() }
}

fn say(fd: c_int, line: &Line) -> bool {
    let bytes = line.as_bytes();
    // SAFETY: the pointer and the length are those of a live slice.
    let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(written) == Ok(bytes.len())
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

/// System calls return descriptors and 0 or -1 here: both fit.
fn int(value: c_long) -> c_int {
    c_int::try_from(value).unwrap_or(-1)
}
