//! Puts the real root together and moves into it.
//!
//! ```text
//! base disk (ext4, ro)  -> /lower    \
//!                                     > overlay -> /newroot -> /
//! scratch disk (ext4)   -> /scratch  /
//! ```
//!
//! The overlay keeps its own references to both layers, so their mounts are detached once it stands: the sandbox sees one
//! root and no way around it.

use crate::disk::Disks;
use crate::failure::InitError;
use crate::fs::{make_dir, mount_on};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{chdir, chroot, execve, sethostname};
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where the overlay is mounted before it becomes `/`.
pub(crate) const NEW_ROOT: &str = "/newroot";
const LOWER: &str = "/lower";
const SCRATCH: &str = "/scratch";

/// Until envd is told the sandbox's name.
const HOSTNAME: &str = "wrenn";
const ENVIRONMENT: [&CStr; 4] = [
    c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    c"HOME=/root",
    c"LANG=C.UTF-8",
    c"TERM=linux",
];
/// Open files per process, soft and hard: the kernel's 1024 are too few for a server.
const FILES_MAX: (u64, u64) = (65_536, 1_048_576);

/// Mounts both disks and the overlay over them.
///
/// # Errors
///
/// If one of the three mounts is refused.
pub(crate) fn assemble(disks: &Disks) -> Result<(), InitError> {
    let (lower, scratch) = (Path::new(LOWER), Path::new(SCRATCH));
    mount_on(&disks.base, lower, "ext4", MsFlags::MS_RDONLY | MsFlags::MS_NOATIME, "")?;
    // The image was made on zeroed storage: no background thread has to write its inode tables.
    mount_on(&disks.scratch, scratch, "ext4", MsFlags::MS_NOATIME, "noinit_itable,nobarrier")?;
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    make_dir(&upper)?;
    make_dir(&work)?;
    let layers =
        format!("lowerdir={LOWER},upperdir={},workdir={}", upper.display(), work.display());
    mount_on(Path::new("overlay"), Path::new(NEW_ROOT), "overlay", MsFlags::MS_NOATIME, &layers)?;
    for layer in [lower, scratch] {
        umount2(layer, MntFlags::MNT_DETACH)
            .map_err(|source| InitError::Switch { step: "detach a layer", source })?;
    }
    Ok(())
}

/// Tells the sandbox's resolver which name server to ask, if there is one.
pub(crate) fn write_resolv_conf(dns: Option<Ipv4Addr>) -> Result<(), InitError> {
    let Some(dns) = dns else { return Ok(()) };
    let path = Path::new(NEW_ROOT).join("etc/resolv.conf");
    fs::write(&path, format!("nameserver {dns}\n")).map_err(|source| InitError::File {
        action: "write",
        path,
        source,
    })
}

/// Sets a host name until envd brings the sandbox's own.
pub(crate) fn write_hostname() -> Result<(), InitError> {
    sethostname(HOSTNAME).map_err(|source| InitError::Switch { step: "set the host name", source })
}

/// Deletes the initramfs and makes the overlay the root.
///
/// # Errors
///
/// If one of the steps is refused: then there is no way back, and the machine goes down.
pub(crate) fn switch() -> Result<(), InitError> {
    for early in ["/dev", "/proc", "/sys"] {
        umount2(early, MntFlags::MNT_DETACH)
            .map_err(|source| InitError::Switch { step: "detach the early mounts", source })?;
    }
    chdir(NEW_ROOT).map_err(|source| InitError::Switch { step: "enter the new root", source })?;
    delete_initramfs(Path::new("/"));
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(|source| InitError::Switch { step: "move the new root to /", source })?;
    chroot(".").map_err(|source| InitError::Switch { step: "change the root", source })?;
    chdir("/").map_err(|source| InitError::Switch { step: "enter /", source })
}

/// Becomes the guest's first program.
///
/// # Errors
///
/// If it isn't in the image or can't be executed; else it never returns.
pub(crate) fn hand_over(command: &[&str]) -> Result<Infallible, InitError> {
    raise_file_limit()?;
    let arguments: Vec<CString> = command
        .iter()
        .map(|word| CString::new(*word).expect("the command is a constant without zero bytes"))
        .collect();
    execve(&arguments[0], &arguments, &ENVIRONMENT).map_err(|source| InitError::File {
        action: "execute",
        path: PathBuf::from(command[0]),
        source: source.into(),
    })
}

fn raise_file_limit() -> Result<(), InitError> {
    let (soft, hard) = FILES_MAX;
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)
        .map_err(|source: Errno| InitError::Switch { step: "raise the file limit", source })
}

/// Frees the memory of the initramfs: everything on its file system, and nothing that is mounted over it.
///
/// What can't be deleted (a mount point) costs a few bytes and is left.
fn delete_initramfs(root: &Path) {
    if let Ok(metadata) = fs::symlink_metadata(root) {
        delete_below(root, metadata.dev());
    }
}

fn delete_below(dir: &Path, device: u64) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() {
            delete_below(&path, device);
            drop(fs::remove_dir(&path));
        } else {
            drop(fs::remove_file(&path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_the_initramfs_is_deleted_but_links_are_not_followed() {
        let root = std::env::temp_dir().join(format!("wrenn-init-root-{}", std::process::id()));
        let outside = root.with_extension("outside");
        fs::create_dir_all(root.join("modules")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        fs::write(root.join("modules/00-virtio.ko"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();

        delete_initramfs(&root);

        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        assert!(outside.join("kept").exists());
        fs::remove_dir_all(&root).unwrap();
        fs::remove_dir_all(&outside).unwrap();
    }
}
