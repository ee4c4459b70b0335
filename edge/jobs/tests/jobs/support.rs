//! A queue on a database of its own, gateways that answer as told, and webhooks.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use edge_jobs::{
    Invocation, Invoke, InvokeError, Jobs, Outcome, Poster, PosterConfig, Runner, RunnerConfig,
    SIGNATURE_HEADER, SubmitError, Target,
};
use edge_store::{
    ApiKey, InvocationId, InvocationRecord, InvocationState, NewVersion, SnapshotKind,
    SnapshotRecord, Store, WebhookState,
};
use http::{HeaderMap, Request, Response, StatusCode};
use jiff::Timestamp;
use pool_model::{
    AsyncPolicy, FunctionId, InvocationPolicy, PoolPolicy, Port, SnapshotId, TeamId, TemplateId,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A database with one function, and its queue.
pub(crate) struct Bed {
    _dir: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) jobs: Jobs,
    pub(crate) team: TeamId,
    pub(crate) function: FunctionId,
}

/// Three attempts, short pauses.
pub(crate) fn policy() -> AsyncPolicy {
    AsyncPolicy { enabled: true, attempts_max: 3, backoff_ms: 20, ..AsyncPolicy::default() }
}

impl Bed {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("wrenn.db")).await.unwrap();
        let (team, function) = (TeamId::from_u128(2000), FunctionId::from_u128(2000));
        store.create_team(team, "t", &ApiKey::generate(), Timestamp::UNIX_EPOCH).await.unwrap();
        store.publish(&version(team, function)).await.unwrap();
        let jobs = Jobs::new(store.clone());
        Self { _dir: dir, store, jobs, team, function }
    }

    pub(crate) fn target(&self, policy: AsyncPolicy) -> Target {
        let (function, team) = (self.function, self.team);
        Target { function, team, name: "hello".to_owned(), tag: None, policy }
    }

    pub(crate) async fn submit(
        &self,
        policy: AsyncPolicy,
        body: &'static str,
    ) -> Result<InvocationId, SubmitError> {
        let (parts, ()) = Request::post("/in?a=b").body(()).unwrap().into_parts();
        self.jobs.submit(&self.target(policy), &parts, &Bytes::from(body)).await
    }

    pub(crate) async fn schedule(&self, policy: &str) {
        let policy: InvocationPolicy = serde_json::from_str(policy).unwrap();
        self.store.set_invocation(self.team, "hello", &policy).await.unwrap().unwrap();
    }

    /// Runs the queue by a gateway that answers its n-th request as told.
    pub(crate) fn run(&self, answer: fn(usize) -> Result<(u16, &'static str), ()>) -> Running {
        let gateway = Arc::new(Gateway {
            answer,
            seen: Arc::default(),
            most: Arc::default(),
            now: AtomicUsize::new(0),
        });
        let (seen, most) = (Arc::clone(&gateway.seen), Arc::clone(&gateway.most));
        let config = RunnerConfig {
            concurrency_max: 4,
            lease: Duration::from_secs(2),
            grace: Duration::from_millis(200),
        };
        let posts = PosterConfig {
            allow_private: true,
            timeout: Duration::from_secs(2),
            attempts_max: 3,
            pause: Duration::from_millis(20),
        };
        let stop = CancellationToken::new();
        let runner = Runner::new(&self.jobs, gateway, config).run(stop.clone());
        let poster = Poster::new(&self.jobs, Arc::new(self.store.clone()), posts);
        let poster = poster.run(stop.clone());
        Running { seen, most, stop, tasks: [tokio::spawn(runner), tokio::spawn(poster)] }
    }

    pub(crate) async fn wait_for(
        &self,
        id: InvocationId,
        state: InvocationState,
    ) -> InvocationRecord {
        self.wait(id, |record| record.state == state).await
    }

    pub(crate) async fn wait_for_post(
        &self,
        id: InvocationId,
        state: WebhookState,
    ) -> InvocationRecord {
        self.wait(id, |record| record.webhook_state == Some(state)).await
    }

    async fn wait(
        &self,
        id: InvocationId,
        good: impl Fn(&InvocationRecord) -> bool,
    ) -> InvocationRecord {
        let looking = async {
            loop {
                let record = self.store.invocation(self.team, id).await.unwrap().unwrap();
                if good(&record) {
                    return record;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.unwrap()
    }
}

/// A runner and a poster at work.
pub(crate) struct Running {
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
    pub(crate) most: Arc<AtomicUsize>,
    stop: CancellationToken,
    tasks: [JoinHandle<()>; 2],
}

impl Running {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
        }
    }

    /// As if its process was killed.
    pub(crate) fn kill(self) {
        for task in self.tasks {
            task.abort();
        }
    }
}

struct Gateway {
    answer: fn(usize) -> Result<(u16, &'static str), ()>,
    seen: Arc<Mutex<Vec<String>>>,
    most: Arc<AtomicUsize>,
    now: AtomicUsize,
}

#[async_trait]
impl Invoke for Gateway {
    async fn invoke(&self, invocation: Invocation) -> Result<Outcome, InvokeError> {
        let request = invocation.request;
        let body = String::from_utf8(request.body().to_vec()).unwrap();
        let nth = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(format!("{} {} {body}", request.method(), request.uri()));
            seen.len()
        };
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let first = request.headers()["wrenn-attempt"] == "1";
        match body.as_str() {
            "panic" => panic!("poison"),
            "hang" if first => std::future::pending().await,
            "slow" => tokio::time::sleep(Duration::from_millis(20)).await,
            _ => {}
        }
        self.now.fetch_sub(1, Ordering::SeqCst);
        let (status, body) = (self.answer)(nth).map_err(|()| InvokeError {
            reason: "nobody there".to_owned(),
            retryable: true,
            retry_after: None,
        })?;
        let response = Response::builder().status(status).body(Bytes::from(body)).unwrap();
        Ok(Outcome { response, truncated: false })
    }
}

/// A webhook that answers its n-th post (from 0) with a status; 0: not at all.
pub(crate) struct Hook {
    address: std::net::SocketAddr,
    pub(crate) seen: Arc<Mutex<Vec<(String, Bytes)>>>,
}

impl Hook {
    pub(crate) async fn start(status: fn(usize) -> u16) -> Self {
        let seen: Arc<Mutex<Vec<(String, Bytes)>>> = Arc::default();
        let posts = Arc::clone(&seen);
        let handler = move |headers: HeaderMap, body: Bytes| {
            let posts = Arc::clone(&posts);
            async move {
                let nth = {
                    let mut posts = posts.lock().unwrap();
                    let signature = headers[SIGNATURE_HEADER].to_str().unwrap().to_owned();
                    posts.push((signature, body));
                    posts.len() - 1
                };
                match status(nth) {
                    0 => std::future::pending().await,
                    status => {
                        let status = StatusCode::from_u16(status).unwrap();
                        (status, [("location", "http://127.0.0.1:1/")])
                    }
                }
            }
        };
        let app = axum::Router::new().route("/hook", axum::routing::post(handler));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }
}

fn version(team: TeamId, id: FunctionId) -> NewVersion {
    NewVersion {
        id,
        team,
        name: "hello".to_owned(),
        template: TemplateId::DEFAULT,
        snapshot: SnapshotRecord {
            id: SnapshotId::from_u128(2000),
            team,
            kind: SnapshotKind::Function,
            name: None,
            sandbox: None,
            template: TemplateId::DEFAULT,
            memory_bytes: 256 << 20,
            stored_bytes: 1 << 20,
            created_at: Timestamp::UNIX_EPOCH,
        },
        port: Port::try_from(8080).unwrap(),
        start: "./run".to_owned(),
        ready_path: "/".to_owned(),
        timeout_ms: 30_000,
        internet: true,
        policy: PoolPolicy::default(),
        invocation: InvocationPolicy::default(),
        tag: None,
        promote: true,
        spare: FunctionId::from_u128(3000),
        at: Timestamp::UNIX_EPOCH,
    }
}
