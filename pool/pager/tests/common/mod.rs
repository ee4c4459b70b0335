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

use pool_model::{Prefetch, SnapshotId};
use pool_pager::{Attach, PagerClient, Population, Stats, start_ticks};
use serde::Deserialize;

/// No step of a test takes longer, however busy the machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A directory with a snapshot of patterned memory and a pager that serves it.
pub(crate) struct Rig {
    dir: tempfile::TempDir,
    pub(crate) bytes: usize,
    pub(crate) snapshot: SnapshotId,
    pub(crate) env: Vec<(&'static str, &'static str)>,
    pager: Option<Child>,
    args: Vec<String>,
}

impl Rig {
    pub(crate) fn new(mib: usize) -> Self {
        Self::with_args(mib, &[])
    }

    pub(crate) fn with_args(mib: usize, args: &[&str]) -> Self {
        let mut rig = Self::stopped(mib, args, &[]);
        rig.start();
        rig
    }

    /// One with a snapshot made with these options of the probe, whose pager is yet to be started.
    pub(crate) fn stopped(mib: usize, args: &[&str], options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bytes = mib << 20;
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let snapshot = SnapshotId::from_u128(0);
        let mut rig = Self { dir, bytes, snapshot, env: Vec::new(), pager: None, args };
        rig.snapshot = rig.make_snapshot(options);
        rig
    }

    /// Makes a further snapshot.
    pub(crate) fn make_snapshot(&self, options: &[&str]) -> SnapshotId {
        let root = format!("pattern={}", self.path().display());
        let bytes = format!("bytes={}", self.bytes);
        let made = probe().args([root, bytes]).args(options).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap().trim().parse().unwrap()
    }

    /// Gives the pager another argument from its next start on.
    pub(crate) fn add_args(&mut self, args: &[&str]) {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
    }

    pub(crate) fn start(&mut self) {
        let log = File::options().append(true).create(true).open(self.log_file()).unwrap();
        let pager = Command::new(env!("CARGO_BIN_EXE_pager"))
            .arg("--wrenn-dir")
            .arg(self.dir.path())
            .args(&self.args)
            .envs(self.env.iter().copied())
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
        self.clone_of(self.snapshot, options)
    }

    pub(crate) fn clone_of(&self, snapshot: SnapshotId, options: &[&str]) -> Clone {
        let mut clone = self.spawn(snapshot, options);
        clone.report = serde_json::from_str(&clone.line()).unwrap();
        clone
    }

    fn spawn(&self, snapshot: SnapshotId, options: &[&str]) -> Clone {
        let mut child = probe()
            .arg(format!("socket={}", self.socket().display()))
            .arg(format!("snapshot={snapshot}"))
            .arg(format!("dir={}", self.snapshot_dir(snapshot).display()))
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
        Clone { child, lines, stdin, report: Report::default() }
    }

    /// A clone that may be refused before it says anything: its exit status then.
    pub(crate) fn clone_or_status(&self, options: &[&str]) -> Result<Clone, ExitStatus> {
        let mut clone = self.spawn(self.snapshot, options);
        match clone.lines.recv_timeout(DEADLINE) {
            Ok(line) => {
                clone.report = serde_json::from_str(&line).unwrap();
                Ok(clone)
            }
            Err(_) => Err(wait(&mut clone.child)),
        }
    }

    pub(crate) fn attach_of(&self, clone: &Clone) -> Attach {
        let pid = i32::try_from(clone.child.id()).unwrap();
        Attach {
            snapshot: self.snapshot,
            pid,
            pid_start_ticks: start_ticks(pid).unwrap(),
            uffd_fd: clone.report.uffd,
            base_fd: clone.report.base,
            addr: clone.report.addr,
            len: clone.report.len,
            population: Population::Shared,
            snapshot_dir: self.snapshot_dir(self.snapshot),
        }
    }

    pub(crate) async fn base(&self) -> OwnedFd {
        let client = self.client().await;
        let (dir, bytes) = (self.snapshot_dir(self.snapshot), self.bytes as u64);
        client.base(self.snapshot, &dir, bytes, Prefetch::None).await.unwrap()
    }

    /// Windows of 64 KiB.
    pub(crate) fn windows(&self) -> u64 {
        (self.bytes / (64 << 10)) as u64
    }

    /// What memory should be.
    pub(crate) fn memory(&self) -> Vec<u8> {
        let layers = pool_store::LayerStore::new(self.path().join("layers"));
        let dir = self.snapshot_dir(self.snapshot);
        let snapshot = pool_store::Snapshot::open_at(&dir, self.snapshot).unwrap();
        let mut reader = pool_store::ImageReader::new(&layers, snapshot.map());
        let mut memory = vec![0; self.bytes];
        reader.read(0, &mut memory).unwrap();
        memory
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/pager.sock")
    }

    pub(crate) fn snapshot_dir(&self, snapshot: SnapshotId) -> PathBuf {
        self.dir.path().join("snapshots").join(snapshot.label())
    }

    /// The files of all layers whose name ends so.
    pub(crate) fn layer_files(&self, extension: &str) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.path().join("layers")).unwrap();
        let files = files.map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|its| its == extension)).collect();
        files.sort();
        files
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

    /// The result of its next pass, or how it ended instead.
    pub(crate) fn outcome(&mut self) -> Result<Pass, ExitStatus> {
        match self.lines.recv_timeout(DEADLINE) {
            Ok(line) => Ok(serde_json::from_str(&line).unwrap()),
            Err(_) => Err(wait(&mut self.child)),
        }
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
