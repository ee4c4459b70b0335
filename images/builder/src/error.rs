//! Why a build ended without its outputs.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why images could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Device nodes and file ownership need root.
    #[error("building images needs root (device nodes, file ownership)")]
    NotRoot,
    /// Another build has held the lock for too long.
    #[error("another build has held {} for {waited:?}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long this build waited.
        waited: Duration,
    },
    /// A program that the build needs isn't installed.
    #[error("{tool} is not installed: apt-get install {package}")]
    ToolMissing {
        /// The program.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program ended with an error.
    #[error("{tool} failed to {step} ({status}): {output}")]
    Tool {
        /// The program.
        tool: &'static str,
        /// What it was run for.
        step: &'static str,
        /// How it ended.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// A program didn't end.
    #[error("{tool} did not {step} within {waited:?}")]
    ToolDeadline {
        /// The program.
        tool: &'static str,
        /// What it was run for.
        step: &'static str,
        /// How long it ran.
        waited: Duration,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The host's apt knows no archive of the release that templates are made of.
    #[error(
        "the apt sources of this host have no `deb` entry for {suite} with component main: add one \
         (signed by the Debian archive's key) and try again"
    )]
    NoArchive {
        /// The release.
        suite: &'static str,
    },
    /// What apt said about a package isn't understood.
    #[error("apt described {package} in an unexpected way: {problem}")]
    Package {
        /// The package.
        package: String,
        /// What was wrong.
        problem: String,
    },
    /// A file isn't what it should be.
    #[error("{} is not usable: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        problem: String,
    },
}

impl BuildError {
    /// For `map_err`: names what was tried on which file.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// A file that was read but has wrong contents.
    pub(crate) fn malformed(path: impl Into<PathBuf>, problem: impl ToString) -> Self {
        Self::Malformed { path: path.into(), problem: problem.to_string() }
    }
}
