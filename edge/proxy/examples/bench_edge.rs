//! What does the gateway itself cost: an edge with fixed routes, for `loadtest/edge`?
//!
//! ```text
//! bench_edge --cert c.pem --key k.pem --https 127.0.0.1:8443 --quic 127.0.0.1:8443 \
//!     --upstream 127.0.0.1:9000 --log access.log --workers 1 --routes 100000
//! ```
//!
//! Everything is on that is on in production: limits, guards, metrics, and the access log, into a
//! file. The function `bench` goes to the upstream, and so do the others, `f0` and so on.
#![allow(clippy::unwrap_used, reason = "a program for measurements: what fails ends it")]

use std::{
    collections::HashMap, net::SocketAddr, path::PathBuf, str::FromStr, sync::Arc, time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use edge_policy::{Authenticator, JwksConfig};
use edge_proxy::{
    AgentEndpoint, AgentToken, Body, Edge, EdgeListenConfig, FunctionRoute, Limits, Parts,
    RouteError, Routes, SandboxRoute, Submission, SubmitError, Submitted, TrustConfig,
    VersionRoute, api_service,
};
use edge_quic::QuicSecrets;
use edge_telemetry::{LogConfig, LogTarget, Telemetry, TelemetryConfig};
use edge_tls::{Certs, TlsConfig, TlsSource};
use http::{Request, Response};
use http_body_util::Full;
use pool_model::{FunctionId, InvocationPolicy, SandboxId, TeamId};
use tokio_util::sync::CancellationToken;

/// As in the `edge` program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const DOMAIN: &str = "wrenn.localhost";

/// A table that never changes.
struct Fixed {
    functions: HashMap<String, Arc<FunctionRoute>>,
}

#[async_trait]
impl Routes for Fixed {
    fn cached_function(&self, name: &str) -> Option<Result<Arc<FunctionRoute>, RouteError>> {
        Some(self.functions.get(name).cloned().ok_or(RouteError::NotFound))
    }

    async fn function(&self, name: &str) -> Result<Arc<FunctionRoute>, RouteError> {
        self.functions.get(name).cloned().ok_or(RouteError::NotFound)
    }

    fn cached_sandbox(&self, _: SandboxId) -> Option<Result<Arc<SandboxRoute>, RouteError>> {
        Some(Err(RouteError::NotFound))
    }

    async fn sandbox(&self, _: SandboxId) -> Result<Arc<SandboxRoute>, RouteError> {
        Err(RouteError::NotFound)
    }

    fn cached_domain(&self, _: &str) -> Option<Result<Arc<str>, RouteError>> {
        Some(Err(RouteError::NotFound))
    }

    async fn domain(&self, _: &str) -> Result<Arc<str>, RouteError> {
        Err(RouteError::NotFound)
    }

    async fn team_of_key(&self, _: &str) -> Result<Option<TeamId>, RouteError> {
        Ok(None)
    }

    async fn submit(&self, _: Submission) -> Result<Submitted, SubmitError> {
        Err(SubmitError::Unavailable)
    }
}

impl Fixed {
    fn new(upstream: SocketAddr, count: usize) -> Self {
        let token = AgentToken::new("a-token-for-measurements").unwrap();
        let agents: Arc<[AgentEndpoint]> = Arc::from([AgentEndpoint { address: upstream, token }]);
        let route = |index: usize, name: String| {
            let function = FunctionId::from_u128(index as u128 + 1);
            let timeout = Duration::from_secs(30);
            let route = FunctionRoute {
                function,
                name: Arc::from(name.as_str()),
                team: TeamId::from_u128(index as u128 / 10 + 1),
                policy: Arc::new(InvocationPolicy::default()),
                signing_secret: None,
                current: VersionRoute { version: 1, pool: function, timeout },
                tags: Vec::new(),
                agents: Arc::clone(&agents),
            };
            (name, Arc::new(route))
        };
        let others = (1..count).map(|index| route(index, format!("f{index}")));
        let functions = std::iter::once(route(0, "bench".to_owned())).chain(others).collect();
        Self { functions }
    }
}

struct Args(Vec<String>);

impl Args {
    fn get<T: FromStr>(&self, flag: &str) -> Option<T> {
        let pair = self.0.chunks_exact(2).find(|pair| pair[0] == flag)?;
        Some(pair[1].parse().unwrap_or_else(|_| panic!("{flag} {}: not understood", pair[1])))
    }
}

fn main() {
    let args = Args(std::env::args().skip(1).collect());
    // What is not a worker's: the control plane's lookups, the log's writer.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(serve(&args));
}

async fn serve(args: &Args) {
    let workers = args.get("--workers").unwrap_or(1);
    let config = EdgeListenConfig {
        http: args.get("--http"),
        https: args.get("--https"),
        quic: args.get("--quic"),
        domain: DOMAIN.to_owned(),
        workers,
        trust: TrustConfig::default(),
        limits: limits(),
    };
    let file = |flag: &str| args.get::<PathBuf>(flag);
    let source = match (file("--cert"), file("--key")) {
        (Some(cert), Some(key)) => TlsSource::Files { pairs: vec![(cert, key)] },
        _ => TlsSource::LocalCa { dir: file("--ca-dir").expect("--cert and --key, or --ca-dir") },
    };
    let target = file("--log").map_or(LogTarget::Off, LogTarget::File);
    let log = LogConfig { target, sample: None };
    let (telemetry, background) =
        Telemetry::start(TelemetryConfig { workers, log, ..TelemetryConfig::default() }).unwrap();
    let upstream = args.get("--upstream").expect("--upstream HOST:PORT");
    let parts = Parts {
        routes: Arc::new(Fixed::new(upstream, args.get("--routes").unwrap_or(1))),
        api: api_service(tower::service_fn(async |_: Request<Body>| {
            Ok(Response::new(Full::new(Bytes::from_static(b"no API here"))))
        })),
        telemetry,
        challenges: None,
        certs: Some(Certs::open(TlsConfig::new(DOMAIN, source)).unwrap()),
        authenticator: Authenticator::new(JwksConfig::default()),
        quic_secrets: QuicSecrets::derive(&[7; 32]).unwrap(),
        inherited: None,
    };
    let cancel = CancellationToken::new();
    let bound = Edge::bind(config, parts).unwrap();
    println!("listening");
    let stop = cancel.clone();
    tokio::spawn(async move {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        terminate.recv().await;
        stop.cancel();
    });
    bound.run(cancel, Duration::from_millis(200)).await.unwrap();
    background.stop(Duration::from_secs(1)).await;
}

/// Those of production; only the numbers of connections are such that one address may be all clients.
fn limits() -> Limits {
    Limits {
        max_connections: 65_536,
        max_connections_per_address: 65_536,
        idle_timeout: Duration::from_secs(600),
        team_requests_per_second: 10_000_000,
        team_concurrency_max: 100_000,
        ..Limits::default()
    }
}
