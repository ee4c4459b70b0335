//! Listening TCP sockets, one per worker on the same address: the kernel spreads connections.

use std::{io, net::SocketAddr, net::TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted, per worker.
const BACKLOG: i32 = 1024;

/// Binds `workers` sockets to one address; port 0 is chosen once.
pub(super) fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let first = bind_one(address)?;
    let chosen = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(bind_one(chosen)?);
    }
    Ok(sockets)
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // A port that the kernel chooses must be nobody's, not even that of another who shares.
    socket.set_reuse_port(address.port() != 0)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn workers_share_a_port_and_strangers_get_others() {
        let all: Vec<_> =
            (0..300).map(|_| bind_tcp("127.0.0.1:0".parse().unwrap(), 2).unwrap()).collect();
        let port = |socket: &TcpListener| socket.local_addr().unwrap().port();
        assert!(all.iter().all(|sockets| port(&sockets[0]) == port(&sockets[1])));
        let ports: HashSet<u16> = all.iter().map(|sockets| port(&sockets[0])).collect();
        assert_eq!(ports.len(), all.len());
    }
}
