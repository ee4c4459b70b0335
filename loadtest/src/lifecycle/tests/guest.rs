//! A sandbox that is no machine: Wrenn's own guest daemon as a process of this one.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::Duration,
};

use http_body_util::Full;
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    process::{Child, ChildStderr},
    time::timeout,
};

use super::PATIENCE;
use crate::lifecycle::content;

/// A daemon, and all processes that were started through it.
pub(super) struct Guest {
    id: String,
    nonce: String,
    daemon: Child,
    pub(super) address: SocketAddr,
    /// Read no more, but not closed: the daemon writes to it.
    _log: BufReader<ChildStderr>,
}

impl Guest {
    /// Starts a daemon and makes it a sandbox.
    pub(super) async fn start(id: &str, nonce: &str, token: &str) -> Self {
        let mut daemon = tokio::process::Command::new(daemon())
            .args(["--listen", "127.0.0.1", "--port", "0", "--cgroup-root", "none", "--hands-off"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(daemon.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listens on") {
            line.clear();
            let read = timeout(PATIENCE, log.read_line(&mut line)).await.unwrap().unwrap();
            assert!(read > 0, "the daemon ended");
        }
        let address = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
        let (id, nonce) = (id.to_owned(), nonce.to_owned());
        let guest = Self { id, nonce, daemon, address, _log: log };
        guest.init(token).await;
        guest
    }

    async fn init(&self, token: &str) {
        let init = json!({
            "timestamp": "2026-01-01T00:00:00Z", "hostname": "sandbox", "sandboxId": self.id,
            // 32 bytes; that they are all the same does not matter here.
            "entropy": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "accessToken": token, "defaultUser": "root",
            // A sandbox's commands run in login shells: the profile of whoever tests here may do
            // anything, also wait for a lock for a minute.
            "envVars": {"HOME": "/nonexistent"},
        });
        let stream = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        let (mut sender, connection) = http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let body = Full::new(bytes::Bytes::from(init.to_string()));
        let request = Request::post("/init").header("host", "guest").body(body).unwrap();
        let answer = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
        assert_eq!(answer.status().as_u16(), 204, "the daemon took no init");
    }

    /// Sends a signal to the daemon and to all that runs in the sandbox.
    pub(super) fn signal(&self, signal: Signal) {
        let daemon = self.daemon.id().and_then(|pid| i32::try_from(pid).ok());
        for pid in daemon.into_iter().chain(processes_of(&self.id)) {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Changes the file that a life wrote.
    pub(super) fn change_file(&self) {
        fs::write(content::path(&self.nonce), "x\n").unwrap();
    }

    /// Loses the file that a life wrote.
    pub(super) fn lose_file(&self) {
        let _ = fs::remove_file(content::path(&self.nonce));
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Again, as one may have begun while the others were looked for.
        for _ in 0..500 {
            self.signal(Signal::SIGKILL);
            if processes_of(&self.id).is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.lose_file();
    }
}

/// The processes of a sandbox. The daemon gives its id to each, and nobody else has it.
pub(super) fn processes_of(id: &str) -> Vec<i32> {
    let mark = format!("E2B_SANDBOX_ID={id}");
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.ok()?.file_name();
        let pid = name.to_str()?.parse::<i32>().ok()?;
        let environment = fs::read(Path::new("/proc").join(name).join("environ")).ok()?;
        let marked = environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes());
        marked.then_some(pid)
    });
    processes.collect()
}

/// The daemon's program, which `make build` leaves beside the directory of this one.
pub(super) fn daemon() -> &'static Path {
    static DAEMON: OnceLock<PathBuf> = OnceLock::new();
    DAEMON.get_or_init(|| {
        let own = std::env::current_exe().unwrap();
        let daemon = own.ancestors().nth(2).unwrap().join("envd");
        assert!(daemon.exists(), "{} is missing: run `make build`", daemon.display());
        daemon
    })
}
