//! A real pager and real clones, each a process of its own.
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    time::{Duration, Instant},
};

use pool_model::SnapshotId;
use pool_pager::{Attach, PagerClient, Population, Stats, start_ticks};
use serde::Deserialize;

/// No step of a test takes longer, however busy the machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const SNAPSHOT: SnapshotId = SnapshotId::from_u128(77);

/// A directory with a patterned memory file and a pager that serves it.
pub(crate) struct Rig {
    dir: tempfile::TempDir,
    pub(crate) bytes: usize,
    pager: Option<Child>,
    args: Vec<String>,
}

impl Rig {
    pub(crate) fn new(mib: usize) -> Self {
        Self::with_args(mib, &[])
    }

    pub(crate) fn with_args(mib: usize, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bytes = mib << 20;
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut rig = Self { dir, bytes, pager: None, args };
        let pattern = format!("pattern={}", rig.memory_file().display());
        let written = probe().args([pattern, format!("bytes={bytes}")]).status().unwrap();
        assert!(written.success());
        rig.start();
        rig
    }

    pub(crate) fn start(&mut self) {
        let log = File::options().append(true).create(true).open(self.log_file()).unwrap();
        let pager = Command::new(env!("CARGO_BIN_EXE_pager"))
            .arg("--wrenn-dir")
            .arg(self.dir.path())
            .args(&self.args)
            .stderr(log)
            .spawn()
            .unwrap();
        self.pager = Some(pager);
    }

    /// `kill -9`, or SIGTERM and its exit code.
    pub(crate) fn kill(&mut self) {
        let mut pager = self.pager.take().unwrap();
        pager.kill().unwrap();
        pager.wait().unwrap();
    }

    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let mut pager = self.pager.take().unwrap();
        let pid = rustix::process::Pid::from_child(&pager);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait(&mut pager)
    }

    pub(crate) async fn client(&self) -> PagerClient {
        PagerClient::connect(&self.socket(), DEADLINE).await.unwrap()
    }

    pub(crate) async fn stats(&self) -> Stats {
        self.client().await.stats().await.unwrap()
    }

    /// Waits until the pager serves so many clones.
    pub(crate) async fn until_clones(&self, clones: usize) {
        let client = self.client().await;
        let until = Instant::now() + DEADLINE;
        while client.stats().await.unwrap().clones.len() != clones {
            assert!(Instant::now() < until, "the pager keeps its sessions");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn clone_with(&self, options: &[&str]) -> Clone {
        self.clone_of(SNAPSHOT, options)
    }

    pub(crate) fn clone_of(&self, snapshot: SnapshotId, options: &[&str]) -> Clone {
        let mut child = probe()
            .arg(format!("socket={}", self.socket().display()))
            .arg(format!("snapshot={snapshot}"))
            .arg(format!("file={}", self.memory_file().display()))
            .arg(format!("bytes={}", self.bytes))
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (line_tx, lines) = sync_channel(64);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = line_tx.send(line);
            }
        });
        let stdin = child.stdin.take();
        let mut clone = Clone { child, lines, stdin, report: Report::default() };
        clone.report = serde_json::from_str(&clone.line()).unwrap();
        clone
    }

    pub(crate) fn attach_of(&self, clone: &Clone) -> Attach {
        let pid = i32::try_from(clone.child.id()).unwrap();
        Attach {
            snapshot: SNAPSHOT,
            pid,
            pid_start_ticks: start_ticks(pid).unwrap(),
            uffd_fd: clone.report.uffd,
            base_fd: clone.report.base,
            addr: clone.report.addr,
            len: clone.report.len,
            population: Population::Shared,
            memory_file: self.memory_file(),
        }
    }

    pub(crate) async fn base(&self) -> OwnedFd {
        let client = self.client().await;
        client.base(SNAPSHOT, &self.memory_file(), self.bytes as u64).await.unwrap()
    }

    pub(crate) fn blocks(&self) -> u64 {
        (self.bytes / (64 << 10)) as u64
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/pager.sock")
    }

    pub(crate) fn memory_file(&self) -> PathBuf {
        self.dir.path().join("memory")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("pager.log")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(mut pager) = self.pager.take() {
            let _ = pager.kill();
            let _ = pager.wait();
        }
    }
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Report {
    pub(crate) uffd: i32,
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) base: i32,
}

/// What one pass over all pages found.
#[derive(Debug, Deserialize)]
pub(crate) struct Pass {
    pub(crate) pages: u64,
    pub(crate) wrong: u64,
    pub(crate) nanos: u64,
}

/// A running clone; killed when dropped.
pub(crate) struct Clone {
    child: Child,
    lines: Receiver<String>,
    stdin: Option<ChildStdin>,
    pub(crate) report: Report,
}

impl Clone {
    fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("the clone says nothing")
    }

    /// Lets a held clone make its next pass.
    pub(crate) fn go(&mut self) {
        writeln!(self.stdin.as_ref().unwrap()).unwrap();
    }

    /// The result of its next pass.
    pub(crate) fn pass(&self) -> Pass {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Whether it has no pass to report and doesn't get one within `time`.
    pub(crate) fn is_silent_for(&self, time: Duration) -> bool {
        self.lines.recv_timeout(time).is_err()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        drop(self.stdin.take());
        wait(&mut self.child)
    }
}

impl Drop for Clone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < until, "process {} doesn't end", child.id());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn probe() -> Command {
    Command::new(env!("CARGO_BIN_EXE_pager-probe"))
}
