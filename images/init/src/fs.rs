//! Mounts the kernel's file systems: first for init itself, then for the root that the sandbox sees.

use crate::failure::InitError;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::path::{Path, PathBuf};

/// One file system of the kernel and where it belongs.
struct System {
    kind: &'static str,
    target: &'static str,
    options: &'static str,
    flags: MsFlags,
}

const NO_SUID: MsFlags = MsFlags::MS_NOSUID;
const INERT: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// What init needs before it can look for modules and disks.
const EARLY: [System; 3] = [
    System { kind: "devtmpfs", target: "/dev", options: "mode=0755", flags: NO_SUID },
    System { kind: "proc", target: "/proc", options: "", flags: INERT },
    System { kind: "sysfs", target: "/sys", options: "", flags: INERT },
];

/// What the sandbox sees. `/tmp` stays on the scratch disk: guests are small, and a tmpfs there would be their memory.
const SYSTEM: [System; 7] = [
    System { kind: "devtmpfs", target: "dev", options: "mode=0755", flags: NO_SUID },
    System {
        kind: "devpts",
        target: "dev/pts",
        options: "gid=5,mode=620,ptmxmode=666",
        flags: INERT,
    },
    System { kind: "tmpfs", target: "dev/shm", options: "mode=1777", flags: INERT },
    System { kind: "proc", target: "proc", options: "", flags: INERT },
    System { kind: "sysfs", target: "sys", options: "", flags: INERT },
    System { kind: "cgroup2", target: "sys/fs/cgroup", options: "", flags: INERT },
    System { kind: "tmpfs", target: "run", options: "mode=0755", flags: NO_SUID },
];

/// Links that programs expect in `/dev` and that devtmpfs doesn't make.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
    ("pts/ptmx", "dev/ptmx"),
];

/// Mounts `/dev`, `/proc` and `/sys` of the initramfs.
///
/// # Errors
///
/// If the kernel refuses one of them.
pub(crate) fn mount_early() -> Result<(), InitError> {
    EARLY.iter().try_for_each(|system| mount_one(system, Path::new("/")))
}

/// Mounts everything that a running system has under `root`.
///
/// # Errors
///
/// If the kernel refuses one of them, or the root has no place for it.
pub(crate) fn mount_system(root: &str) -> Result<(), InitError> {
    let root = Path::new(root);
    SYSTEM.iter().try_for_each(|system| mount_one(system, root))?;
    make_dir(&root.join("run/lock"))?;
    for (target, link) in LINKS {
        let path = root.join(link);
        // devtmpfs is one file system for the whole machine and brings its own `ptmx` node.
        drop(fs::remove_file(&path));
        std::os::unix::fs::symlink(target, &path).map_err(|source| InitError::File {
            action: "link",
            path,
            source,
        })?;
    }
    Ok(())
}

/// Makes a directory unless it is there.
pub(crate) fn make_dir(path: &Path) -> Result<(), InitError> {
    fs::create_dir_all(path).map_err(|source| InitError::File {
        action: "make",
        path: path.to_owned(),
        source,
    })
}

/// Mounts `source` on `target`, which is made if missing.
pub(crate) fn mount_on(
    source: &Path,
    target: &Path,
    kind: &str,
    flags: MsFlags,
    options: &str,
) -> Result<(), InitError> {
    make_dir(target)?;
    mount(Some(source), target, Some(kind), flags, Some(options)).map_err(|error| {
        InitError::Mount {
            what: format!("{} ({kind})", source.display()),
            target: target.to_owned(),
            source: error,
        }
    })
}

fn mount_one(system: &System, root: &Path) -> Result<(), InitError> {
    let target: PathBuf = root.join(system.target);
    mount_on(Path::new(system.kind), &target, system.kind, system.flags, system.options)
}
