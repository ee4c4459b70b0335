//! The binary itself.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use envd_api::Init;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::fixture::{client, init, shell};

struct Daemon {
    child: Child,
    address: SocketAddr,
    _log: BufReader<std::process::ChildStderr>,
}

impl Daemon {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_envd"))
            .args(["--listen", "127.0.0.1", "--port", "0", "--cgroup-root", "none", "--hands-off"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listens on") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the daemon ended");
        }
        let address = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
        Self { child, address, _log: log }
    }

    /// How often the daemon's own memory holds these bytes.
    fn memory_holds(&self, needle: &[u8]) -> usize {
        let pid = self.child.id();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let mut memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let mut found = 0;
        for line in maps.lines().filter(|line| line.contains(" rw")) {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let address = |text| u64::from_str_radix(text, 16).unwrap();
            let mut bytes = vec![0; usize::try_from(address(end) - address(start)).unwrap()];
            memory.seek(SeekFrom::Start(address(start))).unwrap();
            if memory.read_exact(&mut bytes).is_ok() {
                found += bytes.windows(needle.len()).filter(|window| *window == needle).count();
            }
        }
        found
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn quiesced_daemon_holds_no_secret_anywhere_in_its_memory() {
    let daemon = Daemon::start();
    let open = client(daemon.address);
    // Put together here, so that no constant of a library holds it.
    let token = ["tOkEn", "fOr", "tHiS", "tEsT", "0123456789"].concat();
    let value = ["vAlUe", "oF", "a", "vArIaBlE", "9876543210"].concat();
    let mut secret = Init { access_token: Some(token.clone()), ..init("a", 1) };
    secret.default_user = Some("root".into());
    secret.env_vars.insert("KEY".into(), value.clone());
    open.init(&secret).await.unwrap();
    let known = open.clone().with_token(&token);
    known.start(&shell("echo hello")).await.unwrap().output(10).await.unwrap();
    known.metrics().await.unwrap();
    assert!(daemon.memory_holds(token.as_bytes()) > 0, "the search finds what is there");
    known.quiesce().await.unwrap();
    for (what, secret) in [("token", &token), ("variable", &value)] {
        assert_eq!(daemon.memory_holds(secret.as_bytes()), 0, "{what} is still there");
    }
    // What comes next works with new ones.
    open.init(&init("b", 1)).await.unwrap();
    assert!(open.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn daemon_ends_well_when_it_is_told_to() {
    let mut daemon = Daemon::start();
    assert!(client(daemon.address).health().await.unwrap().version.is_some());
    let pid = Pid::from_raw(i32::try_from(daemon.child.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(daemon.child.wait().unwrap().success());
}

#[test]
fn bad_flags_are_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_envd")).args(["--port", "70000"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--port"));
}
