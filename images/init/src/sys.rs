//! The interface ioctls: the one place with `unsafe`, because `nix` has no safe form of them.
//!
//! The argument, once for all: each request of `netdevice(7)` and `rtentry` reads (and some write) exactly one C struct
//! of the type given here, through a pointer that is live and ours for the whole call; the kernel keeps no reference to it.
#![allow(unsafe_code)]

use nix::libc::{self, c_char, c_short, c_ulong, ifreq, rtentry, sockaddr, sockaddr_in};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

/// A socket to configure interfaces through.
#[derive(Debug)]
pub(crate) struct InterfaceSocket(OwnedFd);

impl InterfaceSocket {
    /// Opens a datagram socket, which is never used for data.
    pub(crate) fn open() -> io::Result<Self> {
        let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Self(fd))
    }

    /// Sets the interface's address.
    pub(crate) fn set_address(&self, name: &str, address: Ipv4Addr) -> io::Result<()> {
        let mut request = named(name)?;
        request.ifr_ifru.ifru_addr = inet(address);
        self.interface(libc::SIOCSIFADDR, &mut request)
    }

    /// Sets the interface's netmask.
    pub(crate) fn set_netmask(&self, name: &str, mask: Ipv4Addr) -> io::Result<()> {
        let mut request = named(name)?;
        request.ifr_ifru.ifru_netmask = inet(mask);
        self.interface(libc::SIOCSIFNETMASK, &mut request)
    }

    /// Brings the interface up.
    pub(crate) fn set_up(&self, name: &str) -> io::Result<()> {
        #[expect(clippy::cast_possible_truncation, reason = "the flags are 0x41")]
        const UP: c_short = (libc::IFF_UP | libc::IFF_RUNNING) as c_short;
        let mut request = named(name)?;
        request.ifr_ifru.ifru_flags = UP;
        self.interface(libc::SIOCSIFFLAGS, &mut request)
    }

    /// Sends everything that has no nearer route to `gateway`.
    pub(crate) fn add_default_route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        // SAFETY: `rtentry` is plain old data of the kernel's; all zeroes is "nothing set".
        let mut route: rtentry = unsafe { std::mem::zeroed() };
        route.rt_dst = inet(Ipv4Addr::UNSPECIFIED);
        route.rt_genmask = inet(Ipv4Addr::UNSPECIFIED);
        route.rt_gateway = inet(gateway);
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        // SAFETY: see the module: SIOCADDRT reads one `rtentry`, and `route` is one.
        let rc = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCADDRT, &raw mut route) };
        outcome(rc)
    }

    fn interface(&self, request: c_ulong, argument: &mut ifreq) -> io::Result<()> {
        let argument: *mut ifreq = argument;
        // SAFETY: see the module: each request of this file takes one `ifreq`, and `argument` is one.
        let rc = unsafe { libc::ioctl(self.0.as_raw_fd(), request, argument) };
        outcome(rc)
    }
}

fn outcome(rc: i32) -> io::Result<()> {
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A request about the interface of that name.
fn named(name: &str) -> io::Result<ifreq> {
    // SAFETY: `ifreq` is plain old data of the kernel's; all zeroes is an empty name and no value.
    let mut request: ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero: the name is a C string.
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

/// The address as a C `sockaddr`.
fn inet(address: Ipv4Addr) -> sockaddr {
    const _: () = assert!(size_of::<sockaddr>() == size_of::<sockaddr_in>());
    let family = libc::sa_family_t::try_from(libc::AF_INET).expect("AF_INET is 2");
    let inet = sockaddr_in {
        sin_family: family,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: both structs are plain old data of one size (asserted above), and any bytes are a valid `sockaddr`.
    unsafe { std::mem::transmute::<sockaddr_in, sockaddr>(inet) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_refuses_what_does_not_exist() {
        let socket = InterfaceSocket::open().unwrap();
        let error = socket.set_up("wrenn-none").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn names_too_long_for_the_kernel_are_refused() {
        assert!(named("an-interface-name").is_err());
        assert!(named("fifteen-letters").is_ok());
    }
}
