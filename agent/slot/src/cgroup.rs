//! Control groups of slots: memory and process limits, and the list of who is to be killed.
//!
//! ```text
//! v2: /sys/fs/cgroup/wrenn-<tag>/<index>
//! v1: /sys/fs/cgroup/memory/wrenn-<tag>/<index>  and  /sys/fs/cgroup/pids/wrenn-<tag>/<index>
//! ```
//!
//! # Invariants
//!
//! - Killing goes by pidfd and only after a second look at the group, so that a reused pid is safe.
//! - Everything is idempotent: half-made groups are made whole or removed.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::time::Instant;

use crate::config::{Limits, SlotIndex};
use crate::sys;

/// Where the hierarchies are mounted.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";
/// How long killed processes may take to be gone: freeing gigabytes on a busy host takes seconds.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at a group that is not empty yet.
const PAUSE: Duration = Duration::from_millis(2);

/// The installation's groups.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    version: Version,
    root: PathBuf,
    /// Our directory in each hierarchy.
    parents: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Cgroups {
    /// Finds out which version `root` has; `None` if neither has both controllers.
    pub(crate) fn detect(root: &Path, name: &str) -> Option<Self> {
        let unified = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let has = |wanted| unified.split_whitespace().any(|controller| controller == wanted);
        let (version, hierarchies) = if has("memory") && has("pids") {
            (Version::Two, vec![root.to_owned()])
        } else {
            (Version::One, vec![root.join("memory"), root.join("pids")])
        };
        if !hierarchies.iter().all(|hierarchy| hierarchy.join("cgroup.procs").exists()) {
            return None;
        }
        let parents = hierarchies.iter().map(|hierarchy| hierarchy.join(name)).collect();
        Some(Self { version, root: root.to_owned(), parents })
    }

    /// Makes the parents of the slots' groups.
    pub(crate) fn setup(&self) -> io::Result<()> {
        for parent in &self.parents {
            make_dir(parent)?;
        }
        if self.version == Version::Two {
            for group in std::iter::once(&self.root).chain(&self.parents) {
                fs::write(group.join("cgroup.subtree_control"), "+memory +pids")?;
            }
        }
        Ok(())
    }

    /// Removes the parents; slots must be gone.
    pub(crate) fn teardown(&self) -> io::Result<()> {
        self.parents.iter().try_for_each(|parent| remove_dir(parent))
    }

    /// Makes a slot's groups.
    pub(crate) fn create(&self, index: SlotIndex) -> io::Result<()> {
        self.of(index).try_for_each(|group| make_dir(&group))
    }

    /// Writes a slot's limits. `memory_bytes` is what the whole group may use.
    pub(crate) fn set_limits(&self, index: SlotIndex, limits: Limits) -> io::Result<()> {
        let (memory, pids) = (limits.memory_bytes.to_string(), limits.pids.to_string());
        let groups: Vec<_> = self.of(index).collect();
        match (self.version, groups.as_slice()) {
            (Version::Two, [group]) => {
                fs::write(group.join("memory.max"), memory)?;
                write_if_there(&group.join("memory.swap.max"), "0")?;
                write_if_there(&group.join("memory.oom.group"), "1")?;
                fs::write(group.join("pids.max"), pids)
            }
            (Version::One, [memory_group, pids_group]) => {
                // With swap may never be below without, so it is lifted first, then lowered.
                write_if_there(&memory_group.join("memory.memsw.limit_in_bytes"), "-1")?;
                fs::write(memory_group.join("memory.limit_in_bytes"), &memory)?;
                write_if_there(&memory_group.join("memory.memsw.limit_in_bytes"), &memory)?;
                fs::write(pids_group.join("pids.max"), pids)
            }
            _ => Err(io::Error::other("cgroup hierarchies do not match their version")),
        }
    }

    /// The files into which a process writes its pid to join the slot.
    pub(crate) fn procs(&self, index: SlotIndex) -> Vec<PathBuf> {
        self.of(index).map(|group| group.join("cgroup.procs")).collect()
    }

    /// Kills every process of a slot and waits until they are gone. Returns how many are left.
    pub(crate) fn kill(&self, index: SlotIndex) -> io::Result<usize> {
        let deadline = Instant::now() + KILL_TIMEOUT;
        loop {
            let pids = self.pids(index)?;
            if pids.is_empty() || Instant::now() >= deadline {
                return Ok(pids.len());
            }
            let dying: Vec<OwnedFd> = pids
                .iter()
                .filter_map(|pid| self.kill_member(index, *pid).transpose())
                .collect::<io::Result<_>>()?;
            for pidfd in dying {
                wait_for_end(&pidfd, deadline)?;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Kills `pid` if it is (still) a member.
    fn kill_member(&self, index: SlotIndex, pid: i32) -> io::Result<Option<OwnedFd>> {
        let gone = |error: &io::Error| error.raw_os_error() == Some(libc::ESRCH);
        let pidfd = match sys::pidfd_open(pid) {
            // `EINVAL`: a thread's id, in a v1 hierarchy with mixed threads; its leader is listed.
            Err(error) if gone(&error) || error.raw_os_error() == Some(libc::EINVAL) => {
                return Ok(None);
            }
            other => other?,
        };
        // The descriptor holds the process, so if the group lists the pid now, it is this one.
        if !self.pids(index)?.contains(&pid) {
            return Ok(None);
        }
        match sys::pidfd_kill(pidfd.as_fd()) {
            Err(error) if !gone(&error) => Err(error),
            _ => Ok(Some(pidfd)),
        }
    }

    fn pids(&self, index: SlotIndex) -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        for procs in self.procs(index) {
            match fs::read_to_string(procs) {
                // 0 is a process of another pid namespace: not ours to see, nor to kill.
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        pids.retain(|pid| *pid > 0);
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Removes a slot's groups; processes must be gone.
    pub(crate) fn remove(&self, index: SlotIndex) -> io::Result<()> {
        self.of(index).try_for_each(|group| remove_dir(&group))
    }

    /// Slots that have a group, even a half-made one.
    pub(crate) fn existing(&self) -> io::Result<Vec<SlotIndex>> {
        let mut found = Vec::new();
        for parent in &self.parents {
            let entries = match fs::read_dir(parent) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            for entry in entries {
                found.extend(
                    entry?.file_name().to_str().and_then(|name| name.parse::<SlotIndex>().ok()),
                );
            }
        }
        Ok(found)
    }

    fn of(&self, index: SlotIndex) -> impl Iterator<Item = PathBuf> {
        self.parents.iter().map(move |parent| parent.join(index.to_string()))
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn wait_for_end(pidfd: &OwnedFd, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).map_err(io::Error::other)?;
    poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout)?;
    Ok(())
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// A group whose last process has just ended may be busy for a moment.
fn remove_dir(path: &Path) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
            {
                thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

fn write_if_there(path: &Path, value: &str) -> io::Result<()> {
    if path.exists() { fs::write(path, value) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain files in the layout of a version 2 hierarchy: the machines this is built on have
    /// version 1, which the tests with real slots use.
    #[test]
    fn version_2_gets_one_group_with_its_own_file_names() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        assert!(Cgroups::detect(root.path(), "wrenn-ab12").is_none(), "neither version");
        fs::write(path("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        fs::write(path("cgroup.procs"), "").unwrap();
        let cgroups = Cgroups::detect(root.path(), "wrenn-ab12").unwrap();
        cgroups.setup().unwrap();
        let index = SlotIndex::new(7).unwrap();
        cgroups.create(index).unwrap();
        fs::write(path("wrenn-ab12/7/memory.swap.max"), "max").unwrap();
        cgroups.set_limits(index, Limits { memory_bytes: 1 << 28, pids: 9 }).unwrap();

        for (name, expected) in [
            ("cgroup.subtree_control", "+memory +pids"),
            ("wrenn-ab12/cgroup.subtree_control", "+memory +pids"),
            ("wrenn-ab12/7/memory.max", "268435456"),
            ("wrenn-ab12/7/memory.swap.max", "0"),
            ("wrenn-ab12/7/pids.max", "9"),
        ] {
            assert_eq!(fs::read_to_string(path(name)).unwrap(), expected, "{name}");
        }
        assert_eq!(cgroups.procs(index), [path("wrenn-ab12/7/cgroup.procs")]);
        assert_eq!(cgroups.existing().unwrap(), [index]);
    }
}
