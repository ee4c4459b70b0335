//! How is the real edge started, asked, replaced and ended?
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use edge_store::{ApiKey, NewVersion, SnapshotKind, SnapshotRecord, Store};
use jiff::Timestamp;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pool_config::Layout;
use pool_model::{FunctionId, InvocationPolicy, PoolPolicy, Port, SnapshotId, TeamId, TemplateId};
use tokio::runtime::Runtime;

use crate::{
    guest::{Agent, TOKEN},
    tools::{bin_dir, free_port, until},
};

/// The host of the only function.
pub(crate) const HOST: &str = "hello.fn.wrenn.localhost";

/// A running edge with an agent behind it; both end with this value.
pub(crate) struct Edge {
    pub(crate) http: SocketAddr,
    /// TLS over TCP, and QUIC.
    pub(crate) https: SocketAddr,
    admin: SocketAddr,
    dir: tempfile::TempDir,
    extra: Vec<String>,
    agent: Agent,
    child: Option<Child>,
    _runtime: Runtime,
}

impl Edge {
    pub(crate) fn start() -> Self {
        let mut edge = Self::prepare();
        edge.launch();
        edge
    }

    /// Everything but the process.
    pub(crate) fn prepare() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let agent = runtime.block_on(Agent::start());
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        fs::create_dir_all(layout.secrets_dir()).unwrap();
        fs::write(layout.agent_token_file(), TOKEN).unwrap();
        runtime.block_on(records(&layout));
        Self {
            http: free_port(),
            https: free_port(),
            admin: free_port(),
            dir,
            extra: Vec::new(),
            agent,
            child: None,
            _runtime: runtime,
        }
    }

    /// More settings for the next process.
    pub(crate) fn add(&mut self, settings: &[&str]) {
        self.extra.extend(settings.iter().copied().map(str::to_owned));
    }

    pub(crate) fn command(&self) -> Command {
        let log = fs::File::options().create(true).append(true).open(self.path("edge.log"));
        let mut command = Command::new(bin_dir().join("edge"));
        command
            .env_clear()
            .args(["--wrenn-dir".as_ref(), self.dir.path().as_os_str()])
            .args(["--http-listen", &self.http.to_string()])
            .args(["--https-listen", &self.https.to_string()])
            .args(["--quic-listen", &self.https.to_string()])
            .args(["--admin-listen", &self.admin.to_string()])
            .args(["--agent-rpc", &self.agent.rpc.to_string()])
            .args(["--agent-proxy", &self.agent.proxy.to_string()])
            .args(["--access-log", "off", "--workers", "2"])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap());
        command
    }

    /// Starts it and waits until it serves.
    pub(crate) fn launch(&mut self) {
        let before = self.log().matches("serving").count();
        self.child = Some(self.command().spawn().expect("the edge is built beside the tests"));
        until("the edge serves", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert_eq!(ended, None, "{}", self.log());
            (self.log().matches("serving").count() > before).then_some(())
        });
    }

    /// The process that was started first, even if another one serves by now.
    pub(crate) fn child(&mut self) -> &mut Child {
        self.child.as_mut().unwrap()
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let status = until("the edge ends", || self.child().try_wait().unwrap());
        self.child = None;
        status
    }

    /// The process that serves.
    pub(crate) fn pid(&self) -> Pid {
        let file = Layout::new(self.dir.path()).pid_file("edge");
        until("a pid file", || {
            Some(Pid::from_raw(fs::read_to_string(&file).ok()?.trim().parse().ok()?))
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("edge.log")).unwrap_or_default()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        Layout::new(self.dir.path()).ca_file()
    }

    /// A URL of the function over TLS or QUIC.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{HOST}:{}{path}", self.https.port())
    }

    /// The value of all series of a metric whose line has `label`, added up.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let metrics = self.admin("/metrics");
        let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// What the admin listener answers.
    pub(crate) fn admin(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(crate::tools::WAIT)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Memory of its own, bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("the edge's log:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        // A successor is nobody's child here.
        let file = Layout::new(self.dir.path()).pid_file("edge");
        if let Some(pid) = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL); // it may have ended
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A team with a function, as a deploy leaves them.
async fn records(layout: &Layout) {
    let store = Store::open(&layout.database_file()).await.unwrap();
    let (team, at) = (TeamId::from_u128(1), Timestamp::now());
    let key = ApiKey::generate();
    fs::write(layout.api_key_file(), key.expose()).unwrap();
    store.create_team(team, "outside", &key, at).await.unwrap();
    let snapshot = SnapshotRecord {
        id: SnapshotId::from_u128(10),
        team,
        kind: SnapshotKind::Function,
        name: None,
        sandbox: None,
        template: TemplateId::DEFAULT,
        memory_bytes: 256 << 20,
        stored_bytes: 1 << 20,
        created_at: at,
    };
    let version = NewVersion {
        id: FunctionId::from_u128(7),
        team,
        name: "hello".to_owned(),
        template: TemplateId::DEFAULT,
        snapshot,
        port: Port::try_from(8080).unwrap(),
        start: "./run".to_owned(),
        ready_path: "/".to_owned(),
        timeout_ms: 60_000,
        internet: false,
        policy: PoolPolicy::default(),
        invocation: InvocationPolicy::default(),
        tag: None,
        promote: true,
        spare: FunctionId::from_u128(1007),
        at,
    };
    store.publish(&version).await.unwrap();
    store.close().await;
}
