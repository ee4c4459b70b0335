//! Brings up loopback and the one interface, with the address that the kernel command line gives.
//!
//! Every sandbox has the same address inside its own namespace on the host, so nothing is negotiated: no DHCP, no
//! duplicate address detection, no IPv6 on the wire.

use crate::cmdline::Cmdline;
use crate::failure::InitError;
use crate::sys::InterfaceSocket;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

const LOOPBACK: &str = "lo";
const INTERFACE: &str = "eth0";
const APPEAR_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);

/// Configures the interfaces.
///
/// # Errors
///
/// If there should be an interface and none appears within 5 s, or the kernel refuses a step.
pub(crate) fn set_up(cmdline: &Cmdline) -> Result<(), InitError> {
    let step =
        |step, interface| move |source: io::Error| InitError::Network { step, interface, source };
    let socket = InterfaceSocket::open().map_err(step("open a control socket", LOOPBACK))?;
    socket.set_up(LOOPBACK).map_err(step("bring the interface up", LOOPBACK))?;
    let Some((address, prefix)) = cmdline.address else { return Ok(()) };

    wait_for_interface()?;
    disable_ipv6();
    socket.set_address(INTERFACE, address).map_err(step("set the address", INTERFACE))?;
    socket.set_netmask(INTERFACE, netmask(prefix)).map_err(step("set the netmask", INTERFACE))?;
    socket.set_up(INTERFACE).map_err(step("bring the interface up", INTERFACE))?;
    match cmdline.gateway {
        Some(gateway) => {
            socket.add_default_route(gateway).map_err(step("add the default route", INTERFACE))
        }
        None => Ok(()),
    }
}

fn wait_for_interface() -> Result<(), InitError> {
    let start = Instant::now();
    let path = Path::new("/sys/class/net").join(INTERFACE);
    while !path.exists() {
        if start.elapsed() > APPEAR_MAX {
            return Err(InitError::NoInterface { interface: INTERFACE, waited: APPEAR_MAX });
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Keeps the guest from sending router solicitations. A kernel without IPv6 has no such file, which is as good.
fn disable_ipv6() {
    drop(fs::write(format!("/proc/sys/net/ipv6/conf/{INTERFACE}/disable_ipv6"), "1"));
}

fn netmask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_lengths_become_netmasks() {
        assert_eq!(netmask(0), Ipv4Addr::new(0, 0, 0, 0));
        assert_eq!(netmask(16), Ipv4Addr::new(255, 255, 0, 0));
        assert_eq!(netmask(30), Ipv4Addr::new(255, 255, 255, 252));
        assert_eq!(netmask(32), Ipv4Addr::new(255, 255, 255, 255));
    }
}
