//! Opens the listeners, runs a worker per processor, drains them, and hands them over.
//!
//! # Drain
//!
//! 1. Listeners close; connections are told to finish (`Connection: close`, GOAWAY).
//! 2. Requests and tunnels end by themselves, for at most the grace period.
//! 3. What is left is cut.
//!
//! # Hand-over
//!
//! A successor is given copies of every listening socket ([`Running::parcel`]). Once it is ready this
//! process stops accepting and reading ([`Running::release`]) and drains; packets of its QUIC
//! connections come from the successor, told by their connection ids.

mod cut;
mod life;
mod limits;
mod proxy_header;
mod quic;
mod running;
mod serve;
mod sockets;
mod tcp;
mod worker;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
    time::Duration,
};

use edge_quic::{
    QuicSecrets, Shared,
    handover::{Named, Parcel},
};
use edge_telemetry::Telemetry;
use edge_tls::Certs;
use http::HeaderValue;
use quinn::crypto::rustls::QuicServerConfig;
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use self::running::Running;
use self::{life::Lifecycle, limits::ListenerConfigs};
use crate::{
    EdgeListenConfig, HostError,
    config::Limits,
    gateway::{ApiService, Gateway},
    guard::Guards,
    route::Domain,
    routes::Routes,
};

/// How long a client may keep the QUIC announcement, in seconds (one day).
const ALT_SVC_MAX_AGE: u32 = 86_400;
/// The listeners' names in a parcel.
const HTTP: &str = "http";
const HTTPS: &str = "https";
const QUIC: &str = "quic";

/// Why the edge can't listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The domain isn't a host name.
    #[error("`{domain}` is not a domain")]
    Domain {
        /// What was given.
        domain: String,
        /// Why it isn't.
        #[source]
        source: HostError,
    },
    /// There is no certificate to serve TLS with.
    #[error("there is no certificate to serve TLS with")]
    Tls(#[from] edge_tls::TlsError),
    /// An address can't be bound.
    #[error("cannot listen on {address} ({listener})")]
    Socket {
        /// Which listener.
        listener: &'static str,
        /// Its address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A worker can't be started.
    #[error("cannot start worker {worker}")]
    Worker {
        /// Its number.
        worker: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What the data plane is made of besides its configuration.
pub struct Parts {
    /// Where requests go.
    pub routes: Arc<dyn Routes>,
    /// Answers requests for the API.
    pub api: ApiService,
    /// Where requests are counted, logged and traced.
    pub telemetry: Arc<Telemetry>,
    /// Certificates; needed if TLS or QUIC is listened for.
    pub certs: Option<Arc<Certs>>,
    /// Answers ACME's HTTP-01 challenges.
    pub challenges: Option<Arc<edge_tls::Http01>>,
    /// Checks API keys, signed URLs and tokens.
    pub authenticator: edge_policy::Authenticator,
    /// Keys of connection ids, resets and tokens.
    pub quic_secrets: QuicSecrets,
    /// Sockets of the edge that is taken over.
    pub inherited: Option<Parcel>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// The edge, not bound yet.
#[derive(Debug)]
pub struct Edge;

#[derive(Default)]
struct Bound {
    http: Vec<TcpListener>,
    https: Vec<TcpListener>,
    quic: Vec<UdpSocket>,
}

/// Listening, not accepting yet.
pub struct BoundEdge {
    sockets: Bound,
    addresses: [Option<SocketAddr>; 3],
    setup: worker::Setup,
    workers: usize,
}

impl fmt::Debug for BoundEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundEdge").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut because the grace period had passed.
    pub cut: usize,
}

impl Edge {
    /// Opens every configured listener, or none. Lookups and API calls will run on the calling
    /// runtime.
    ///
    /// # Errors
    ///
    /// [`BindError`] names what could not be had.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn bind(config: EdgeListenConfig, parts: Parts) -> Result<BoundEdge, BindError> {
        let EdgeListenConfig { domain, trust, limits, workers, .. } = &config;
        let domain = Domain::new(domain)
            .map_err(|source| BindError::Domain { domain: domain.clone(), source })?;
        let Parts { routes, api, telemetry, certs, challenges, authenticator, .. } = parts;
        let (sockets, generation, elders) = match parts.inherited {
            Some(parcel) => inherit(parcel),
            None => (bind_all(&config, (*workers).max(1))?, 0, Vec::new()),
        };
        let workers = [sockets.http.len(), sockets.https.len(), sockets.quic.len()];
        let workers = workers.into_iter().max().unwrap_or(0).max(1);
        let addresses = [
            sockets.http.first().and_then(|socket| socket.local_addr().ok()),
            sockets.https.first().and_then(|socket| socket.local_addr().ok()),
            sockets.quic.first().and_then(|socket| socket.local_addr().ok()),
        ];
        let shared = Shared::new(parts.quic_secrets, generation, byte(workers));
        for edge_quic::Refused { error, generations } in shared.add_elders(elders) {
            tracing::warn!(%error, ?generations, "connections of older edges can't be served");
        }
        let configs = Arc::new(ListenerConfigs::new(limits, &telemetry));
        let counted = Arc::downgrade(&configs);
        telemetry.metrics().add_limits(Box::new(move || {
            counted.upgrade().map(|configs| configs.limit_counts()).unwrap_or_default()
        }));
        let (acceptor, quic_tls) = match certs {
            Some(certs) => (Some(acceptor(&certs)?), Some(quic_tls(&certs)?)),
            None => (None, None),
        };
        let quic_port = trust.quic_public_port.or(addresses[2].map(|address| address.port()));
        let gateway = Gateway {
            domain,
            guards: Guards::new(limits, authenticator),
            alt_svc: quic_port.and_then(alt_svc),
            hsts: hsts(trust.hsts_max_age_s),
            limits: limits.clone(),
            trust: trust.clone(),
            routes,
            api,
            telemetry,
            challenges,
            lookups: Handle::current(),
        };
        let setup = worker::Setup {
            gateway: Arc::new(gateway),
            configs,
            life: Lifecycle::new(limits),
            acceptor,
            quic_tls,
            quic: Some(shared),
            admission: quic_admission(limits),
            stop: CancellationToken::new(),
        };
        Ok(BoundEdge { sockets, addresses, setup, workers })
    }
}

fn bind_all(config: &EdgeListenConfig, workers: usize) -> Result<Bound, BindError> {
    let tcp =
        |listener, address: Option<SocketAddr>| match address {
            None => Ok(Vec::new()),
            Some(address) => sockets::bind_tcp(address, workers)
                .map_err(|source| BindError::Socket { listener, address, source }),
        };
    let http = tcp(HTTP, config.http)?;
    let https = tcp(HTTPS, config.https)?;
    let quic = match config.quic {
        None => Vec::new(),
        Some(address) => edge_quic::bind_workers(address, byte(workers))
            .map_err(|source| BindError::Socket { listener: QUIC, address, source })?,
    };
    Ok(Bound { http, https, quic })
}

fn inherit(parcel: Parcel) -> (Bound, u16, Vec<edge_quic::Elder>) {
    let generation = parcel.next_generation();
    let mut bound = Bound::default();
    for Named { name, socket, .. } in parcel.tcp {
        match &*name {
            HTTP => bound.http.push(socket),
            HTTPS => bound.https.push(socket),
            _ => tracing::warn!(name, "an inherited listener is not known"),
        }
    }
    bound.quic = parcel.udp.into_iter().map(|named| named.socket).collect();
    (bound, generation, parcel.elders)
}

fn byte(workers: usize) -> u8 {
    u8::try_from(workers).unwrap_or(u8::MAX)
}

fn acceptor(certs: &Arc<Certs>) -> Result<TlsAcceptor, BindError> {
    Ok(TlsAcceptor::from(Arc::new(certs.tcp_config()?)))
}

fn quic_tls(certs: &Arc<Certs>) -> Result<Arc<QuicServerConfig>, BindError> {
    let config = QuicServerConfig::try_from(certs.quic_config()?).map_err(|error| {
        let source = io::Error::other(error);
        BindError::Worker { worker: 0, source }
    })?;
    Ok(Arc::new(config))
}

fn quic_admission(limits: &Limits) -> Arc<edge_quic::Admission> {
    edge_quic::Admission::new(edge_quic::AdmissionLimits {
        connections: limits.max_connections,
        per_address: limits.max_connections_per_address,
        retry_load: f32::from(limits.quic_retry_above_percent) / 100.0,
    })
}

fn alt_svc(port: u16) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("h3=\":{port}\"; ma={ALT_SVC_MAX_AGE}")).ok()
}

fn hsts(max_age_s: u64) -> Option<HeaderValue> {
    let value = format!("max-age={max_age_s}; includeSubDomains");
    (max_age_s > 0).then(|| HeaderValue::from_str(&value).ok()).flatten()
}

impl BoundEdge {
    /// Where plain HTTP is listened for.
    #[must_use]
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.addresses[0]
    }

    /// Where TLS is listened for.
    #[must_use]
    pub fn https_addr(&self) -> Option<SocketAddr> {
        self.addresses[1]
    }

    /// Where QUIC is listened for.
    #[must_use]
    pub fn quic_addr(&self) -> Option<SocketAddr> {
        self.addresses[2]
    }

    /// Starts the workers. QUIC's packets are read from [`Running::read_quic`] on.
    ///
    /// # Errors
    ///
    /// [`BindError::Worker`].
    pub fn start(self) -> Result<Running, BindError> {
        let Self { sockets, setup, workers, .. } = self;
        let kept = Bound {
            http: clone_all(&sockets.http, TcpListener::try_clone),
            https: clone_all(&sockets.https, TcpListener::try_clone),
            quic: clone_all(&sockets.quic, UdpSocket::try_clone),
        };
        let mut each = [sockets.http.into_iter(), sockets.https.into_iter()];
        let mut quic = sockets.quic.into_iter();
        let mut running = Vec::new();
        for worker in 0..workers {
            let sockets =
                worker::Sockets { http: each[0].next(), https: each[1].next(), quic: quic.next() };
            let started = worker::start(worker, sockets, setup.clone());
            running.push(started.map_err(|source| BindError::Worker { worker, source })?);
        }
        Ok(Running { workers: running, setup, kept })
    }

    /// Serves until `cancel`, then drains for at most `grace`.
    ///
    /// # Errors
    ///
    /// [`BindError::Worker`].
    pub async fn run(
        self,
        cancel: CancellationToken,
        grace: Duration,
    ) -> Result<Drained, BindError> {
        let running = self.start()?;
        running.read_quic();
        cancel.cancelled().await;
        Ok(running.drain(grace).await)
    }
}

fn clone_all<S>(sockets: &[S], clone: fn(&S) -> io::Result<S>) -> Vec<S> {
    sockets.iter().filter_map(|socket| clone(socket).ok()).collect()
}
