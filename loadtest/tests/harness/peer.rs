//! The server that is tested against, and runs against it.

use std::{net::SocketAddr, path::PathBuf};

use loadtest::Runner;
use loadtest_model::{Budgets, Load, Part, Plan, Protocol, RunReport, Scenario, TargetPlan, Work};
use loadtest_server::{Server, ServerConfig};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A server and the certificate to trust.
pub(crate) struct Peer {
    server: Server,
    dir: TempDir,
}

impl Peer {
    pub(crate) async fn start() -> Self {
        let server = Server::start(ServerConfig::default()).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), server.ca_pem()).unwrap();
        Self { server, dir }
    }

    pub(crate) fn clear(&self) -> SocketAddr {
        self.server.clear_address().unwrap()
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/", self.server.tls_address().unwrap().port())
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// A plan over every protocol.
    pub(crate) fn plan(&self, scenarios: Vec<Scenario>) -> Plan {
        Plan {
            name: "test".to_owned(),
            target: TargetPlan {
                url: Some(self.url()),
                ca_file: Some(self.ca_file()),
                ..TargetPlan::default()
            },
            protocols: Protocol::ALL.to_vec(),
            rounds: 1,
            seed: 7,
            workers: 1,
            warmup_ms: 0,
            scenarios,
            chaos: Vec::new(),
            slow_proxies: Vec::new(),
        }
    }

    /// Runs one scenario over every protocol.
    pub(crate) async fn run(&self, work: Work, load: Load) -> RunReport {
        run(self.plan(vec![scenario("test", work, load)])).await
    }
}

pub(crate) async fn run(plan: Plan) -> RunReport {
    let runner = Runner::new(plan, Budgets::default()).unwrap();
    runner.run(&CancellationToken::new()).await.unwrap()
}

pub(crate) fn scenario(name: &str, work: Work, load: Load) -> Scenario {
    Scenario::new(name, work, Some(load))
}

pub(crate) const fn requests(count: u64) -> Load {
    Load::Closed { concurrency: 4, duration_ms: None, requests: Some(count) }
}

/// Each part is asked, so that a failure names its protocol.
pub(crate) fn each(report: &RunReport, check: impl Fn(&Part)) {
    assert_eq!(report.parts.len(), 3);
    for part in &report.parts {
        eprintln!("{}: {:?} {:?}", part.id(), part.errors, part.samples);
        check(part);
    }
}
