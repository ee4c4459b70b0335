//! An edge in front of fake agents, torn down when dropped.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use edge_proxy::{
    AgentEndpoint, AgentToken, ApiService, Body, ClientInfo, Drained, Edge, EdgeListenConfig,
    FunctionRoute, Limits, RouteError, Routes, SandboxRoute, TlsSource, api_service,
};
use http::{Request, Response};
use http_body_util::Full;
use pool_model::{FunctionId, RequestId, SandboxId};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio_util::sync::CancellationToken;

use crate::agent::{FakeAgent, Mode, TOKEN};

pub(crate) const DOMAIN: &str = "wrenn.localhost";

pub(crate) struct Stack {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) quic: SocketAddr,
    pub(crate) agent: FakeAgent,
    pub(crate) roots: rustls::RootCertStore,
    pub(crate) cancel: CancellationToken,
    run: Option<tokio::task::JoinHandle<Drained>>,
    _empty: FakeAgent,
    _dir: tempfile::TempDir,
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            run.abort();
        }
    }
}

struct TestRoutes {
    functions: HashMap<&'static str, FunctionRoute>,
    agent: AgentEndpoint,
}

#[async_trait]
impl Routes for TestRoutes {
    async fn function(&self, name: &str) -> Result<FunctionRoute, RouteError> {
        match name {
            "stuck" => std::future::pending().await,
            "unavailable" => Err(RouteError::Unavailable),
            _ => self.functions.get(name).cloned().ok_or(RouteError::NotFound),
        }
    }

    async fn sandbox(&self, id: SandboxId) -> Result<SandboxRoute, RouteError> {
        if id == SandboxId::from_u128(1) {
            let timeout = Duration::from_secs(30);
            return Ok(SandboxRoute { agent: self.agent.clone(), timeout });
        }
        Err(RouteError::NotFound)
    }
}

/// An address nothing listens on.
fn dead_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn api() -> ApiService {
    api_service(tower::service_fn(async |request: Request<Body>| {
        let extensions = request.extensions();
        assert!(
            extensions.get::<RequestId>().is_some() && extensions.get::<ClientInfo>().is_some()
        );
        Ok(Response::new(Full::new(Bytes::from(format!("api {}", request.uri().path())))))
    }))
}

impl Stack {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(adjust: impl FnOnce(&mut Limits)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let agent = FakeAgent::start(Mode::Serves).await;
        let empty = FakeAgent::start(Mode::PoolEmpty).await;
        let token = AgentToken::new(TOKEN).unwrap();
        let at = |address| AgentEndpoint { address, token: token.clone() };
        let (serves, is_empty, dead) = (at(agent.address), at(empty.address), at(dead_address()));
        let route = |agents: Vec<AgentEndpoint>, timeout_ms| FunctionRoute {
            function: FunctionId::from_u128(7),
            agents,
            timeout: Duration::from_millis(timeout_ms),
        };
        let functions = HashMap::from([
            ("hello", route(vec![serves.clone()], 30_000)),
            ("hasty", route(vec![serves.clone()], 200)),
            ("spread", route(vec![is_empty.clone(), dead.clone(), serves.clone()], 30_000)),
            ("empty", route(vec![is_empty.clone(), is_empty], 30_000)),
            ("down", route(vec![dead], 30_000)),
            ("nowhere", route(vec![], 30_000)),
        ]);
        let mut limits = Limits::default();
        adjust(&mut limits);
        let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let tls = TlsSource::LocalCa { dir: dir.path().join("tls") };
        let domain = DOMAIN.to_owned();
        let config = EdgeListenConfig { http: any, https: any, quic: any, domain, tls, limits };
        let routes = Arc::new(TestRoutes { functions, agent: serves });
        let bound = Edge::bind(config, routes, api()).await.unwrap();
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(dir.path().join("tls/ca.pem")).unwrap();
        roots.add(ca).unwrap();
        let cancel = CancellationToken::new();
        let (http, https, quic) =
            (bound.http_addr().unwrap(), bound.https_addr().unwrap(), bound.quic_addr().unwrap());
        let run = tokio::spawn(bound.run(cancel.clone(), Duration::from_secs(2)));
        let (run, _empty, _dir) = (Some(run), empty, dir);
        Self { http, https, quic, agent, roots, cancel, run, _empty, _dir }
    }

    /// Tells the edge to stop and waits until it has.
    pub(crate) async fn drained(&mut self) -> Drained {
        self.cancel.cancel();
        let run = self.run.take().expect("drained once");
        tokio::time::timeout(Duration::from_secs(15), run).await.expect("drain is bounded").unwrap()
    }
}

/// The host of a function.
pub(crate) fn function(name: &str) -> String {
    format!("{name}.fn.{DOMAIN}")
}
