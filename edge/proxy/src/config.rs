//! What the data plane needs to start, and every limit it holds.

use std::{net::SocketAddr, time::Duration};

use crate::tls::TlsSource;

/// Where to listen and for which domain. A listener that is `None` is not opened.
#[derive(Debug, Clone)]
pub struct EdgeListenConfig {
    /// Plain HTTP/1.1 over TCP.
    pub http: Option<SocketAddr>,
    /// TLS over TCP, HTTP/2 or HTTP/1.1 by ALPN.
    pub https: Option<SocketAddr>,
    /// QUIC over UDP, HTTP/3. Announced by `Alt-Svc` on the TLS listener.
    pub quic: Option<SocketAddr>,
    /// The domain under which everything lives, e.g. `wrenn.localhost`.
    pub domain: String,
    /// Where the certificate comes from; read only if `https` or `quic` is set.
    pub tls: TlsSource,
    /// Limits; [`Limits::default`] is meant for production.
    pub limits: Limits,
}

/// Everything that is bounded. Worst case memory per connection is about
/// `max_streams * (max_header_bytes + windows)`; the windows are constants of the listeners.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open client connections, all listeners together. More are closed at once.
    pub max_connections: usize,
    /// Requests at a time on one HTTP/2 or HTTP/3 connection.
    pub max_streams: u32,
    /// Bytes of one request's header fields, names and values.
    pub max_header_bytes: u32,
    /// Header fields of one request.
    pub max_headers: usize,
    /// Longest TLS or QUIC handshake.
    pub handshake_timeout: Duration,
    /// Longest wait for a complete request head; over HTTP/1.1 also the longest idle keep-alive.
    pub header_read_timeout: Duration,
    /// Longest silence on an HTTP/2 or QUIC connection.
    pub idle_timeout: Duration,
    /// Longest wait for a route, which may include resuming a paused sandbox.
    pub route_timeout: Duration,
    /// Longest wait for the head of an API answer (deploying boots a machine).
    pub api_timeout: Duration,
    /// Longest TCP connect to an agent.
    pub connect_timeout: Duration,
    /// Longest silence within a body, in either direction.
    pub body_idle_timeout: Duration,
    /// Longest silence of a WebSocket tunnel.
    pub tunnel_idle_timeout: Duration,
    /// Idle connections kept to one agent.
    pub upstream_idle_per_agent: usize,
    /// How long an idle connection to an agent is kept.
    pub upstream_idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 8192,
            max_streams: 128,
            max_header_bytes: 32 * 1024,
            max_headers: 128,
            handshake_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            route_timeout: Duration::from_secs(30),
            api_timeout: Duration::from_secs(15 * 60),
            connect_timeout: Duration::from_secs(2),
            body_idle_timeout: Duration::from_secs(5 * 60),
            tunnel_idle_timeout: Duration::from_secs(60 * 60),
            upstream_idle_per_agent: 64,
            upstream_idle_timeout: Duration::from_secs(15),
        }
    }
}
