//! The edge as a process: how it starts, what it leaves on disk, how it ends.

#![allow(clippy::unwrap_used, reason = "fixtures may fail loudly")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const WAIT: Duration = Duration::from_secs(30);

#[test]
fn first_start_makes_a_key_that_opens_the_api_and_the_second_keeps_it() {
    let mut edge = Edge::start();
    let key_file = pool_config::Layout::new(edge.dir.path()).api_key_file();
    assert_eq!(fs::metadata(&key_file).unwrap().permissions().mode() & 0o777, 0o600);
    let key = fs::read_to_string(&key_file).unwrap();
    assert_eq!(edge.api("/v1/functions", key.trim()).0, 200);
    assert_eq!(edge.api("/v1/functions", "wrenn_0").0, 401);
    let (status, health) = edge.api("/healthz", "");
    assert_eq!(status, 200);
    assert!(health.contains("\"agent_reachable\":false"), "{health}");

    assert!(edge.stop().success(), "SIGTERM is an orderly end");
    edge.launch();
    assert_eq!(fs::read_to_string(&key_file).unwrap(), key);
    assert_eq!(edge.api("/v1/functions", key.trim()).0, 200);
}

#[test]
fn unknown_hosts_functions_and_capsules_are_told_apart() {
    let edge = Edge::start();
    let label = "0".repeat(25);
    for (host, status, code) in [
        ("nothing.fn.wrenn.localhost".to_owned(), 404, "function_not_found"),
        (format!("8000-{label}.wrenn.localhost"), 404, "sandbox_not_found"),
        (format!("0-{label}.wrenn.localhost"), 400, "bad_port"),
        (format!("65536-{label}.wrenn.localhost"), 400, "bad_port"),
        ("elsewhere.example".to_owned(), 404, "unknown_host"),
    ] {
        let (got, body) = get(edge.http, &host, "/", "");
        assert_eq!(got, status, "{host}: {body}");
        assert!(body.contains(code), "{host}: {body}");
    }
}

#[test]
fn admin_listener_has_health_and_metrics() {
    let edge = Edge::start();
    let (status, metrics) = get(edge.admin, "localhost", "/metrics", "");
    assert_eq!(status, 200);
    assert!(metrics.contains("wrenn_edge_functions 0\n"), "{metrics}");
    assert_eq!(get(edge.admin, "localhost", "/healthz", "").0, 200);
    let pid = fs::read_to_string(edge.dir.path().join("run/edge.pid")).unwrap();
    assert_eq!(pid.trim(), edge.child.as_ref().unwrap().id().to_string());
}

#[test]
fn a_second_edge_on_the_same_directory_is_refused() {
    let edge = Edge::start();
    let output = edge.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("already runs"));
}

#[test]
fn bad_settings_end_with_status_64_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_edge"))
        .env_clear()
        .args(["--wrenn-dir".as_ref(), dir.path().as_os_str()])
        .args(["--http-listen", "nowhere", "--drain-ms", "soon"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(report.contains("http_listen") && report.contains("drain_ms"), "{report}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A running edge without an agent.
struct Edge {
    dir: tempfile::TempDir,
    http: SocketAddr,
    admin: SocketAddr,
    child: Option<Child>,
}

impl Edge {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("secrets")).unwrap();
        fs::write(dir.path().join("secrets/agent_token"), "test-token\n").unwrap();
        let mut edge = Self { dir, http: free_port(), admin: free_port(), child: None };
        edge.launch();
        edge
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge"));
        let token: PathBuf = self.dir.path().join("secrets/agent_token");
        command
            .env_clear()
            .arg("--wrenn-dir")
            .arg(self.dir.path())
            .arg("--agent-token-file")
            .arg(token)
            .args(["--http-listen", &self.http.to_string()])
            .args(["--admin-listen", &self.admin.to_string()])
            .args(["--https-listen", "", "--quic-listen", "", "--drain-ms", "2000"])
            .args(["--agent-rpc", &free_port().to_string()])
            .stderr(Stdio::piped());
        command
    }

    /// Starts it and returns once it says that it serves.
    fn launch(&mut self) {
        let mut child = self.command().spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let serving = lines.by_ref().map_while(Result::ok).any(|line| line.contains("serving"));
        assert!(serving, "it ended before it served");
        std::thread::spawn(move || lines.for_each(drop)); // ends with the child
        self.child = Some(child);
    }

    fn stop(&mut self) -> std::process::ExitStatus {
        let child = self.child.as_mut().unwrap();
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let deadline = Instant::now() + WAIT;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().unwrap() {
                self.child = None;
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        panic!("it did not stop within {WAIT:?}: {status}");
    }

    fn api(&self, path: &str, key: &str) -> (u16, String) {
        get(self.http, "api.wrenn.localhost", path, key)
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn get(address: SocketAddr, host: &str, path: &str, key: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let close = "connection: close";
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nx-api-key: {key}\r\n{close}\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
