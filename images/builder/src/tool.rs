//! Runs the distribution's own programs: bounded, with their output kept for the error.

use crate::error::BuildError;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What any tool but the bootstrap gets.
const DEADLINE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(5);
/// How much of a failed tool's output an error carries.
const OUTPUT_MAX: u64 = 2000;

/// A program of the distribution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    /// Its name in `PATH`.
    pub(crate) name: &'static str,
    /// The Debian package that has it.
    pub(crate) package: &'static str,
}

pub(crate) const APT_CACHE: Tool = Tool { name: "apt-cache", package: "apt" };
pub(crate) const APT_CONFIG: Tool = Tool { name: "apt-config", package: "apt" };
pub(crate) const APT_GET: Tool = Tool { name: "apt-get", package: "apt" };
pub(crate) const CP: Tool = Tool { name: "cp", package: "coreutils" };
pub(crate) const DEBUGFS: Tool = Tool { name: "debugfs", package: "e2fsprogs" };
pub(crate) const DPKG_DEB: Tool = Tool { name: "dpkg-deb", package: "dpkg" };
pub(crate) const E2FSCK: Tool = Tool { name: "e2fsck", package: "e2fsprogs" };
pub(crate) const MKE2FS: Tool = Tool { name: "mke2fs", package: "e2fsprogs" };
pub(crate) const MMDEBSTRAP: Tool = Tool { name: "mmdebstrap", package: "mmdebstrap" };
pub(crate) const SETPRIV: Tool = Tool { name: "setpriv", package: "util-linux" };
pub(crate) const TIMEOUT: Tool = Tool { name: "timeout", package: "coreutils" };
pub(crate) const UNSHARE: Tool = Tool { name: "unshare", package: "util-linux" };

impl Tool {
    /// Fails early and clearly if the program isn't there.
    pub(crate) fn require(self) -> Result<(), BuildError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let there = std::env::split_paths(&path).any(|dir| dir.join(self.name).is_file());
        if there { Ok(()) } else { Err(self.missing()) }
    }

    /// Prepares a run.
    pub(crate) fn run(self, step: &'static str) -> Run {
        let mut command = Command::new(self.name);
        // Messages are compared and shown: in one language, whatever the user's is.
        command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        Run { tool: self, step, command, deadline: DEADLINE }
    }

    fn missing(self) -> BuildError {
        BuildError::ToolMissing { tool: self.name, package: self.package }
    }
}

/// One run of a tool.
#[derive(Debug)]
pub(crate) struct Run {
    tool: Tool,
    step: &'static str,
    command: Command,
    deadline: Duration,
}

impl Run {
    /// Adds an argument.
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs in this directory.
    pub(crate) fn within(mut self, directory: &std::path::Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Gives it another deadline.
    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs to a good end and returns what it wrote to its standard output.
    ///
    /// # Errors
    ///
    /// If it can't be started, ends badly, or doesn't end in time (then it and its children are killed).
    pub(crate) fn output(mut self) -> Result<String, BuildError> {
        let failed = |source| BuildError::File {
            action: "collect the output of",
            path: self.tool.name.into(),
            source,
        };
        let mut stdout = tempfile::tempfile().map_err(failed)?;
        let mut stderr = tempfile::tempfile().map_err(failed)?;
        self.command
            .stdout(stdout.try_clone().map_err(failed)?)
            .stderr(stderr.try_clone().map_err(failed)?)
            .process_group(0);
        let mut child = self.command.spawn().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => self.tool.missing(),
            _ => BuildError::File { action: "run", path: self.tool.name.into(), source },
        })?;
        let status = self.wait(&mut child)?;
        let text = read_tail(&mut stdout, u64::MAX).map_err(failed)?;
        if status.success() {
            return Ok(text);
        }
        let mut output = read_tail(&mut stderr, OUTPUT_MAX).map_err(failed)?;
        if output.trim().is_empty() {
            output = text;
        }
        Err(BuildError::Tool {
            tool: self.tool.name,
            step: self.step,
            status: status.to_string(),
            output: output.trim().to_owned(),
        })
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus, BuildError> {
        let start = Instant::now();
        let failed =
            |source| BuildError::File { action: "wait for", path: self.tool.name.into(), source };
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Ok(status);
            }
            if start.elapsed() > self.deadline {
                kill_group(child);
                child.wait().map_err(failed)?;
                return Err(BuildError::ToolDeadline {
                    tool: self.tool.name,
                    step: self.step,
                    waited: self.deadline,
                });
            }
            thread::sleep(POLL);
        }
    }
}

/// Kills the child, which leads a process group of its own, and everything it started in it.
fn kill_group(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let group = nix::unistd::Pid::from_raw(pid);
        // It may have ended meanwhile: then there is nothing to kill.
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    }
}

/// The last `max` bytes of a file.
fn read_tail(file: &mut File, max: u64) -> std::io::Result<String> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(max)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SH: Tool = Tool { name: "sh", package: "dash" };

    #[test]
    fn a_missing_tool_is_told_with_its_package() {
        let tool = Tool { name: "wrenn-no-such-tool", package: "wrenn-tools" };
        for error in [tool.require().unwrap_err(), tool.run("test").output().unwrap_err()] {
            let message = error.to_string();
            assert_eq!(message, "wrenn-no-such-tool is not installed: apt-get install wrenn-tools");
        }
    }

    #[test]
    fn a_failure_carries_what_the_tool_wrote() {
        let run = SH.run("fail").args(["-c", "echo out; echo because >&2; exit 3"]);
        let message = run.output().unwrap_err().to_string();
        assert_eq!(message, "sh failed to fail (exit status: 3): because");
    }

    #[test]
    fn a_tool_that_hangs_is_killed_with_its_children() {
        let start = Instant::now();
        let run = SH.run("end").args(["-c", "sleep 60 & wait"]);
        let error = run.deadline(Duration::from_millis(100)).output().unwrap_err();
        assert!(matches!(error, BuildError::ToolDeadline { tool: "sh", .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn output_is_returned_whole() {
        assert_eq!(SH.run("print").args(["-c", "seq 3"]).output().unwrap(), "1\n2\n3\n");
    }
}
