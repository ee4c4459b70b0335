//! One VMM process: watched, killed and told apart from a later one with the same id.
//!
//! # Invariants
//!
//! - Signals go through a pidfd that was opened while the process was known to be ours.
//! - A child is reaped as soon as it ends, even if nobody holds its [`Process`] any more.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use tokio::sync::watch;

use crate::{record::Exit, sys};

/// A running process, ours or taken over.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pid: i32,
    start_ticks: u64,
    pidfd: Arc<OwnedFd>,
    exit_rx: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// Watches a child that was just spawned and has not been waited for.
    pub(crate) fn of_child(pid: i32) -> io::Result<Self> {
        let pidfd = sys::pidfd_open(pid)?;
        Self::watch(pid, start_ticks(pid)?, pidfd)
    }

    /// Watches the process `pid` if it is the one that started at `expected_ticks`.
    pub(crate) fn find(pid: i32, expected_ticks: u64) -> io::Result<Option<Self>> {
        let pidfd = match sys::pidfd_open(pid) {
            Ok(pidfd) => pidfd,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Read after the pidfd was opened: what is read now is about the process it names.
        match start_ticks(pid) {
            Ok(ticks) if ticks == expected_ticks => Self::watch(pid, ticks, pidfd).map(Some),
            Ok(_) => Ok(None),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn watch(pid: i32, start_ticks: u64, pidfd: OwnedFd) -> io::Result<Self> {
        let pidfd = Arc::new(pidfd);
        let (exit_tx, exit_rx) = watch::channel(None);
        let ends = sys::pidfd_end(Arc::clone(&pidfd))?;
        // Lives exactly as long as the process does, so that no child stays a zombie.
        tokio::spawn(async move {
            if let Err(error) = ends.readable().await {
                tracing::error!(pid, %error, "cannot watch a vmm");
            }
            exit_tx.send_replace(Some(reap(ends.get_ref())));
        });
        Ok(Self { pid, start_ticks, pidfd, exit_rx })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    pub(crate) fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// Resolves when it has ended and, as a child, is reaped. Cancel-safe.
    pub(crate) async fn exited(&self) -> Exit {
        let mut exit_rx = self.exit_rx.clone();
        let exit = exit_rx.wait_for(Option::is_some).await;
        // The sender is dropped unsent only when the runtime shuts down.
        exit.ok().and_then(|exit| *exit).unwrap_or(Exit::Unknown)
    }

    /// Sends `SIGKILL` and does not wait.
    pub(crate) fn send_kill(&self) -> io::Result<()> {
        sys::pidfd_kill(self.pidfd.as_fd())
    }

    /// Kills it and waits until it is gone. `false` if it is not within `max`.
    pub(crate) async fn kill(&self, max: Duration) -> io::Result<bool> {
        self.send_kill()?;
        Ok(tokio::time::timeout(max, self.exited()).await.is_ok())
    }

    /// What it executes.
    pub(crate) fn program(&self) -> io::Result<PathBuf> {
        std::fs::read_link(format!("/proc/{}/exe", self.pid))
    }
}

/// Kills the process unless [`Unfinished::finish`] was reached: a start that failed or was
/// cancelled leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Unfinished(Option<Process>);

impl Unfinished {
    pub(crate) fn new(process: Process) -> Self {
        Self(Some(process))
    }

    pub(crate) fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(process) = self.0.take()
            && let Err(error) = process.send_kill()
        {
            tracing::error!(pid = process.pid, %error, "cannot kill a vmm that did not start");
        }
    }
}

/// Field 22 of `/proc/<pid>/stat`. The second field is a name that may hold anything but `)`
/// at its end, so counting starts after the last parenthesis.
pub(crate) fn start_ticks(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_start_ticks(&stat).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has no field 22"))
    })
}

fn parse_start_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn reap(pidfd: &OwnedFd) -> Exit {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    match waitid(Id::PIDFd(pidfd.as_fd()), flags) {
        Ok(WaitStatus::Exited(_, code)) => Exit::Code(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Exit::Signal(signal as i32),
        _ => Exit::Unknown,
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        assert_eq!(parse_start_ticks(stat), Some(12345));
    }

    #[tokio::test]
    #[expect(clippy::zombie_processes, reason = "the watcher reaps it, which is the claim")]
    async fn end_of_a_child_is_seen_and_reaped() {
        let child = Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = Process::of_child(pid).unwrap();
        assert_eq!(process.exited().await, Exit::Code(3));
        assert!(start_ticks(pid).is_err(), "no zombie is left");
    }

    #[tokio::test]
    async fn process_with_another_start_time_is_not_found() {
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let ticks = start_ticks(pid).unwrap();
        assert!(Process::find(pid, ticks + 1).unwrap().is_none());
        let found = Process::find(pid, ticks).unwrap().unwrap();
        assert!(found.kill(Duration::from_secs(5)).await.unwrap());
        assert_eq!(found.exited().await, Exit::Signal(libc::SIGKILL));
        let _ = child.wait();
        assert!(Process::find(pid, ticks).unwrap().is_none());
    }
}
