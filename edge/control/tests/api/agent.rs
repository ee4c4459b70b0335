//! An agent without machines: the real service over a real socket, its state open to the tests.

mod service;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicU64},
};

use agent_api::v1::{self, __buffa::oneof::exec_event::Event, AgentExt as _};
use connectrpc::{ConnectError, ConnectRpcService, Limits, Response, Router, ServiceResult};
use pool_model::{ErrorCode, SandboxId};
use tokio::{net::TcpListener, sync::watch};

/// What the agent has, and how it is to behave.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) sandboxes: HashMap<String, v1::Sandbox>,
    pub(crate) snapshots: HashMap<String, v1::Snapshot>,
    pub(crate) pools: HashMap<String, v1::Pool>,
    /// How every pool is.
    pub(crate) stats: v1::PoolStats,
    pub(crate) prewarmed: Vec<v1::PrewarmPoolRequest>,
    pub(crate) created: Vec<v1::CreateSandboxRequest>,
    pub(crate) extracted: Vec<v1::ExtractArchiveRequest>,
    pub(crate) execs: Vec<v1::ExecRequest>,
    /// What a command says after it started.
    pub(crate) output: Vec<Event>,
    pub(crate) ready: v1::WaitReadyResponse,
    /// Calls that fail, by name.
    pub(crate) failing: HashMap<&'static str, ErrorCode>,
    /// Calls that do their work and never answer.
    pub(crate) hanging: HashSet<&'static str>,
    /// Snapshots that are in use: deleting one is refused.
    pub(crate) busy_snapshots: HashSet<String>,
}

#[derive(Clone)]
pub(crate) struct FakeAgent {
    pub(crate) rpc: SocketAddr,
    service: Service,
}

#[derive(Clone)]
struct Service {
    state: Arc<Mutex<State>>,
    /// The name of the call that was made last.
    called: watch::Sender<&'static str>,
    serial: Arc<AtomicU64>,
}

impl FakeAgent {
    /// Serves on a port of its own until the runtime it was started on ends.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rpc = listener.local_addr().unwrap();
        let ready = v1::WaitReadyResponse { ready: true, ..Default::default() };
        let stats = v1::PoolStats { warm: 2, lease_wait_us_p50: 1500, ..Default::default() };
        let service = Service {
            state: Arc::new(Mutex::new(State { ready, stats, ..State::default() })),
            called: watch::Sender::new(""),
            serial: Arc::default(),
        };
        let router = Arc::new(service.clone()).register(Router::new());
        let limits = Limits::default()
            .with_max_request_body_size(agent_api::MESSAGE_BYTES_MAX)
            .with_max_message_size(agent_api::MESSAGE_BYTES_MAX);
        let connect = ConnectRpcService::new(router).with_limits(limits);
        let app = axum::Router::new().fallback_service(connect);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { rpc, service }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.service.state.lock().unwrap()
    }

    pub(crate) fn fail(&self, call: &'static str, code: ErrorCode) {
        self.state().failing.insert(call, code);
    }

    pub(crate) fn hang(&self, call: &'static str) {
        self.state().hanging.insert(call);
    }

    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.failing.clear();
        state.hanging.clear();
        state.busy_snapshots.clear();
    }

    /// Returns once `call` was made (bounded by the test's own deadline).
    pub(crate) async fn called(&self, call: &'static str) {
        let mut calls = self.service.called.subscribe();
        let seen = calls.wait_for(|last| *last == call);
        tokio::time::timeout(std::time::Duration::from_secs(20), seen).await.unwrap().unwrap();
    }

    /// How many sandboxes, snapshots and pools it has.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.sandboxes.len(), state.snapshots.len(), state.pools.len())
    }
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn check(&self, call: &'static str) -> Result<(), ConnectError> {
        match self.state().failing.get(call) {
            Some(code) => Err(agent_api::error::to_rpc(*code, format!("{call} is told to fail"))),
            None => Ok(()),
        }
    }

    /// Says that the call's work is done; a hanging one never gets further.
    async fn done(&self, call: &'static str) {
        self.called.send_replace(call);
        let hangs = self.state().hanging.contains(call);
        if hangs {
            std::future::pending::<()>().await;
        }
    }

    fn find(&self, id: &str) -> Result<v1::Sandbox, ConnectError> {
        let found = self.state().sandboxes.get(id).cloned();
        found.ok_or_else(|| agent_api::error::to_rpc(ErrorCode::SandboxNotFound, "no such sandbox"))
    }

    fn find_pool(&self, id: &str) -> Result<v1::PoolResponse, ConnectError> {
        let state = self.state();
        let pool = state.pools.get(id).cloned().ok_or_else(|| gone(ErrorCode::FunctionNotFound))?;
        let stats = state.stats.clone();
        Ok(v1::PoolResponse { pool: pool.into(), stats: stats.into(), ..Default::default() })
    }

    /// Changes a sandbox and answers with it.
    fn change(
        &self,
        id: &str,
        change: impl FnOnce(&mut v1::Sandbox),
    ) -> ServiceResult<v1::SandboxResponse> {
        let mut sandbox = self.find(id)?;
        change(&mut sandbox);
        self.state().sandboxes.insert(id.to_owned(), sandbox.clone());
        Response::ok(v1::SandboxResponse { sandbox: sandbox.into(), ..Default::default() })
    }
}

fn gone(code: ErrorCode) -> ConnectError {
    agent_api::error::to_rpc(code, "no such thing")
}

/// The id of the only sandbox.
pub(crate) fn only_sandbox(agent: &FakeAgent) -> SandboxId {
    let state = agent.state();
    assert_eq!(state.sandboxes.len(), 1);
    state.sandboxes.keys().next().unwrap().parse().unwrap()
}
