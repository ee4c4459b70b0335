//! The thread that waits for a snapshot, and puts its base memory where guest memory is reserved.
//!
//! The agent sends one message, [`MESSAGE_BYTES`] of length with two descriptors: the read-only
//! base memory, and the device that userfaultfds are made from. It gets one line back.
//!
//! Base memory is mapped over the reservation in one call. Where the processor runs guests (KVM),
//! memory is known to it by these same addresses: the kernel tells it that they changed.
//!
//! The mapping has no access rights until its faults are sent to the userfaultfd: a stray touch
//! ends the process, where it would otherwise put a page of zeroes into base memory for all.

use std::{
    ffi::{c_int, c_long},
    mem, ptr,
    sync::atomic::Ordering,
    thread,
};

use super::{MEMORY_ADDR, MEMORY_LEN, SOCKET_FD, fail, map, required, say, stat};
use crate::report::Line;

const IOC_NEW: libc::Ioctl = 0xAA00;
const IOC_API: libc::Ioctl = 0xC018_AA3F;
const IOC_REGISTER: libc::Ioctl = 0xC020_AA00;
const API_VERSION: u64 = 0xAA;
const EVENT_REMOVE: u64 = 1 << 3;
const MISSING_HUGETLBFS: u64 = 1 << 4;
const MISSING_SHMEM: u64 = 1 << 5;
const REGISTER_MODE_MISSING: u64 = 1;
/// `f_type` of memory in huge pages (`HUGETLBFS_MAGIC` of linux/magic.h).
const HUGETLBFS: i64 = 0x9584_58F6;

/// What the agent sends: the length of guest memory, in this machine's byte order.
const MESSAGE_BYTES: usize = size_of::<u64>();
/// The thread's stack: its own frames need a tenth of it, QEMU's thread-local data some more.
const STACK_BYTES: usize = 256 << 10;

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

/// Room for one control message of two descriptors, aligned as the kernel's header is.
#[repr(C, align(8))]
struct Control([u8; 24]);

const _: () = assert!(size_of::<ApiArg>() == 24, "must match the kernel's struct");
const _: () = assert!(size_of::<RegisterArg>() == 32, "must match the kernel's struct");
const _: () = assert!(size_of::<libc::cmsghdr>() == 16, "a header and two numbers fill the room");

/// What came with the agent's message.
struct Snapshot {
    len: u64,
    base: c_int,
    device: c_int,
}

/// Starts the thread. QEMU's signals are for its own threads: this one gets none.
pub(super) fn start() {
    // SAFETY: all zeroes is a value of this plain C struct, an empty set.
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { mem::zeroed() };
    // SAFETY: `all` is live and not shared.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: both sets are live and not shared. A new thread gets the mask of its maker.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
    let started = thread::Builder::new().stack_size(STACK_BYTES).spawn(run);
    // SAFETY: `before` is live; the mask is the one that this thread had.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    if started.is_err() {
        fail("start the thread that waits for a snapshot")
    }
}

fn run() {
    let socket = required(SOCKET_FD);
    let Some(snapshot) = receive(socket) else {
        // Nobody is left who could restore this process.
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) }
    };
    let uffd = take(&snapshot);
    let (addr, len) = (MEMORY_ADDR.load(Ordering::Acquire), MEMORY_LEN.load(Ordering::Relaxed));
    // A QEMU that a guest took over can neither make another userfaultfd nor talk to the agent.
    close(snapshot.device);
    if !say(socket, &Line::mapped(uffd, addr, len, snapshot.base)) {
        fail("report the mapping")
    }
    close(socket);
}

/// Waits for the message; nothing if the agent has closed its end.
fn receive(socket: c_int) -> Option<Snapshot> {
    let mut bytes = [0_u8; MESSAGE_BYTES];
    let mut control = Control([0; 24]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: MESSAGE_BYTES };
    // SAFETY: all zeroes is a value of this plain C struct.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>();
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_WAITALL;
    // SAFETY: the message describes live locals with their true lengths.
    let received = unsafe { libc::recvmsg(socket, &raw mut message, flags) };
    if received == 0 {
        return None;
    }
    if usize::try_from(received) != Ok(MESSAGE_BYTES) {
        fail("receive the snapshot")
    }
    let [base, device] = descriptors(&control, message.msg_controllen)
        .unwrap_or_else(|| fail("receive the snapshot's descriptors"));
    Some(Snapshot { len: u64::from_ne_bytes(bytes), base, device })
}

/// The two descriptors of a control message: a header of 16 bytes, then the numbers.
fn descriptors(control: &Control, len: usize) -> Option<[c_int; 2]> {
    let number = |at: usize| {
        let bytes = control.0.get(at..at + 4)?;
        Some(c_int::from_ne_bytes(bytes.try_into().ok()?))
    };
    let is_rights = number(8)? == libc::SOL_SOCKET && number(12)? == libc::SCM_RIGHTS;
    (len == 24 && is_rights).then_some([number(16)?, number(20)?])
}

/// Maps base memory over the reservation and returns the userfaultfd that gets its faults.
fn take(snapshot: &Snapshot) -> c_int {
    let (addr, len) = (MEMORY_ADDR.load(Ordering::Acquire), MEMORY_LEN.load(Ordering::Relaxed));
    let size = stat(snapshot.base).map_or(0, |stat| stat.st_size);
    if snapshot.len != len as u64 || u64::try_from(size) != Ok(snapshot.len) {
        fail("restore a snapshot of another memory size")
    }
    let huge = is_huge(snapshot.base);
    // Huge pages are not reclaimed for each other: what a clone may copy is reserved for it now,
    // or it would be killed at the first write that finds none.
    let reserve = if huge { 0 } else { libc::MAP_NORESERVE };
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | reserve;
    let at = ptr::with_exposed_provenance_mut(addr);
    // SAFETY: exactly the range that was reserved for this; QEMU touches no guest memory before
    // a device state is loaded, which the agent begins after it has this thread's report.
    let mapped = unsafe { map(at, len, libc::PROT_NONE, flags, snapshot.base, 0) };
    if mapped != at {
        fail("map base memory")
    }
    for advice in [libc::MADV_NOHUGEPAGE, libc::MADV_DONTDUMP, libc::MADV_DONTFORK] {
        // SAFETY: the mapping just made; no advice given here changes its content. A refusal is
        // fine: a kernel without huge pages has none to avoid.
        unsafe { libc::syscall(libc::SYS_madvise, addr, len, c_long::from(advice)) };
    }
    let uffd = userfaultfd(snapshot.device, huge);
    let (start, mode) = (addr as u64, REGISTER_MODE_MISSING);
    let mut range = RegisterArg { start, len: snapshot.len, mode, ioctls: 0 };
    // SAFETY: `range` is live, not shared, and has the kernel's layout (asserted). It names the
    // mapping just made; registering changes only how its missing pages come to be.
    if unsafe { libc::ioctl(uffd, IOC_REGISTER, &raw mut range) } < 0 {
        fail("register guest memory")
    }
    // SAFETY: gives the mapping just made the rights that QEMU had asked for.
    if unsafe { libc::mprotect(at, len, libc::PROT_READ | libc::PROT_WRITE) } < 0 {
        fail("open guest memory")
    }
    uffd
}

/// Makes a userfaultfd; with events of given-back pages, where the kernel has them.
fn userfaultfd(device: c_int, huge: bool) -> c_int {
    // SAFETY: the request takes its argument by value.
    let uffd = unsafe { libc::ioctl(device, IOC_NEW, libc::O_CLOEXEC | libc::O_NONBLOCK) };
    if uffd < 0 {
        fail("make a userfaultfd")
    }
    let missing = if huge { MISSING_HUGETLBFS } else { MISSING_SHMEM };
    let agreed = [missing | EVENT_REMOVE, missing].into_iter().any(|features| {
        let mut api = ApiArg { api: API_VERSION, features, ioctls: 0 };
        // SAFETY: `api` is live, not shared, and has the kernel's layout (asserted). After a
        // refusal the descriptor is as it was.
        unsafe { libc::ioctl(uffd, IOC_API, &raw mut api) == 0 }
    });
    if !agreed {
        fail("agree on the userfaultfd API")
    }
    uffd
}

fn is_huge(fd: c_int) -> bool {
    // SAFETY: all zeroes is a value of this plain C struct.
    let mut system: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: `system` is live, not shared, and what the call fills.
    let rc = unsafe { libc::fstatfs(fd, &raw mut system) };
    rc == 0 && system.f_type == HUGETLBFS
}

fn close(fd: c_int) {
    // SAFETY: the descriptor was handed to this library alone; nobody uses it after this.
    unsafe { libc::close(fd) };
}
