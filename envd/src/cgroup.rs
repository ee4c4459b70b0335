//! The control group that all user processes live in, so that they freeze together.
//!
//! # Limits
//!
//! Freezing waits 5 s for the last process, asking every 5 ms.

use std::{
    fs::{self, OpenOptions},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// How long the kernel may take to stop every process.
const FREEZE_DEADLINE: Duration = Duration::from_secs(5);

/// How often we look whether it has; two writes and reads of a few bytes each.
const FREEZE_POLL: Duration = Duration::from_millis(5);

/// Why the user processes could not be frozen or thawed.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The group could not be made when the daemon started.
    #[error("there is no cgroup to freeze: {reason}")]
    NoCgroup {
        /// Why.
        reason: String,
    },
    /// A control file could not be used.
    #[error("can't use {}", path.display())]
    Control {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Some process did not stop.
    #[error("some process did not stop within {waited:?}")]
    StillRunning {
        /// How long we waited.
        waited: Duration,
    },
}

/// The cgroup of all user processes.
#[derive(Debug)]
pub enum UserCgroup {
    /// `user` under a cgroup v2 mount.
    At(PathBuf),
    /// None was asked for: processes stay where the daemon is, and freezing does nothing.
    Off,
    /// One was asked for and could not be made: processes run, but freezing fails.
    Broken {
        /// Why.
        reason: String,
    },
}

impl UserCgroup {
    /// Makes the group `user` below `root`, a directory of a cgroup v2 mount.
    #[must_use]
    pub fn create(root: &Path) -> Self {
        let dir = root.join("user");
        let made = match fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        };
        // The file exists in a cgroup v2 only, so this also tells a v1 mount or a plain directory.
        match made.and_then(|()| OpenOptions::new().write(true).open(dir.join("cgroup.freeze"))) {
            Ok(_) => Self::At(dir),
            Err(error) => {
                let reason = format!("{} is no cgroup v2 of ours: {error}", dir.display());
                tracing::error!("user processes can't be frozen: {reason}");
                Self::Broken { reason }
            }
        }
    }

    /// What a child writes itself to.
    pub(crate) fn procs(&self) -> io::Result<Option<OwnedFd>> {
        match self {
            Self::At(dir) => {
                let procs = OpenOptions::new().write(true).open(dir.join("cgroup.procs"))?;
                Ok(Some(procs.into()))
            }
            Self::Off | Self::Broken { .. } => Ok(None),
        }
    }

    /// Stops every user process; after an error they run as before.
    ///
    /// # Errors
    ///
    /// [`FreezeError`].
    pub async fn freeze(&self) -> Result<(), FreezeError> {
        let Some(dir) = self.dir()? else { return Ok(()) };
        control(&dir.join("cgroup.freeze"), |path| fs::write(path, "1"))?;
        let started = Instant::now();
        loop {
            let events = control(&dir.join("cgroup.events"), |path| fs::read_to_string(path))?;
            if events.lines().any(|line| line == "frozen 1") {
                return Ok(());
            }
            if started.elapsed() > FREEZE_DEADLINE {
                self.thaw()?;
                return Err(FreezeError::StillRunning { waited: FREEZE_DEADLINE });
            }
            sleep(FREEZE_POLL).await;
        }
    }

    /// Lets every user process run on.
    ///
    /// # Errors
    ///
    /// [`FreezeError`].
    pub fn thaw(&self) -> Result<(), FreezeError> {
        let Some(dir) = self.dir()? else { return Ok(()) };
        control(&dir.join("cgroup.freeze"), |path| fs::write(path, "0"))
    }

    fn dir(&self) -> Result<Option<&Path>, FreezeError> {
        match self {
            Self::At(dir) => Ok(Some(dir)),
            Self::Off => {
                tracing::warn!("user processes are not frozen: there is no cgroup");
                Ok(None)
            }
            Self::Broken { reason } => Err(FreezeError::NoCgroup { reason: reason.clone() }),
        }
    }
}

fn control<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, FreezeError> {
    act(path).map_err(|source| FreezeError::Control { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn directory_that_is_no_cgroup_is_broken_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let group = UserCgroup::create(dir.path());
        let error = group.freeze().await.unwrap_err();
        assert!(error.to_string().contains("no cgroup v2 of ours"), "{error}");
        assert!(group.procs().unwrap().is_none(), "processes still start");
    }
}
