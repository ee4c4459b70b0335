//! TCP proxies that can be made slow.
//!
//! ```text
//! target --> listener --> connection: requests --> pipe --------------> upstream
//!                                     answers  <-- pipe (delay, rate) <--
//! ```
//!
//! # Invariants
//!
//! - The port stays ours while a cut proxy doesn't listen: a bound socket that never listens holds
//!   it.
//! - What a connection couldn't carry to its end is reset on both sides, never closed as if it
//!   were whole.
//!
//! # Limits
//!
//! [`CONNECTIONS_MAX`] at a time, more are reset and counted; [`CONNECT_MAX`] for the upstream.

pub(crate) mod bucket;
mod listen;
mod pipe;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use loadtest_model::SlowProxy;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Semaphore, watch},
};

/// Most connections of one proxy at a time.
const CONNECTIONS_MAX: usize = 1024;
/// Longest for a connection to the upstream.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Why a proxy can't be.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// It would serve others.
    #[error("cannot listen on {listen}; expected a loopback address")]
    Public {
        /// Where it was to listen.
        listen: SocketAddr,
    },
    /// It would be its own upstream.
    #[error("{listen} is also the upstream; expected two addresses")]
    Circle {
        /// Both.
        listen: SocketAddr,
    },
    /// The address is taken.
    #[error("cannot listen on {listen}")]
    Listen {
        /// Where it was to listen.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// How slow; by default not at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Slowness {
    pub(crate) delay: Duration,
    pub(crate) bytes_per_s: Option<u64>,
    pub(crate) cut: bool,
}

impl Slowness {
    /// Both at a time: the slower of each.
    fn and(self, other: Self) -> Self {
        let rates = [self.bytes_per_s, other.bytes_per_s];
        Self {
            delay: self.delay.max(other.delay),
            bytes_per_s: rates.into_iter().flatten().min(),
            cut: self.cut || other.cut,
        }
    }
}

/// One proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    name: String,
    address: SocketAddr,
    upstream: SocketAddr,
    /// Holds the port.
    _holder: TcpSocket,
    slowness: watch::Sender<Slowness>,
    /// What faults ask for at this moment.
    asked: Mutex<Asked>,
    slots: Arc<Semaphore>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Asked {
    next: u64,
    now: Vec<(u64, Slowness)>,
}

/// A proxy that is slow. Dropped, it is as fast as before.
#[derive(Debug)]
pub(crate) struct Slowed {
    proxy: Arc<Proxy>,
    number: u64,
}

impl Proxy {
    /// Takes its port. It doesn't listen yet.
    pub(crate) fn bind(plan: &SlowProxy) -> Result<Self, ProxyError> {
        let listen = plan.listen;
        if !listen.ip().is_loopback() {
            return Err(ProxyError::Public { listen });
        }
        if listen == plan.upstream {
            return Err(ProxyError::Circle { listen });
        }
        let bound = bind(listen).and_then(|holder| Ok((holder.local_addr()?, holder)));
        let (address, holder) = bound.map_err(|source| ProxyError::Listen { listen, source })?;
        Ok(Self {
            name: plan.name.clone(),
            address,
            upstream: plan.upstream,
            _holder: holder,
            slowness: watch::Sender::default(),
            asked: Mutex::default(),
            slots: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            refused: AtomicU64::new(0),
        })
    }

    /// Listens. Has to be called in a runtime.
    pub(crate) fn listen(&self) -> Result<TcpListener, ProxyError> {
        let listener = bind(self.address).and_then(|socket| socket.listen(BACKLOG));
        listener.map_err(|source| ProxyError::Listen { listen: self.address, source })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Makes it slow, beside what others ask for.
    pub(crate) fn slow(self: &Arc<Self>, slowness: Slowness) -> Slowed {
        let number = self.ask(|asked| {
            asked.next += 1;
            asked.now.push((asked.next, slowness));
            asked.next
        });
        Slowed { proxy: self.clone(), number }
    }

    fn ask<T>(&self, change: impl FnOnce(&mut Asked) -> T) -> T {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut asked);
        let all = asked.now.iter().map(|(_, slowness)| *slowness);
        self.slowness.send_replace(all.fold(Slowness::default(), Slowness::and));
        changed
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        self.proxy.ask(|asked| asked.now.retain(|(number, _)| *number != self.number));
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of before may still be lingering, and the holder is on the same port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(listen: &str, upstream: &str) -> SlowProxy {
        let (listen, upstream) = (listen.parse().unwrap(), upstream.parse().unwrap());
        SlowProxy { name: "store".to_owned(), listen, upstream }
    }

    #[test]
    fn only_free_loopback_addresses_are_taken() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = Proxy::bind(&plan(&address, "127.0.0.1:1")).unwrap_err();
        assert!(matches!(error, ProxyError::Listen { .. }), "{error}");
        let error = Proxy::bind(&plan("0.0.0.0:0", "127.0.0.1:1")).unwrap_err();
        assert!(matches!(error, ProxyError::Public { .. }), "{error}");
        let error = Proxy::bind(&plan("[::1]:9", "[::1]:9")).unwrap_err();
        assert!(matches!(error, ProxyError::Circle { .. }), "{error}");
        assert_ne!(Proxy::bind(&plan("127.0.0.1:0", "127.0.0.1:1")).unwrap().address().port(), 0);
    }

    #[test]
    fn faults_on_one_proxy_add_up_and_go_one_by_one() {
        let proxy = Arc::new(Proxy::bind(&plan("127.0.0.1:0", "127.0.0.1:1")).unwrap());
        let now = || *proxy.slowness.borrow();
        let (long, short) = (Duration::from_secs(2), Duration::from_secs(1));
        let first = Slowness { delay: long, bytes_per_s: None, cut: false };
        let second = Slowness { delay: short, bytes_per_s: Some(7), cut: true };
        let (first, second) = (proxy.slow(first), proxy.slow(second));
        assert_eq!(now(), Slowness { delay: long, bytes_per_s: Some(7), cut: true });
        drop(first);
        assert_eq!(now(), Slowness { delay: short, bytes_per_s: Some(7), cut: true });
        drop(second);
        assert_eq!(now(), Slowness::default());
    }
}
