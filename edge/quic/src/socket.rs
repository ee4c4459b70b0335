//! How are the UDP sockets of the workers made?
//!
//! One per worker, all bound to one address with `SO_REUSEPORT`: the kernel spreads peers over them by a hash.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Once;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use socket2::{Domain, Protocol, Socket, Type};

/// Least size of the kernel's buffers per socket, in bytes. Default sizes are ten times too small at 10 Gbit/s.
pub const BUFFER_BYTES: usize = 4 << 20;

/// What a buffer can be asked to be, and what it then is.
type Sizes = (usize, usize);

/// Binds one socket for each of `workers` to `address`; with port 0 all get the same free port.
///
/// An IPv6 address takes IPv6 packets only: bind `0.0.0.0` beside `[::]`. Warns once per process if the kernel gives
/// less than [`BUFFER_BYTES`] (`net.core.rmem_max`, `net.core.wmem_max`).
///
/// # Errors
///
/// What the kernel says: the address is taken by somebody who did not share it, or is not ours.
pub fn bind_workers(address: SocketAddr, workers: u8) -> io::Result<Vec<UdpSocket>> {
    let mut address = address;
    let mut sockets = Vec::with_capacity(usize::from(workers));
    for _ in 0..workers {
        let socket = bind(address)?;
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(sockets)
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A port that the kernel chooses must be nobody's, not even that of another who shares.
    socket.set_reuse_port(address.port() != 0)?;
    socket.set_nonblocking(true)?;
    enlarge(&socket)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(true)?;
    Ok(socket.into())
}

/// Enlarges both buffers: beyond the system's limit if we may, up to it otherwise.
fn enlarge(socket: &Socket) -> io::Result<()> {
    static WARNED: Once = Once::new();
    if setsockopt(socket, RcvBufForce, &BUFFER_BYTES).is_err() {
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
    }
    if setsockopt(socket, SndBufForce, &BUFFER_BYTES).is_err() {
        socket.set_send_buffer_size(BUFFER_BYTES)?;
    }
    let (receive, send) = sizes(socket)?;
    if receive.min(send) < BUFFER_BYTES {
        WARNED.call_once(|| {
            tracing::warn!(
                receive,
                send,
                wanted = BUFFER_BYTES,
                "udp buffers are clamped, raise net.core.rmem_max and net.core.wmem_max"
            );
        });
    }
    Ok(())
}

/// What the buffers can hold. The kernel reports twice that, the other half is for its own records (socket(7)).
fn sizes(socket: &Socket) -> io::Result<Sizes> {
    Ok((socket.recv_buffer_size()? / 2, socket.send_buffer_size()? / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_share_one_port_and_have_large_buffers() {
        let sockets = bind_workers("127.0.0.1:0".parse().unwrap(), 4).unwrap();
        let ports: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 4);
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]));
        let limit: usize =
            std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap().trim().parse().unwrap();
        let (receive, _) = sizes(&sockets[0].try_clone().unwrap().into()).unwrap();
        assert!(receive >= BUFFER_BYTES.min(limit), "{receive} of {limit}");
    }

    #[test]
    fn strangers_get_other_ports() {
        let any = "127.0.0.1:0".parse().unwrap();
        let all: Vec<_> = (0..400).map(|_| bind_workers(any, 1).unwrap()).collect();
        let ports = all.iter().map(|sockets| sockets[0].local_addr().unwrap().port());
        assert_eq!(ports.collect::<std::collections::HashSet<_>>().len(), all.len());
    }

    #[test]
    fn a_port_that_is_not_shared_is_an_error() {
        let alone = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = bind_workers(alone.local_addr().unwrap(), 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
