//! Which directories may be filled: those of a small file system of its own.
//!
//! # Invariants
//!
//! - The directory is checked again each time, through the handle that is then used.
//! - Nothing is filled that the system stands on: its own directories, or the memory (a tmpfs may
//!   take half of what is available).

mod ballast;

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

pub(crate) use ballast::Ballast;
use loadtest_model::Fault;
use rustix::fs::{CWD, Mode, OFlags};

/// `statfs` names a tmpfs so.
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// Nothing that holds one of these is filled.
const SYSTEM_DIRS: [&str; 15] = [
    "/", "/boot", "/dev", "/dev/shm", "/etc", "/home", "/opt", "/root", "/run", "/srv", "/tmp",
    "/usr", "/var", "/var/lib", "/var/tmp",
];

/// Why a disk can't be filled.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A step failed.
    #[error("cannot {step} {}", dir.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// Where.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is part of a larger file system.
    #[error("{} is no mount point; expected one with a file system of its own", dir.display())]
    NotAMount {
        /// The directory.
        dir: PathBuf,
    },
    /// The system itself stands on it.
    #[error("the file system of {} also holds {system}; expected one of its own", dir.display())]
    System {
        /// The directory.
        dir: PathBuf,
        /// What else is there.
        system: &'static str,
    },
    /// It is nothing that can be filled, or too much.
    #[error("{} has {found_mib} MiB; expected 1 to {max_mib}", dir.display())]
    Size {
        /// The directory.
        dir: PathBuf,
        /// Its size.
        found_mib: u64,
        /// Most that may be filled.
        max_mib: u64,
    },
    /// It would take the machine's memory.
    #[error(
        "{} is in memory and has {free_mib} MiB free; expected at most {max_mib}, half of the \
         memory that is available", dir.display()
    )]
    Memory {
        /// The directory.
        dir: PathBuf,
        /// What would be filled.
        free_mib: u64,
        /// Most that may be.
        max_mib: u64,
    },
    /// It took more than it has, or gives it to others.
    #[error("{} still has {free_kib} KiB free; expected {leave_kib}", dir.display())]
    NotFull {
        /// The directory.
        dir: PathBuf,
        /// What is free.
        free_kib: u64,
        /// What was to be left.
        leave_kib: u64,
    },
    /// The run ended meanwhile.
    #[error("the run ended before {} was full", dir.display())]
    Stopped {
        /// The directory.
        dir: PathBuf,
    },
}

/// A directory that may be filled.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
    handle: OwnedFd,
}

impl Disk {
    /// Opens a directory and checks that it may be filled.
    pub(crate) fn open(dir: &Path) -> Result<Self, DiskError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(CWD, dir, flags, Mode::empty());
        let handle = handle.map_err(|errno| io_error("open", dir, errno.into()))?;
        let disk = Self { dir: dir.to_owned(), handle };
        disk.refuse_shared()?;
        disk.refuse_large()?;
        Ok(disk)
    }

    fn refuse_shared(&self) -> Result<(), DiskError> {
        let stat = |path: &Path| fs::metadata(path).map_err(|error| self.io("look at", error));
        let own = rustix::fs::fstat(&self.handle).map_err(|e| self.io("look at", e.into()))?.st_dev;
        // By its own path, not by a link's.
        let real = self.dir.canonicalize().map_err(|error| self.io("look at", error))?;
        let Some(parent) = real.parent() else {
            return Err(DiskError::System { dir: self.dir.clone(), system: "/" });
        };
        let system = SYSTEM_DIRS
            .into_iter()
            .find(|system| fs::metadata(system).is_ok_and(|found| found.dev() == own));
        if stat(parent)?.dev() == own {
            return Err(DiskError::NotAMount { dir: self.dir.clone() });
        }
        match system {
            Some(system) => Err(DiskError::System { dir: self.dir.clone(), system }),
            None => Ok(()),
        }
    }

    fn refuse_large(&self) -> Result<(), DiskError> {
        let found = self.statvfs()?;
        let found_mib = found.f_blocks.saturating_mul(found.f_frsize.max(1)) >> 20;
        if found_mib == 0 || found_mib > Fault::DISK_MAX_MIB {
            let (dir, max_mib) = (self.dir.clone(), Fault::DISK_MAX_MIB);
            return Err(DiskError::Size { dir, found_mib, max_mib });
        }
        let kind = rustix::fs::fstatfs(&self.handle).map_err(|e| self.io("look at", e.into()))?;
        if kind.f_type != TMPFS_MAGIC {
            return Ok(());
        }
        let (free_mib, max_mib) = (self.free()?.1 >> 20, memory_available_mib() / 2);
        if free_mib > max_mib {
            return Err(DiskError::Memory { dir: self.dir.clone(), free_mib, max_mib });
        }
        Ok(())
    }

    /// Size of a block and bytes that are free for a privileged target.
    fn free(&self) -> Result<(u64, u64), DiskError> {
        let found = self.statvfs()?;
        let block = found.f_frsize.max(1);
        Ok((block, found.f_bfree.saturating_mul(block)))
    }

    /// Bytes that are free for any other.
    fn free_to_others(&self) -> Result<u64, DiskError> {
        let found = self.statvfs()?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn statvfs(&self) -> Result<rustix::fs::StatVfs, DiskError> {
        rustix::fs::fstatvfs(&self.handle).map_err(|errno| self.io("look at", errno.into()))
    }

    fn io(&self, step: &'static str, source: io::Error) -> DiskError {
        io_error(step, &self.dir, source)
    }
}

fn io_error(step: &'static str, dir: &Path, source: io::Error) -> DiskError {
    DiskError::Io { step, dir: dir.to_owned(), source }
}

/// 0 if it isn't said: then nothing in memory is filled.
fn memory_available_mib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}

#[cfg(test)]
pub(super) mod tests {
    use std::process::Command;

    use super::*;

    /// A file system of its own; unmounted when dropped.
    pub(in crate::disk) struct Mounted(pub(in crate::disk) tempfile::TempDir);

    impl Mounted {
        pub(in crate::disk) fn new(options: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut mount = Command::new("mount");
            let status = mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path());
            assert!(status.status().unwrap().success(), "these tests need root");
            Self(dir)
        }

        pub(in crate::disk) fn open(&self) -> Result<Disk, DiskError> {
            Disk::open(self.0.path())
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        }
    }

    #[test]
    fn only_small_file_systems_of_their_own_may_be_filled() {
        let plain = tempfile::tempdir().unwrap();
        let error = Disk::open(plain.path()).unwrap_err();
        assert!(matches!(error, DiskError::NotAMount { .. }), "{error}");
        let inner = Mounted::new("size=1m");
        fs::create_dir(inner.0.path().join("dir")).unwrap();
        let error = Disk::open(&inner.0.path().join("dir")).unwrap_err();
        assert!(matches!(error, DiskError::NotAMount { .. }), "{error}");
        for dir in ["/", "/dev", "/dev/shm"] {
            assert!(Disk::open(Path::new(dir)).is_err(), "{dir}");
        }
        let large = Mounted::new("size=100g").open().unwrap_err();
        assert!(matches!(large, DiskError::Size { found_mib: 102_400, .. }), "{large}");
        let memory = Mounted::new("size=60g").open().unwrap_err();
        assert!(matches!(memory, DiskError::Memory { .. }), "{memory}");
        let missing = Disk::open(Path::new("/nonexistent")).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent"), "{missing}");
    }

    #[test]
    fn part_of_the_system_mounted_elsewhere_is_refused() {
        let outer = Mounted::new("size=1m");
        let (inside, dir) =
            (outer.0.path().join("bound"), tempfile::tempdir_in("/var/tmp").unwrap());
        fs::create_dir(&inside).unwrap();
        let bind = Command::new("mount").arg("--bind").args([dir.path(), &inside]).status();
        assert!(bind.unwrap().success());
        let error = Disk::open(&inside).unwrap_err();
        let unbound = Command::new("umount").arg("--lazy").arg(&inside).status();
        assert!(unbound.unwrap().success());
        assert!(matches!(error, DiskError::System { .. }), "{error}");
    }
}
