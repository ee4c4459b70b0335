//! An edge in front of fake agents, torn down when dropped.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use edge_policy::{Authenticator, JwksConfig};
use edge_proxy::{
    AgentEndpoint, AgentToken, ApiService, Body, ClientInfo, Drained, Edge, EdgeListenConfig,
    FunctionRoute, Limits, Parts, RouteError, Routes, SandboxRoute, Submission, SubmitError,
    Submitted, TagRoute, TrustConfig, VersionRoute, api_service,
};
use edge_quic::QuicSecrets;
use edge_telemetry::{Telemetry, TelemetryConfig};
use edge_tls::{Certs, TlsConfig, TlsSource};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use pool_model::{FunctionId, InvocationPolicy, RequestId, SandboxId, TeamId, TrafficPolicy};
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
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) routes: Arc<TestRoutes>,
    run: Option<tokio::task::JoinHandle<Drained>>,
    _empty: FakeAgent,
    _dir: tempfile::TempDir,
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.cancel.cancel(); // its workers are threads: they end by themselves
    }
}

/// What a test may change before the edge starts.
pub(crate) struct Setup {
    pub(crate) limits: Limits,
    pub(crate) trust: TrustConfig,
    pub(crate) workers: usize,
    /// Functions by name, beside the usual ones.
    pub(crate) policies: HashMap<&'static str, InvocationPolicy>,
    pub(crate) traffic: TrafficPolicy,
    /// Functions by name that have these agents.
    pub(crate) agents: HashMap<&'static str, Vec<SocketAddr>>,
    /// Tags of functions: the tag, its weight, its version.
    pub(crate) tags: HashMap<&'static str, Vec<(&'static str, u32, u32)>>,
    pub(crate) telemetry: TelemetryConfig,
    /// How long a drain waits.
    pub(crate) grace: Duration,
    /// Functions by name that are another team's.
    pub(crate) strangers: Vec<&'static str>,
}

/// The control plane of these tests.
pub(crate) struct TestRoutes {
    pub(crate) functions: HashMap<&'static str, Arc<FunctionRoute>>,
    sandbox: Arc<SandboxRoute>,
    /// What is answered without being asked: a test changes that as it likes.
    pub(crate) known: Mutex<HashMap<String, Option<Arc<FunctionRoute>>>>,
    /// How often it was asked.
    pub(crate) asked: AtomicUsize,
}

pub(crate) const TRAFFIC_TOKEN: &str = "abcdefghijklmnopqrstuvwxyz012345";
pub(crate) const API_KEY: &str = "wk_of_the_team";
pub(crate) const SIGNING_SECRET: &str = "the-functions-signing-secret";

#[async_trait]
impl Routes for TestRoutes {
    fn cached_function(&self, name: &str) -> Option<Result<Arc<FunctionRoute>, RouteError>> {
        let known = self.known.lock().unwrap().get(name).cloned();
        known.map(|known| known.ok_or(RouteError::NotFound))
    }

    async fn function(&self, name: &str) -> Result<Arc<FunctionRoute>, RouteError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match name {
            "stuck" => std::future::pending().await,
            "unavailable" => Err(RouteError::Unavailable),
            _ => self.functions.get(name).cloned().ok_or(RouteError::NotFound),
        }
    }

    fn cached_sandbox(&self, _: SandboxId) -> Option<Result<Arc<SandboxRoute>, RouteError>> {
        None
    }

    async fn sandbox(&self, id: SandboxId) -> Result<Arc<SandboxRoute>, RouteError> {
        let known = id == SandboxId::from_u128(1);
        known.then(|| Arc::clone(&self.sandbox)).ok_or(RouteError::NotFound)
    }

    fn cached_domain(&self, _: &str) -> Option<Result<Arc<str>, RouteError>> {
        None
    }

    async fn domain(&self, host: &str) -> Result<Arc<str>, RouteError> {
        (host == "shop.example.org").then(|| Arc::from("hello")).ok_or(RouteError::NotFound)
    }

    async fn team_of_key(&self, key: &str) -> Result<Option<TeamId>, RouteError> {
        Ok((key == API_KEY).then(|| TeamId::from_u128(1)))
    }

    async fn submit(&self, submission: Submission) -> Result<Submitted, SubmitError> {
        if submission.body == "full" {
            return Err(SubmitError::Full);
        }
        let id = format!("{}-{}", submission.route.name, submission.body.len());
        Ok(Submitted { status_url: format!("https://api.{DOMAIN}/v1/invocations/{id}"), id })
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
        let path = request.uri().path().to_owned();
        let mut body = request.into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { break };
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
        let sum = if bytes > 0 { format!(" got {bytes}") } else { String::new() };
        Ok(Response::new(Full::new(Bytes::from(format!("api {path}{sum}")))))
    }))
}

impl Stack {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(adjust: impl FnOnce(&mut Limits)) -> Self {
        Self::set_up(|setup| adjust(&mut setup.limits)).await
    }

    pub(crate) async fn set_up(adjust: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup {
            limits: Limits::default(),
            // One connection asks for many hosts in these tests.
            trust: TrustConfig { strict_sni: false, ..TrustConfig::default() },
            workers: 2,
            policies: HashMap::new(),
            traffic: TrafficPolicy::default(),
            agents: HashMap::new(),
            tags: HashMap::new(),
            telemetry: TelemetryConfig::default(),
            grace: Duration::from_secs(10),
            strangers: Vec::new(),
        };
        adjust(&mut setup);
        let dir = tempfile::tempdir().unwrap();
        let agent = FakeAgent::start(Mode::Serves).await;
        let empty = FakeAgent::start(Mode::PoolEmpty).await;
        let token = AgentToken::new(TOKEN).unwrap();
        let at = |address| AgentEndpoint { address, token: token.clone() };
        let (serves, is_empty, dead) = (at(agent.address), at(empty.address), at(dead_address()));
        let functions = functions(&setup, &serves, &is_empty, dead);
        let sandbox = Arc::new(SandboxRoute {
            team: TeamId::from_u128(1),
            agent: serves,
            traffic: Arc::new(setup.traffic.clone()),
            traffic_token: Some(Arc::from(TRAFFIC_TOKEN)),
            timeout: Duration::from_secs(30),
        });
        let known = HashMap::from([("hello".to_owned(), functions.get("hello").cloned())]);
        let known = Mutex::new(known);
        let routes = Arc::new(TestRoutes { functions, sandbox, known, asked: AtomicUsize::new(0) });
        let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let config = EdgeListenConfig {
            http: any,
            https: any,
            quic: any,
            domain: DOMAIN.to_owned(),
            workers: setup.workers,
            trust: setup.trust,
            limits: setup.limits,
        };
        let source = TlsSource::LocalCa { dir: dir.path().join("tls") };
        let certs = Certs::open(TlsConfig::new(DOMAIN, source)).unwrap();
        let telemetry = TelemetryConfig { workers: setup.workers, ..setup.telemetry };
        let (telemetry, _background) = Telemetry::start(telemetry).unwrap();
        let parts = Parts {
            routes: Arc::clone(&routes) as _,
            api: api(),
            telemetry: Arc::clone(&telemetry),
            challenges: Some(Arc::new(certs.http01())),
            certs: Some(certs),
            authenticator: Authenticator::new(JwksConfig::default()),
            quic_secrets: QuicSecrets::derive(&[7; 32]).unwrap(),
            inherited: None,
        };
        let bound = Edge::bind(config, parts).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(dir.path().join("tls/ca.pem")).unwrap();
        roots.add(ca).unwrap();
        let cancel = CancellationToken::new();
        let (http, https, quic) =
            (bound.http_addr().unwrap(), bound.https_addr().unwrap(), bound.quic_addr().unwrap());
        let serving = bound.run(cancel.clone(), setup.grace);
        let run = Some(tokio::spawn(async move { serving.await.unwrap() }));
        let (_empty, _dir) = (empty, dir);
        Self { http, https, quic, agent, roots, cancel, telemetry, routes, run, _empty, _dir }
    }

    /// Tells the edge to stop and waits until it has.
    pub(crate) async fn drained(&mut self) -> Drained {
        self.cancel.cancel();
        let run = self.run.take().expect("drained once");
        tokio::time::timeout(Duration::from_secs(30), run).await.expect("drain is bounded").unwrap()
    }
}

/// The functions that every stack has, and those that a test asks for.
fn functions(
    setup: &Setup,
    serves: &AgentEndpoint,
    is_empty: &AgentEndpoint,
    dead: AgentEndpoint,
) -> HashMap<&'static str, Arc<FunctionRoute>> {
    let route = |name: &'static str, agents: Vec<AgentEndpoint>, timeout_ms| {
        let policy = setup.policies.get(name).cloned().unwrap_or_default();
        let timeout = Duration::from_millis(timeout_ms);
        let mut route = function_route(name, agents, timeout, policy);
        if setup.strangers.contains(&name) {
            route.team = TeamId::from_u128(2);
        }
        route.tags = setup.tags.get(name).map(|tags| tag_routes(tags, timeout)).unwrap_or_default();
        (name, Arc::new(route))
    };
    let mut functions = HashMap::from([
        route("hello", vec![serves.clone()], 30_000),
        route("hasty", vec![serves.clone()], 200),
        route("spread", vec![is_empty.clone(), dead.clone(), serves.clone()], 30_000),
        route("empty", vec![is_empty.clone(), is_empty.clone()], 30_000),
        route("down", vec![dead], 30_000),
        route("nowhere", vec![], 30_000),
    ]);
    for (name, agents) in &setup.agents {
        let agents = agents
            .iter()
            .map(|agent| AgentEndpoint { address: *agent, ..serves.clone() })
            .collect();
        functions.extend([route(name, agents, 30_000)]);
    }
    for name in setup.policies.keys().chain(setup.tags.keys()) {
        if !functions.contains_key(name) {
            let (name, route) = route(name, vec![serves.clone()], 30_000);
            functions.insert(name, route);
        }
    }
    functions
}

fn function_route(
    name: &'static str,
    agents: Vec<AgentEndpoint>,
    timeout: Duration,
    policy: InvocationPolicy,
) -> FunctionRoute {
    let function = FunctionId::from_u128(7);
    FunctionRoute {
        function,
        name: Arc::from(name),
        team: TeamId::from_u128(1),
        policy: Arc::new(policy),
        signing_secret: Some(Arc::from(SIGNING_SECRET)),
        current: VersionRoute { version: 1, pool: function, timeout },
        tags: Vec::new(),
        agents: Arc::from(agents),
    }
}

fn tag_routes(tags: &[(&'static str, u32, u32)], timeout: Duration) -> Vec<TagRoute> {
    let tag = |(tag, weight, version): &(&'static str, u32, u32)| {
        let pool = FunctionId::from_u128(u128::from(*version) + 100);
        let version = VersionRoute { version: *version, pool, timeout };
        TagRoute { tag: Arc::from(*tag), weight: *weight, version }
    };
    tags.iter().map(tag).collect()
}

/// The host of a port of the sandbox.
pub(crate) fn sandbox(port: u16) -> String {
    format!("{port}-{}1.{DOMAIN}", "0".repeat(24))
}

/// The host of a function.
pub(crate) fn function(name: &str) -> String {
    format!("{name}.fn.{DOMAIN}")
}
