//! How is an outside program run, so that it ends in time and tells what it had to say?
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{
    fs::File,
    io::Read as _,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// Longest life of one program.
pub(crate) const WAIT: Duration = Duration::from_secs(60);
/// How often something is looked at that tells nobody of its change.
const POLL: Duration = Duration::from_millis(20);

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Its standard output if it ended well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(self.status.success(), "{}\n{}\n{}", self.status, self.out, self.err);
        self.out
    }
}

/// A program in a process group of its own, which ends with this value.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    out: File,
    err: File,
}

impl Program {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let (out, err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(err.try_clone().unwrap())
            .process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, out, err }
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(self) -> Said {
        self.end_within(WAIT)
    }

    #[track_caller]
    fn end_within(mut self, wait: Duration) -> Said {
        let deadline = Instant::now() + wait;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() >= deadline {
                let (out, err) = self.so_far();
                panic!("not done within {wait:?}\n{out}\n{err}");
            }
            std::thread::sleep(POLL);
        };
        let (out, err) = self.so_far();
        Said { status, out, err }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        killpg(self.group(), signal).unwrap();
    }

    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Standard output and error so far.
    pub(crate) fn so_far(&self) -> (String, String) {
        (read(&self.out), read(&self.err))
    }

    /// Waits until its output has `text`.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) {
        let deadline = Instant::now() + WAIT;
        loop {
            // In this order: what is said at the very end is seen.
            let ended = self.child.try_wait().unwrap();
            let (out, err) = self.so_far();
            if out.contains(text) {
                return;
            }
            assert!(ended.is_none() && Instant::now() < deadline, "no {text:?}\n{out}\n{err}");
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = killpg(self.group(), Signal::SIGKILL); // it may have ended
        let _ = self.child.wait();
    }
}

/// All that was written, by an offset of our own: the program writes at the shared one.
fn read(file: &File) -> String {
    let mut bytes = Vec::new();
    let mut copy = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    copy.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs it to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Said {
    Program::spawn(command).end()
}

/// Runs it to its end, which may take longer than usual.
#[track_caller]
pub(crate) fn run_within(command: &mut Command, wait: Duration) -> Said {
    Program::spawn(command).end_within(wait)
}

/// A script of `loadtest/clients`.
pub(crate) fn script(name: &str) -> Command {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let mut command = Command::new(clients.join("python.sh"));
    // The packages are beside the build that this program is of.
    let target = bin_dir().parent().unwrap().to_owned();
    command.arg(clients.join(name)).env("CARGO_TARGET_DIR", target);
    command
}

/// The directory with the programs of the build: beside our own, one up from `deps/`.
pub(crate) fn bin_dir() -> PathBuf {
    std::env::var_os("WRENN_BIN_DIR").map_or_else(
        || std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned(),
        PathBuf::from,
    )
}

/// Polls until there is something.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {WAIT:?}");
        std::thread::sleep(POLL);
    }
}

/// A port that is free for TCP and for UDP.
pub(crate) fn free_port() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
