//! What the data plane needs to start, and every limit it holds.

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;

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
    /// Threads that serve, each with listeners of its own on the same addresses.
    pub workers: usize,
    /// Who is trusted and what is told.
    pub trust: TrustConfig,
    /// Limits; [`Limits::default`] is meant for production.
    pub limits: Limits,
}

/// What is believed of the way a request came, and what is said about it.
#[derive(Debug, Clone)]
pub struct TrustConfig {
    /// Proxies whose `X-Forwarded-*` and PROXY headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: ProxyProtocol,
    /// Whether a request for another host than its connection's SNI is refused with 421.
    pub strict_sni: bool,
    /// `Strict-Transport-Security` on TLS answers, seconds; 0: none.
    pub hsts_max_age_s: u64,
    /// The port in the answers' `Alt-Svc`, if clients reach QUIC at another port than it listens on.
    pub quic_public_port: Option<u16>,
    /// Where plain HTTP is sent for `https`: the public port; `None`: plain HTTP is served.
    pub redirect_to_https: Option<u16>,
}

impl Default for TrustConfig {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            proxy_protocol: ProxyProtocol::Off,
            strict_sni: true,
            hsts_max_age_s: 0,
            quic_public_port: None,
            redirect_to_https: None,
        }
    }
}

/// Whether TCP connections begin with a PROXY header (versions 1 and 2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They don't.
    #[default]
    Off,
    /// Those of trusted proxies do, others don't.
    Trusted,
    /// All of them do; one that doesn't, or that comes from elsewhere, is closed.
    Required,
}

/// Everything that is bounded. Worst case memory per connection: HTTP/1.1 holds 96 KiB of buffers,
/// HTTP/2 and HTTP/3 hold their connection windows (constants of the listeners) and
/// `max_streams * max_header_bytes`.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open client connections, all listeners together. More are closed at once.
    pub max_connections: usize,
    /// Open client connections of one address (one /64 with IPv6).
    pub max_connections_per_address: usize,
    /// Requests at a time on one HTTP/2 or HTTP/3 connection (with HTTP/3 16 until it has made eight).
    pub max_streams: u32,
    /// Bytes of one request's header fields, names and values.
    pub max_header_bytes: u32,
    /// Header fields of one request.
    pub max_headers: usize,
    /// Streams that one connection's client may reset per second.
    pub max_resets_per_second: u32,
    /// Bytes per second that a request's body has to bring, once it is being read; 0: any.
    pub min_body_bytes_per_second: u32,
    /// Longest TLS or QUIC handshake.
    pub handshake_timeout: Duration,
    /// Longest wait for a complete request head.
    pub header_read_timeout: Duration,
    /// Longest silence of a connection without a request.
    pub idle_timeout: Duration,
    /// Longest wait for a route.
    pub route_timeout: Duration,
    /// Longest wait for the head of an API answer (deploying boots a machine).
    pub api_timeout: Duration,
    /// Longest TCP connect to an agent.
    pub connect_timeout: Duration,
    /// Longest silence within a body, in either direction.
    pub body_idle_timeout: Duration,
    /// Longest silence of a WebSocket tunnel.
    pub tunnel_idle_timeout: Duration,
    /// Idle connections kept to one agent, per worker.
    pub upstream_idle_per_agent: usize,
    /// How long an idle connection to an agent is kept.
    pub upstream_idle_timeout: Duration,
    /// Requests of one team per second; 0: any number.
    pub team_requests_per_second: u32,
    /// Requests of one team at a time; 0: any number.
    pub team_concurrency_max: u32,
    /// Share of the connection limit above which QUIC clients have to show their address, percent.
    pub quic_retry_above_percent: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 16_384,
            max_connections_per_address: 4096,
            // What RFC 9113 6.5.2 and RFC 9114 6.1 recommend at least. QUIC has memory for each that is allowed.
            max_streams: 100,
            max_header_bytes: 32 * 1024,
            max_headers: 128,
            max_resets_per_second: 200,
            min_body_bytes_per_second: 100,
            handshake_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            route_timeout: Duration::from_secs(30),
            api_timeout: Duration::from_secs(15 * 60),
            connect_timeout: Duration::from_secs(2),
            body_idle_timeout: Duration::from_secs(5 * 60),
            tunnel_idle_timeout: Duration::from_secs(60 * 60),
            upstream_idle_per_agent: 1024,
            upstream_idle_timeout: Duration::from_secs(15),
            team_requests_per_second: 0,
            team_concurrency_max: 0,
            quic_retry_above_percent: 50,
        }
    }
}
