//! What can go wrong before the guest daemon runs, and how the machine then ends.

use nix::errno::Errno;
use nix::sys::reboot::{RebootMode, reboot};
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why the guest did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    /// A file of the initramfs, `/proc` or the new root could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file system could not be mounted.
    #[error("cannot mount {what} on {}", target.display())]
    Mount {
        what: String,
        target: PathBuf,
        #[source]
        source: Errno,
    },
    /// The kernel refused a module.
    #[error("cannot insert the module {}", path.display())]
    Module {
        path: PathBuf,
        #[source]
        source: Errno,
    },
    /// The two disks did not appear.
    #[error(
        "expected one read-only and one writable disk, found {read_only} and {writable} after {waited:?}"
    )]
    Disks { read_only: usize, writable: usize, waited: Duration },
    /// The network interface did not appear.
    #[error("no network interface {interface} after {waited:?}")]
    NoInterface { interface: &'static str, waited: Duration },
    /// The kernel refused one step of the network set-up.
    #[error("cannot {step} on {interface}")]
    Network {
        step: &'static str,
        interface: &'static str,
        #[source]
        source: io::Error,
    },
    /// A `wrenn.` key of the kernel command line is wrong.
    #[error("kernel command line: {key}={value:?} is not {expected}")]
    Cmdline { key: String, value: String, expected: &'static str },
    /// A step of the way into the new root was refused.
    #[error("cannot {step}")]
    Switch {
        step: &'static str,
        #[source]
        source: Errno,
    },
}

/// The error and its causes, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

/// Ends the machine: the VMM runs with `-no-reboot`, so a restart is its exit.
pub(crate) fn power_off() -> ! {
    match reboot(RebootMode::RB_AUTOBOOT) {
        Ok(never) => match never {},
        // Not allowed to restart: PID 1 that ends is a kernel panic, and `panic=-1` restarts.
        Err(_) => std::process::exit(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_with_its_cause_once() {
        let error = InitError::Mount {
            what: "/dev/vda".to_owned(),
            target: PathBuf::from("/lower"),
            source: Errno::ENODEV,
        };
        assert_eq!(chain(&error), "cannot mount /dev/vda on /lower: ENODEV: No such device");
    }
}
