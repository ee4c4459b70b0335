//! What an init changes outside this process: clock, random generator, host name.
//!
//! A seam, so that tests on a host that isn't theirs can watch what would be changed.

use std::{fmt, fs, fs::OpenOptions, io, io::Write as _, path::PathBuf};

use jiff::Timestamp;
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};

use crate::sys;

/// The machine around this process.
pub trait System: fmt::Debug + Send + Sync + 'static {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Sets the wall clock.
    ///
    /// # Errors
    ///
    /// What the system said, usually that it isn't allowed.
    fn set_clock(&self, to: Timestamp) -> io::Result<()>;

    /// Mixes in entropy, credits it, and makes the generator start over from it.
    ///
    /// # Errors
    ///
    /// What the system said, usually that it isn't allowed.
    fn add_entropy(&self, bytes: &[u8]) -> io::Result<()>;

    /// Sets the host name.
    ///
    /// # Errors
    ///
    /// What the system said, usually that it isn't allowed.
    fn set_hostname(&self, name: &str) -> io::Result<()>;
}

/// The Linux that we run on.
#[derive(Debug)]
pub struct Linux {
    etc: PathBuf,
}

impl Default for Linux {
    fn default() -> Self {
        Self { etc: "/etc".into() }
    }
}

impl System for Linux {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn set_clock(&self, to: Timestamp) -> io::Result<()> {
        let time = TimeSpec::new(to.as_second(), to.subsec_nanosecond().into());
        Ok(clock_settime(ClockId::CLOCK_REALTIME, time)?)
    }

    fn add_entropy(&self, bytes: &[u8]) -> io::Result<()> {
        let random = OpenOptions::new().write(true).open("/dev/urandom")?;
        sys::add_entropy(&random, bytes)?;
        sys::reseed(&random)
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        nix::unistd::sethostname(name)?;
        // For programs that read the files; the kernel's name is what counts.
        let noted = fs::write(self.etc.join("hostname"), format!("{name}\n"))
            .and_then(|()| self.add_host(name));
        if let Err(error) = noted {
            tracing::warn!("host name is set but not noted in {}: {error}", self.etc.display());
        }
        Ok(())
    }
}

impl Linux {
    /// Makes the name resolve to this machine, as `sudo` and others expect.
    fn add_host(&self, name: &str) -> io::Result<()> {
        let path = self.etc.join("hosts");
        let hosts = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        match hosts_with(&hosts, name) {
            Some(changed) => fs::File::create(&path)?.write_all(changed.as_bytes()),
            None => Ok(()),
        }
    }
}

/// `/etc/hosts` with our line for `name` and without those of earlier names.
fn hosts_with(hosts: &str, name: &str) -> Option<String> {
    /// Debian's address for a machine's own name.
    const OWN: &str = "127.0.1.1";
    let line = format!("{OWN} {name}");
    let of_others = |l: &&str| l.split_whitespace().next() != Some(OWN);
    let mut lines: Vec<&str> = hosts.lines().filter(of_others).collect();
    lines.push(&line);
    let changed = lines.join("\n") + "\n";
    (changed != hosts).then_some(changed)
}

/// A machine that isn't ours: its clock and name stay as they are, and that is logged.
#[derive(Debug, Default)]
pub struct HandsOff(Linux);

impl System for HandsOff {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn set_clock(&self, to: Timestamp) -> io::Result<()> {
        tracing::info!("clock stays as it is, asked for {to}");
        Ok(())
    }

    fn add_entropy(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.add_entropy(bytes)
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        tracing::info!("host name stays as it is, asked for {name}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_name_replaces_earlier_ones_in_hosts() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 old\n::1 localhost\n";
        let changed = hosts_with(hosts, "new").unwrap();
        assert_eq!(changed, "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 new\n");
        assert_eq!(hosts_with(&changed, "new"), None);
        assert_eq!(hosts_with("", "new").unwrap(), "127.0.1.1 new\n");
    }

    #[test]
    fn entropy_is_accepted_by_a_real_kernel() {
        // Needs root, like everything that this crate does in earnest.
        Linux::default().add_entropy(&[0x5a; 32]).unwrap();
    }
}
