//! What a VMM's process gives up between `fork` and `exec`.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        stat::{Mode, umask},
    },
    unistd::{Gid, Uid, setgroups, setresgid, setresuid, setsid, write},
};

/// Who the process becomes and what it keeps.
#[derive(Debug)]
pub(crate) struct Confinement {
    /// Its user: real, effective and saved.
    pub(crate) uid: u32,
    /// Its group: real, effective and saved, with no supplementary ones.
    pub(crate) gid: u32,
    /// Its network namespace; a new one if there is none.
    pub(crate) netns: Option<OwnedFd>,
    /// Opened `cgroup.procs` files that it writes itself into.
    pub(crate) cgroups: Vec<File>,
    /// Descriptors that stay open across `exec`, at the numbers they have here.
    pub(crate) inherited: Vec<OwnedFd>,
    /// How many descriptors it may have open.
    pub(crate) open_files_max: u64,
}

/// Makes `command` run its program under `confinement`.
pub(crate) fn confine(command: &mut Command, confinement: Confinement) {
    let enter = move || confinement.enter();
    // SAFETY: `enter` makes only system calls on values that were made before the fork: it
    // allocates nothing, takes no lock and cannot panic, so it is async-signal-safe.
    unsafe { command.pre_exec(enter) };
}

impl Confinement {
    /// Runs in the child. The order matters: what needs root comes before the user changes.
    fn enter(&self) -> io::Result<()> {
        setsid()?;
        umask(Mode::from_bits_truncate(0o077));
        for cgroup in &self.cgroups {
            // `0` is the writing process itself.
            write(cgroup.as_fd(), b"0")?;
        }
        match &self.netns {
            Some(netns) => setns(netns, CloneFlags::CLONE_NEWNET)?,
            None => unshare(CloneFlags::CLONE_NEWNET)?,
        }
        close_all_on_exec()?;
        for fd in &self.inherited {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        setrlimit(Resource::RLIMIT_NOFILE, self.open_files_max, self.open_files_max)?;
        setgroups(&[])?;
        let (gid, uid) = (Gid::from_raw(self.gid), Uid::from_raw(self.uid));
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        prctl::set_no_new_privs()?;
        Ok(())
    }
}

/// Marks every descriptor above stderr to be closed by `exec`, whoever had opened it.
///
/// They are not closed here: one of them is how the standard library reports a failed `exec`.
fn close_all_on_exec() -> io::Result<()> {
    // SAFETY: takes three integers and touches no memory of ours.
    let rc =
        unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
