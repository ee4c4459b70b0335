//! A tap device nobody is connected to; it vanishes with its descriptor.
#![allow(unsafe_code)] // TUNSETIFF has no safe wrapper, and only this test needs one here

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
};

/// `struct ifreq` with its name and its flags.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == 40, "must match the kernel's struct");

/// Makes one under a name that the kernel chooses.
pub(crate) fn tap() -> OwnedFd {
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let tun: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open("/dev/net/tun")
        .expect("tests run as root");
    let mut request = InterfaceRequest {
        name: *b"wvmm%d\0\0\0\0\0\0\0\0\0\0",
        flags: i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR).unwrap(),
        rest: [0; 22],
    };
    // SAFETY: `request` is live, writable and laid out as the kernel's struct (asserted above).
    let rc = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    assert_eq!(rc, 0, "TUNSETIFF: {}", io::Error::last_os_error());
    tun.into()
}
