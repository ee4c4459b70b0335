//! Which QEMU this is: a device state is only loaded by the version that saved it.

use std::{fmt, io, path::Path, str::FromStr, time::Duration};

use super::QemuSetupError;

/// Longest wait for `--version`.
const ASK_MAX: Duration = Duration::from_secs(10);

/// QEMU's version, e.g. `7.2.22`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QemuVersion {
    /// Raised once a year.
    pub major: u32,
    /// Raised three times a year.
    pub minor: u32,
    /// Raised with fixes.
    pub micro: u32,
}

/// The text is not what `qemu-system-x86_64 --version` prints.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected `QEMU emulator version X.Y.Z`, found `{found}`")]
pub struct ParseVersionError {
    /// The first line that was printed, cut to 80 characters.
    pub found: String,
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

impl FromStr for QemuVersion {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let first = text.lines().next().unwrap_or("");
        parse(first).ok_or_else(|| ParseVersionError { found: first.chars().take(80).collect() })
    }
}

fn parse(line: &str) -> Option<QemuVersion> {
    let word = line.strip_prefix("QEMU emulator version ")?.split_whitespace().next()?;
    let mut numbers = word.split('.').map(str::parse::<u32>);
    let mut next = || numbers.next()?.ok();
    Some(QemuVersion { major: next()?, minor: next()?, micro: next()? })
}

/// Runs the program to ask it.
pub(crate) async fn ask(binary: &Path) -> Result<QemuVersion, QemuSetupError> {
    let run = |source| QemuSetupError::Run { binary: binary.to_owned(), source };
    let output = tokio::process::Command::new(binary).arg("--version").kill_on_drop(true).output();
    let output = tokio::time::timeout(ASK_MAX, output)
        .await
        .map_err(|_| run(io::ErrorKind::TimedOut.into()))?
        .map_err(run)?;
    String::from_utf8_lossy(&output.stdout)
        .parse()
        .map_err(|source| QemuSetupError::Version { binary: binary.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_with_and_without_a_distributions_suffix() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright";
        assert_eq!(debian.parse::<QemuVersion>().unwrap().to_string(), "7.2.22");
        let plain = "QEMU emulator version 10.0.2";
        assert_eq!(plain.parse::<QemuVersion>().unwrap().to_string(), "10.0.2");
    }

    #[test]
    fn another_program_is_refused() {
        assert!("bash, version 5.2".parse::<QemuVersion>().is_err());
        assert!("QEMU emulator version seven".parse::<QemuVersion>().is_err());
        assert!("".parse::<QemuVersion>().is_err());
    }
}
