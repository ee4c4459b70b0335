//! Starts one process as its user, in its own session and in the user cgroup.

use std::{
    collections::BTreeMap,
    ffi::CString,
    io,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use tokio::process::Child;

use crate::{
    accounts::User,
    cgroup::UserCgroup,
    sys::{self, ChildSetup, ChildStep},
};

/// Everything about a process that is about to start.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) cmd: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) cwd: PathBuf,
    pub(crate) user: User,
    pub(crate) stdin: bool,
}

/// Why a process didn't start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    /// The words are E2B's, which clients know.
    #[error("cwd '{}' does not exist", cwd.display())]
    NoDirectory { cwd: PathBuf },
    /// The directory is there, but not for this user.
    #[error("can't enter cwd '{}'", cwd.display())]
    Directory {
        cwd: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A name, value, path or argument that no process can be given.
    #[error("environment variable '{name}' has an empty name, or holds '=' or a zero byte")]
    BadVariable { name: String },
    /// The program isn't there or can't be run.
    #[error("can't run '{cmd}'")]
    Program {
        cmd: String,
        #[source]
        source: io::Error,
    },
    /// Our own doing failed.
    #[error("can't prepare the process ({step:?})")]
    Prepare {
        step: ChildStep,
        #[source]
        source: io::Error,
    },
}

impl SpawnError {
    /// Whether the caller asked for something that can't be.
    pub(crate) const fn is_callers(&self) -> bool {
        match self {
            Self::NoDirectory { .. }
            | Self::Directory { .. }
            | Self::BadVariable { .. }
            | Self::Program { .. } => true,
            Self::Prepare { .. } => false,
        }
    }
}

/// Forks and execs. Blocks until exec has happened or failed.
pub(crate) fn spawn(launch: Launch, cgroup: &UserCgroup) -> Result<Child, SpawnError> {
    let Launch { cmd, args, env, cwd, user, stdin } = launch;
    if !cwd.is_dir() {
        return Err(SpawnError::NoDirectory { cwd });
    }
    let bad = env.iter().find(|(name, value)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    });
    if let Some((name, _)) = bad {
        return Err(SpawnError::BadVariable { name: name.clone() });
    }
    let prepare = |source| SpawnError::Prepare { step: ChildStep::Cgroup, source };
    let setup = ChildSetup {
        cgroup_procs: cgroup.procs().map_err(prepare)?,
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
        cwd: CString::new(cwd.as_os_str().as_bytes())
            .map_err(|_| SpawnError::NoDirectory { cwd: cwd.clone() })?,
    };
    let mut command = Command::new(&cmd);
    command.args(args).env_clear().envs(env);
    command.stdin(if stdin { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    sys::set_up_child(&mut command, setup);
    tokio::process::Command::from(command).spawn().map_err(|error| {
        // An error without a number is ours: a zero byte in the program's name or an argument.
        if error.raw_os_error().is_none() {
            return SpawnError::Program { cmd, source: error };
        }
        match ChildStep::decode(&error) {
            (ChildStep::Exec, source) => SpawnError::Program { cmd, source },
            (ChildStep::Directory, source) => SpawnError::Directory { cwd, source },
            (step, source) => SpawnError::Prepare { step, source },
        }
    })
}
