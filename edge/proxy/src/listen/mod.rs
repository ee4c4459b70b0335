//! Opens the listeners, runs them, and drains them.
//!
//! # Drain
//!
//! 1. Listeners close; connections are told to finish (`Connection: close`, GOAWAY).
//! 2. Requests and tunnels end by themselves, for at most the grace period.
//! 3. What is left is cut.

mod h3_body;
mod h3_budget;
mod h3_error;
mod h3_transport;
mod quic;
mod tcp;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::HeaderValue;
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{interval, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    EdgeListenConfig, HostError, TlsError,
    gateway::{ApiService, Gateway},
    route::Domain,
    routes::Routes,
    tls::Identity,
    upstream::Upstream,
};

/// How often the certificate is looked at.
const TLS_CHECK_EVERY: Duration = Duration::from_secs(12 * 3600);
/// How often idle upstream connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How long what was cut has to be gone.
const CUT_WAIT: Duration = Duration::from_secs(5);
/// How long a client may keep the QUIC announcement, in seconds (one day).
const ALT_SVC_MAX_AGE: u32 = 86_400;

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
    /// There is no certificate.
    #[error("there is no certificate to serve TLS with")]
    Tls(#[from] TlsError),
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
}

/// The edge, not bound yet.
#[derive(Debug)]
pub struct Edge;

/// What all connections share for their life and death.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle {
    /// Finish: no new requests.
    drain: CancellationToken,
    /// Stop at once.
    cut: CancellationToken,
    tasks: TaskTracker,
    permits: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
}

/// One of the allowed connections; gives its place back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    open: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lifecycle {
    fn new(max_connections: usize, cut: CancellationToken) -> Self {
        Self {
            drain: CancellationToken::new(),
            cut,
            tasks: TaskTracker::new(),
            permits: Arc::new(Semaphore::new(max_connections)),
            open: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// A place for one more connection, if there is one.
    fn place(&self) -> Option<Place> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Place { _permit: permit, open: Arc::clone(&self.open) })
    }

    /// Runs a connection or a stream: waited for while draining, cut at the end.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            cut.run_until_cancelled_owned(work).await;
        });
    }
}

/// Listening, not accepting yet.
pub struct BoundEdge {
    http: Option<TcpListener>,
    https: Option<(TcpListener, TlsAcceptor)>,
    quic: Option<quinn::Endpoint>,
    addresses: [Option<SocketAddr>; 3],
    identity: Option<Arc<Identity>>,
    gateway: Arc<Gateway>,
    life: Lifecycle,
}

impl fmt::Debug for BoundEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundEdge").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections and tunnels that were cut because the grace period had passed.
    pub cut: usize,
}

impl Edge {
    /// Opens every configured listener, or none.
    ///
    /// # Errors
    ///
    /// [`BindError`] names what could not be had.
    pub async fn bind(
        config: EdgeListenConfig,
        routes: Arc<dyn Routes>,
        api: ApiService,
    ) -> Result<BoundEdge, BindError> {
        let EdgeListenConfig { http, https, quic, domain, tls, limits } = config;
        let domain = Domain::new(&domain)
            .map_err(|source| BindError::Domain { domain: domain.clone(), source })?;
        let encrypted = https.is_some() || quic.is_some();
        let identity = encrypted.then(|| Identity::load(&tls, &domain)).transpose()?;
        let http = bind_tcp("http", http).await?;
        let https_listener = bind_tcp("https", https).await?;
        let (mut https, mut endpoint) = (None, None);
        if let Some(identity) = &identity {
            if let Some(listener) = https_listener {
                let acceptor = TlsAcceptor::from(Arc::new(identity.tcp_config()?));
                https = Some((listener, acceptor));
            }
            if let Some(address) = quic {
                endpoint = Some(quic::bind(address, identity, &limits)?);
            }
        }
        let addresses = [
            http.as_ref().and_then(|listener| listener.local_addr().ok()),
            https.as_ref().and_then(|(listener, _)| listener.local_addr().ok()),
            endpoint.as_ref().and_then(|endpoint| endpoint.local_addr().ok()),
        ];
        let alt_svc = addresses[2].and_then(|address| {
            let value = format!("h3=\":{}\"; ma={ALT_SVC_MAX_AGE}", address.port());
            HeaderValue::from_str(&value).ok()
        });
        let cut = CancellationToken::new();
        let life = Lifecycle::new(limits.max_connections, cut.clone());
        let upstream = Upstream::new(&limits);
        let tunnels = life.tasks.clone();
        let gateway = Gateway { domain, limits, routes, api, upstream, alt_svc, tunnels, cut };
        let gateway = Arc::new(gateway);
        Ok(BoundEdge { http, https, quic: endpoint, addresses, identity, gateway, life })
    }
}

async fn bind_tcp(
    listener: &'static str,
    address: Option<SocketAddr>,
) -> Result<Option<TcpListener>, BindError> {
    let Some(address) = address else { return Ok(None) };
    let bound = TcpListener::bind(address).await;
    bound.map(Some).map_err(|source| BindError::Socket { listener, address, source })
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

    /// Serves until `cancel`, then drains for at most `grace`.
    pub async fn run(self, cancel: CancellationToken, grace: Duration) -> Drained {
        let Self { http, https, quic, identity, gateway, life, .. } = self;
        if let Some(listener) = http {
            life.tasks.spawn(tcp::accept(listener, None, Arc::clone(&gateway), life.clone()));
        }
        if let Some((listener, acceptor)) = https {
            let serving = tcp::accept(listener, Some(acceptor), Arc::clone(&gateway), life.clone());
            life.tasks.spawn(serving);
        }
        if let Some(endpoint) = &quic {
            let serving = quic::accept(endpoint.clone(), Arc::clone(&gateway), life.clone());
            life.tasks.spawn(serving);
        }
        let upkeep = upkeep(identity.as_deref(), &gateway);
        cancel.run_until_cancelled(upkeep).await;
        let drained = drain(&life, grace).await;
        gateway.upstream.close(CUT_WAIT).await;
        if let Some(endpoint) = quic {
            endpoint.close(quic::NO_ERROR, b"shutting down");
            let _ = timeout(CUT_WAIT, endpoint.wait_idle()).await; // peers may be gone already
        }
        drained
    }
}

async fn upkeep(identity: Option<&Identity>, gateway: &Gateway) {
    let mut sweep = interval(SWEEP_EVERY);
    let mut tls_check = interval(TLS_CHECK_EVERY);
    tls_check.tick().await; // the first one is now, and it was just loaded
    loop {
        tokio::select! {
            _ = sweep.tick() => gateway.upstream.pool().sweep(),
            _ = tls_check.tick() => {
                if let Some(identity) = identity
                    && let Err(error) = identity.refresh()
                {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "the certificate could not be renewed");
                }
            }
        }
    }
}

async fn drain(life: &Lifecycle, grace: Duration) -> Drained {
    life.drain.cancel();
    life.tasks.close();
    if timeout(grace, life.tasks.wait()).await.is_ok() {
        return Drained { cut: 0 };
    }
    let cut = life.open.load(Ordering::Relaxed);
    tracing::warn!(connections = cut, "cutting what did not end in time");
    life.cut.cancel();
    let _ = timeout(CUT_WAIT, life.tasks.wait()).await; // they only have to notice
    Drained { cut }
}
