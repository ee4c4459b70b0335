//! Connections to a guest, from sockets made inside its slot's namespace.
//!
//! A socket belongs to the namespace of the thread that opens it, for ever. So only that one call
//! is made on a worker thread; connecting and everything after it happens on the caller's runtime.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::config::{GUEST_IP, TAP_NAME};
use crate::netns::Workers;

/// Opens connections to one slot's guest. Cheap to clone and to keep.
///
/// It holds the namespace by a descriptor. After the slot is destroyed the namespace lives on
/// until the last dialer is dropped, but empty: destroying deletes its interfaces first, so
/// [`Dialer::dial`] fails with `NetworkUnreachable` and the tap is gone. A new slot with the same
/// index has a namespace of its own, which an old dialer never reaches.
#[derive(Clone, Debug)]
pub struct Dialer {
    pub(crate) netns: Arc<OwnedFd>,
    pub(crate) workers: Arc<Workers>,
}

impl Dialer {
    /// Connects to `port` of the guest; the result has `TCP_NODELAY` set.
    ///
    /// # Errors
    ///
    /// `ConnectionRefused`: the guest is there, nobody listens. `TimedOut`: no answer within
    /// `deadline`. `NetworkUnreachable`: the slot is gone. `WouldBlock`: too many dials are under
    /// way.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub async fn dial(&self, port: u16, deadline: Duration) -> io::Result<TcpStream> {
        let connect = async {
            let socket = self.workers.run(Arc::clone(&self.netns), open_socket).await?;
            let socket = TcpSocket::from_std_stream(StdTcpStream::from(socket));
            socket.set_nodelay(true)?;
            socket.connect(SocketAddr::from((GUEST_IP, port))).await
        };
        timeout(deadline, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Opens a socket that is bound to the tap: should the tap be gone, the connection must not take
/// the default route to somebody on the host's network who has the guest's address.
fn open_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    match setsockopt(&socket, sockopt::BindToDevice, &OsString::from(TAP_NAME)) {
        Err(Errno::ENODEV) => Err(io::Error::from_raw_os_error(libc::ENETUNREACH)),
        other => Ok(other.map(|()| socket)?),
    }
}
