//! Another process and the descriptors it holds, seen safely.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal},
};

/// When the process was started, in clock ticks since boot: field 22 of `/proc/{pid}/stat`.
///
/// # Errors
///
/// `NotFound` if there is no such process.
pub fn start_ticks(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_start_ticks(&stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The command's name (field 2) may hold blanks and parentheses: count from its last one.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// A process that can't be mistaken for a later one with the same pid.
#[derive(Debug)]
pub(crate) struct Process {
    pidfd: OwnedFd,
}

impl Process {
    /// Finds the process `pid` that was started at `ticks`; `None` if it is gone.
    pub(crate) fn find(pid: i32, ticks: u64) -> io::Result<Option<Self>> {
        // `from_raw` panics on negative numbers.
        let Some(raw) = Some(pid).filter(|pid| *pid > 0).and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let pidfd = match rustix::process::pidfd_open(raw, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let process = Self { pidfd };
        // In this order: as long as the pidfd's process lives, its pid is not used again, so the
        // ticks read in between were its own.
        let same = start_ticks(pid).is_ok_and(|found| found == ticks);
        Ok((same && !process.has_exited()?).then_some(process))
    }

    pub(crate) fn has_exited(&self) -> io::Result<bool> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&now))? > 0)
    }

    /// A copy of the process's descriptor `number`.
    pub(crate) fn descriptor(&self, number: i32) -> io::Result<OwnedFd> {
        Ok(rustix::process::pidfd_getfd(&self.pidfd, number, PidfdGetfdFlags::empty())?)
    }

    /// Kills it; fine if it is gone already.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// What the kernel calls the file behind one of our descriptors, e.g. `/memfd:name (deleted)`.
pub(crate) fn link_of(fd: BorrowedFd<'_>) -> io::Result<String> {
    let path = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_ticks_are_found_behind_a_hostile_command_name() {
        let stat = "7 (a) R 1 (b 1) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 10 11";
        assert_eq!(parse_start_ticks(stat), Some(987_654));
        assert_eq!(parse_start_ticks("7 (a) S 1"), None);
        assert_eq!(parse_start_ticks(""), None);
    }

    #[test]
    fn a_process_with_other_start_ticks_is_another_process() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let ticks = start_ticks(pid).unwrap();
        assert!(Process::find(pid, ticks).unwrap().is_some());
        assert!(Process::find(pid, ticks + 1).unwrap().is_none());
        assert!(Process::find(-1, ticks).unwrap().is_none());
        assert!(Process::find(0, ticks).unwrap().is_none());
    }
}
