//! The calls that have no safe wrapper: tap ioctls and pidfds.
//!
//! # Why `unsafe`
//!
//! The kernel's tun device is driven by ioctls whose argument is a raw pointer or an integer, and
//! `nix` wraps neither pidfd call. Every function here takes and returns safe types only: owned or
//! borrowed descriptors, integers and checked names.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Length of `struct virtio_net_hdr`, which precedes every frame of a tap with `IFF_VNET_HDR`.
pub(crate) const VNET_HDR_BYTES: i32 = 10;

/// Opens the tap `name` of the caller's network namespace, making it if it does not exist.
///
/// # Errors
///
/// `EBUSY` if another descriptor is attached; `EINVAL` if the device exists with other flags.
pub(crate) fn attach_tap(name: &str) -> io::Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let mut request = tap_request(name)?;
    let fd = file.as_raw_fd();
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`; `request` is one, live and unshared
    // for the whole call, its name NUL-terminated by `tap_request`. `fd` is open in `file`.
    let rc = unsafe { libc::ioctl(fd, libc::TUNSETIFF, &raw mut request) };
    check(rc)?;
    Ok(file.into())
}

/// Undoes what an earlier holder of the tap may have set on the device.
pub(crate) fn normalise_tap(tap: BorrowedFd<'_>) -> io::Result<()> {
    set_tap_pointer(tap, libc::TUNSETVNETHDRSZ, VNET_HDR_BYTES)?;
    set_tap_pointer(tap, libc::TUNSETSNDBUF, i32::MAX)?;
    set_tap(tap, libc::TUNSETOFFLOAD, 0)?;
    // `struct tun_filter { u16 flags; u16 count; }` with count 0, which is "no filter".
    set_tap_pointer(tap, libc::TUNSETTXFILTER, 0)
}

/// Gives the tap to `uid` and lets it outlive its descriptors.
pub(crate) fn persist_tap(tap: BorrowedFd<'_>, uid: u32) -> io::Result<()> {
    set_tap(tap, libc::TUNSETOWNER, libc::c_ulong::from(uid))?;
    set_tap(tap, libc::TUNSETPERSIST, 1)
}

fn tap_request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: `ifreq` is plain old data (a byte array and a union of such); zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    // The three flags are below 2^15, which is what the kernel's `short` holds.
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(io::Error::other)?;
    Ok(request)
}

fn set_tap(tap: BorrowedFd<'_>, request: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the callers' requests (OWNER, PERSIST, OFFLOAD) take their argument by value, so the
    // kernel follows no pointer. `tap` is open by its type.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), request, value) })
}

fn set_tap_pointer(tap: BorrowedFd<'_>, request: libc::Ioctl, value: i32) -> io::Result<()> {
    // SAFETY: the callers' requests (VNETHDRSZ, SNDBUF, TXFILTER) read four bytes from the pointer:
    // `value` is four bytes, live for the whole call. `tap` is open by its type.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), request, &raw const value) })
}

/// A descriptor of the process `pid`, CLOEXEC. Readable once the process has ended.
///
/// # Errors
///
/// `ESRCH` if there is no such process.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: both arguments are integers by value; the kernel touches none of our memory.
    let rc = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(rc).map_err(io::Error::other)?;
    check(fd)?;
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { File::from_raw_fd(fd) }.into())
}

/// Sends SIGKILL to exactly the process that `pidfd` was opened for.
///
/// # Errors
///
/// `ESRCH` if it has ended.
pub(crate) fn pidfd_kill(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let (fd, signal, info) =
        (pidfd.as_raw_fd(), libc::SIGKILL, std::ptr::null::<libc::siginfo_t>());
    // SAFETY: a null `siginfo` means "as kill(2) would fill it"; the rest are integers by value.
    let rc = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) };
    check(i32::try_from(rc).map_err(io::Error::other)?)
}

fn check(rc: i32) -> io::Result<()> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
