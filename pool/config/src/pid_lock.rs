//! One process of a kind per installation: its pid file, locked for as long as it lives.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    path::PathBuf,
};

use crate::Layout;

/// Why a process may not run.
#[derive(Debug, thiserror::Error)]
pub enum PidLockError {
    /// Another one runs on the same directory.
    #[error("{name} {pid} already runs on {}", root.display())]
    Held {
        /// Which kind of process.
        name: String,
        /// The other one's id, as its pid file says.
        pid: String,
        /// The installation.
        root: PathBuf,
    },
    /// The file cannot be used.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The pid file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Layout {
    /// Locks the pid file of `name` and writes this process's id into it. The lock is gone with
    /// the file that is returned, or with the process.
    ///
    /// # Errors
    ///
    /// [`PidLockError::Held`] if another process has it.
    pub fn lock_pid_file(&self, name: &str) -> Result<File, PidLockError> {
        let path = self.pid_file(name);
        let io = |source| PidLockError::Io { path: path.clone(), source };
        fs::create_dir_all(self.run_dir()).map_err(io)?;
        let mut options = File::options();
        options.create(true).read(true).write(true).truncate(false);
        let mut file = options.open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).map_err(io)?;
                let (name, pid) = (name.to_owned(), pid.trim().to_owned());
                return Err(PidLockError::Held { name, pid, root: self.root().to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        file.set_len(0).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(file)
    }
}
