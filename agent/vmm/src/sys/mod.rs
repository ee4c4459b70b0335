//! The system calls that have no safe wrapper; the only `unsafe` code of this crate.
//!
//! # Invariants
//!
//! - Every pointer handed to the kernel is to a live local or to a mapping owned by a guard.
//! - Between `fork` and `exec` nothing allocates and nothing takes a lock.
//! - Nothing here decides anything: callers see ordinary `io::Result`s.
#![allow(unsafe_code)]

mod exec;
mod kvm;
mod pagemap;

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::io::{Interest, unix::AsyncFd};

pub(crate) use exec::{Confinement, confine};
pub(crate) use kvm::time_guest_loop;
#[cfg(test)]
pub(crate) use pagemap::tests as test_mapping;
pub(crate) use pagemap::{Method, OwnPages};

/// Opens a descriptor that names process `pid` for as long as it is held.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends `SIGKILL` to the process behind `pidfd`. A process that is gone is no error.
pub(crate) fn pidfd_kill(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: `pidfd` is open for the whole call; a null `info` is allowed and means "as by kill".
    let rc = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), libc::SIGKILL, no_info, 0)
    };
    match io::Error::last_os_error() {
        _ if rc == 0 => Ok(()),
        gone if gone.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}

/// Becomes readable when the process behind `pidfd` ends.
pub(crate) fn pidfd_end(pidfd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an `Arc<OwnedFd>` yields the same descriptor for all its life and keeps it open,
    // and the `AsyncFd` holds one: the descriptor cannot be closed or change while registered.
    Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?)
}

/// How fast this host's time stamp counter runs, in kHz, measured over `window`.
#[cfg(target_arch = "x86_64")]
pub(crate) fn measure_tsc_khz(window: Duration) -> u64 {
    let (start, first) = tsc_with_time();
    std::thread::sleep(window);
    let (end, last) = tsc_with_time();
    let nanos = (end - start).as_nanos().max(1);
    let ticks = u128::from(last.saturating_sub(first));
    u64::try_from(ticks * 1_000_000 / nanos).unwrap_or(0)
}

/// Reads both clocks as close together as possible: the tightest of a few tries.
#[cfg(target_arch = "x86_64")]
fn tsc_with_time() -> (Instant, u64) {
    let mut best: Option<(Duration, Instant, u64)> = None;
    for _ in 0..16 {
        let before = Instant::now();
        // SAFETY: every x86_64 processor has RDTSC, and Linux lets user mode execute it.
        let ticks = unsafe { core::arch::x86_64::_rdtsc() };
        let gap = before.elapsed();
        if best.is_none_or(|(tightest, ..)| gap < tightest) {
            best = Some((gap, before + gap / 2, ticks));
        }
    }
    let (_, at, ticks) = best.expect("the loop ran");
    (at, ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tsc_is_measured_the_same_twice() {
        let first = measure_tsc_khz(Duration::from_millis(20));
        let second = measure_tsc_khz(Duration::from_millis(20));
        assert!(first > 100_000, "{first} kHz");
        assert!(first.abs_diff(second) < first / 500, "{first} kHz, then {second} kHz");
    }

    #[test]
    fn killing_a_process_that_is_gone_is_no_error() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let pidfd = pidfd_open(pid).unwrap();
        child.wait().unwrap();
        pidfd_kill(std::os::fd::AsFd::as_fd(&pidfd)).unwrap();
    }
}
