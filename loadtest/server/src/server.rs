//! The server's life: bind, serve, stop.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
    time::timeout,
};

use crate::{certificate::Certificate, quic, state::State, tasks::Tasks, tcp};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// How often another port is tried when one that is free for TCP isn't for UDP.
const PORT_TRIES: u32 = 16;
/// For tasks that were told to stop; they only have to notice.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// What to serve, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where HTTP/1.1 and HTTP/2 are spoken in clear text, if anywhere. Port 0 is any free one.
    pub h1_h2_clear: Option<SocketAddr>,
    /// Where HTTP/1.1 and HTTP/2 are spoken over TLS, and HTTP/3 by UDP, if anywhere. Port 0 is any
    /// that is free for both.
    pub tls: Option<SocketAddr>,
    /// The most connections at a time, of each of the three listeners. TCP's wait beyond that,
    /// QUIC's are refused.
    pub max_connections: usize,
}

impl Default for ServerConfig {
    /// All protocols, on any ports of 127.0.0.1.
    fn default() -> Self {
        let any = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        Self { h1_h2_clear: any, tls: any, max_connections: 4096 }
    }
}

/// Why a server couldn't start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Anyone could reach it and stall it.
    #[error("{address} is not a loopback address, and the test server is for this machine only")]
    NotLoopback {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// There would be nothing to do.
    #[error("no address to listen on")]
    Nowhere,
    /// An address couldn't be had.
    #[error("cannot listen on {address} ({transport})")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// TCP or UDP.
        transport: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No certificate could be made.
    #[error("cannot make a certificate")]
    Certificate(#[source] rcgen::Error),
    /// The certificate couldn't be used.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
}

/// A running server. Dropping it stops it; [`Self::shutdown`] also waits until that is done.
pub struct Server {
    clear: Option<SocketAddr>,
    tls: Option<SocketAddr>,
    ca_pem: String,
    endpoint: Option<quinn::Endpoint>,
    tasks: Tasks,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clear, tls, .. } = self;
        f.debug_struct("Server").field("clear", clear).field("tls", tls).finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Server {
    /// Starts one in the runtime that this is called in.
    ///
    /// # Errors
    ///
    /// [`ServeError`] if an address isn't of the loopback or can't be had, or TLS can't be set up.
    pub async fn start(config: ServerConfig) -> Result<Self, ServeError> {
        let addresses = [config.h1_h2_clear, config.tls];
        if let Some(address) = addresses.iter().flatten().find(|a| !a.ip().is_loopback()) {
            return Err(ServeError::NotLoopback { address: *address });
        }
        if addresses == [None, None] {
            return Err(ServeError::Nowhere);
        }
        let (certificate, tasks) = (Certificate::new()?, Tasks::default());
        let clear = config.h1_h2_clear.map(bind_tcp).transpose()?;
        let bind_tls = |address| bind_both(address, &certificate, &tasks);
        let tls = config.tls.map(bind_tls).transpose()?;
        let tls_config = Arc::new(certificate.tcp()?);

        let state = Arc::new(State::new(tasks.clone()));
        let places = || Arc::new(Semaphore::new(config.max_connections));
        let mut server =
            Self { clear: None, tls: None, ca_pem: certificate.pem, endpoint: None, tasks };
        if let Some((listener, address)) = clear {
            server.clear = Some(address);
            server.tasks.spawn(tcp::accept(listener, None, places(), Arc::clone(&state)));
        }
        if let Some((listener, endpoint, address)) = tls {
            server.tls = Some(address);
            server.endpoint = Some(endpoint.clone());
            let tls = tcp::accept(listener, Some(tls_config), places(), Arc::clone(&state));
            server.tasks.spawn(tls);
            server.tasks.spawn(quic::accept(endpoint, places(), state));
        }
        Ok(server)
    }

    /// Where clear text is spoken.
    #[must_use]
    pub const fn clear_address(&self) -> Option<SocketAddr> {
        self.clear
    }

    /// Where TLS (TCP) and QUIC (UDP) are spoken.
    #[must_use]
    pub const fn tls_address(&self) -> Option<SocketAddr> {
        self.tls
    }

    /// The certificate, for `localhost`, `127.0.0.1` and `::1`. It signs itself, so it is also what
    /// to trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Stops: connections are closed where they stand, and all tasks have ended when this returns.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, the server stops all the same, without being waited for.
    pub async fn shutdown(mut self) {
        self.stop();
        let gone = async {
            if let Some(endpoint) = self.endpoint.take() {
                endpoint.wait_idle().await;
                // Its task holds the socket for as long as anybody holds the endpoint.
                drop(endpoint);
            }
            self.tasks.wait().await;
        };
        let _ = timeout(STOP_WAIT, gone).await; // a runtime that is stuck ends no task
    }

    fn stop(&self) {
        self.tasks.cancel();
        if let Some(endpoint) = &self.endpoint {
            endpoint.close(quic::NO_ERROR, b"");
        }
    }
}

fn bind_tcp(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Connections of a server that was here before may still be closing.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bind().map_err(|source| ServeError::Bind { address, transport: "TCP", source })
}

type Both = (TcpListener, quinn::Endpoint, SocketAddr);

fn bind_both(
    address: SocketAddr,
    certificate: &Certificate,
    tasks: &Tasks,
) -> Result<Both, ServeError> {
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let (listener, bound) = bind_tcp(address)?;
        match quic::bind(bound, certificate, tasks) {
            Ok(endpoint) => return Ok((listener, endpoint, bound)),
            Err(ServeError::Bind { .. }) if tries > 0 => {}
            Err(error) => return Err(error),
        }
    }
}
