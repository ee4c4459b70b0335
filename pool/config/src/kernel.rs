//! Which guest kernel is used: the latest semver wins over one without a version.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use semver::Version;

/// A guest kernel and the initramfs that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// `None` for the plain `vmlinux`.
    pub version: Option<Version>,
    /// The uncompressed ELF.
    pub vmlinux: PathBuf,
    /// The initramfs built for this kernel's modules.
    pub initramfs: PathBuf,
}

/// Why there is no kernel to boot.
#[derive(Debug, thiserror::Error)]
pub enum NoKernel {
    /// The directory has neither `vmlinux-{semver}` nor `vmlinux`.
    #[error("no kernel in {}: expected vmlinux-<semver> or vmlinux", dir.display())]
    Absent {
        /// The directory that was searched.
        dir: PathBuf,
    },
    /// This version isn't there.
    #[error("no kernel {version} in {}", dir.display())]
    UnknownVersion {
        /// The directory that was searched.
        dir: PathBuf,
        /// The version asked for.
        version: String,
    },
    /// The kernel is there, its initramfs is not.
    #[error("kernel {} has no initramfs {}", vmlinux.display(), initramfs.display())]
    NoInitramfs {
        /// The kernel found.
        vmlinux: PathBuf,
        /// The file that is missing.
        initramfs: PathBuf,
    },
    /// The directory could not be read.
    #[error("kernels directory {} can't be read", dir.display())]
    Unreadable {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The newest kernel in `dir`.
pub(crate) fn latest(dir: &Path) -> Result<Kernel, NoKernel> {
    // `None < Some(_)`: any version wins over the file without one.
    let newest = versions(dir)?.into_iter().max();
    complete(dir, newest.ok_or_else(|| NoKernel::Absent { dir: dir.to_owned() })?)
}

/// The kernel of exactly this version; "" is the one without a version.
pub(crate) fn exact(dir: &Path, version: &str) -> Result<Kernel, NoKernel> {
    let unknown = || NoKernel::UnknownVersion { dir: dir.to_owned(), version: version.to_owned() };
    let wanted = match version {
        "" => None,
        text => Some(Version::parse(text).map_err(|_| unknown())?),
    };
    let found = versions(dir)?.into_iter().find(|have| *have == wanted);
    complete(dir, found.ok_or_else(unknown)?)
}

fn versions(dir: &Path) -> Result<Vec<Option<Version>>, NoKernel> {
    let unreadable = |source| NoKernel::Unreadable { dir: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(unreadable(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name == "vmlinux" {
            found.push(None);
        } else if let Some(text) = name.strip_prefix("vmlinux-") {
            // Other names are files being written or somebody's notes.
            found.extend(Version::parse(text).ok().map(Some));
        }
    }
    Ok(found)
}

fn complete(dir: &Path, version: Option<Version>) -> Result<Kernel, NoKernel> {
    let named = |stem: &str| match &version {
        Some(version) => dir.join(format!("{stem}-{version}")),
        None => dir.join(stem),
    };
    let (vmlinux, initramfs) = (named("vmlinux"), named("initramfs"));
    if !initramfs.is_file() {
        return Err(NoKernel::NoInitramfs { vmlinux, initramfs });
    }
    Ok(Kernel { version, vmlinux, initramfs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernels(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        dir
    }

    #[test]
    fn latest_semver_wins_over_older_ones_and_the_unversioned() {
        let dir = kernels(&[
            "vmlinux",
            "initramfs",
            "vmlinux-6.1.9",
            "initramfs-6.1.9",
            "vmlinux-6.1.158",
            "initramfs-6.1.158",
            "vmlinux-new",
        ]);
        let kernel = latest(dir.path()).unwrap();
        assert_eq!(kernel.version, Some(Version::new(6, 1, 158)));
        assert_eq!(kernel.initramfs, dir.path().join("initramfs-6.1.158"));
    }

    #[test]
    fn unversioned_kernel_is_used_when_it_is_the_only_one() {
        let dir = kernels(&["vmlinux", "initramfs"]);
        assert_eq!(latest(dir.path()).unwrap().version, None);
        assert_eq!(exact(dir.path(), "").unwrap().vmlinux, dir.path().join("vmlinux"));
    }

    #[test]
    fn missing_directory_missing_initramfs_and_unknown_version_are_told_apart() {
        let dir = kernels(&["vmlinux-6.1.158"]);
        assert!(matches!(latest(&dir.path().join("no")), Err(NoKernel::Absent { .. })));
        assert!(matches!(latest(dir.path()), Err(NoKernel::NoInitramfs { .. })));
        let wrong = exact(dir.path(), "6.1.1").unwrap_err();
        assert!(matches!(wrong, NoKernel::UnknownVersion { .. }), "{wrong}");
        assert!(matches!(exact(dir.path(), "six"), Err(NoKernel::UnknownVersion { .. })));
    }
}
