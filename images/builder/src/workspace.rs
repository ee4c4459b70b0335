//! The work directory: a lock, drafts, and files that appear complete or not at all.

use crate::error::BuildError;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A cold build takes three minutes; whoever waits longer has met a broken one.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(900);
const POLL: Duration = Duration::from_millis(100);
const DRAFT_PREFIX: &str = ".tmp-";

/// The work directory, held by this build alone until dropped.
#[derive(Debug)]
pub(crate) struct Workspace {
    dir: PathBuf,
    _lock: File,
}

impl Workspace {
    /// Takes the lock, waiting for another build, and clears what a killed one left.
    ///
    /// # Errors
    ///
    /// If the directory can't be made or the lock isn't free within 15 minutes.
    pub(crate) fn enter(dir: &Path) -> Result<Self, BuildError> {
        fs::create_dir_all(dir).map_err(BuildError::file("make", dir))?;
        let dir = dir.canonicalize().map_err(BuildError::file("resolve", dir))?;
        let lock = lock(&dir.join("lock"), LOCK_WAIT_MAX)?;
        let workspace = Self { dir, _lock: lock };
        workspace.sweep()?;
        Ok(workspace)
    }

    /// A file or directory of the work directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A new empty directory that goes away when dropped.
    pub(crate) fn draft(&self) -> Result<TempDir, BuildError> {
        draft_in(&self.dir)
    }

    fn sweep(&self) -> Result<(), BuildError> {
        for entry in fs::read_dir(&self.dir).map_err(BuildError::file("list", &self.dir))? {
            let entry = entry.map_err(BuildError::file("list", &self.dir))?;
            if entry.file_name().to_string_lossy().starts_with(DRAFT_PREFIX) {
                let path = entry.path();
                fs::remove_dir_all(&path).map_err(BuildError::file("remove", &path))?;
            }
        }
        Ok(())
    }
}

fn lock(path: &Path, wait_max: Duration) -> Result<File, BuildError> {
    let file = File::create(path).map_err(BuildError::file("make", path))?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(BuildError::file("lock", path)(source)),
            Err(TryLockError::WouldBlock) if start.elapsed() > wait_max => {
                return Err(BuildError::Locked { path: path.to_owned(), waited: wait_max });
            }
            Err(TryLockError::WouldBlock) => thread::sleep(POLL),
        }
    }
}

/// A new empty directory beside the outputs, so that they can be renamed into place.
pub(crate) fn draft_in(dir: &Path) -> Result<TempDir, BuildError> {
    fs::create_dir_all(dir).map_err(BuildError::file("make", dir))?;
    let draft = tempfile::Builder::new().prefix(DRAFT_PREFIX).tempdir_in(dir);
    draft.map_err(BuildError::file("make a draft in", dir))
}

/// Makes a finished file visible under its name, durably.
pub(crate) fn publish_file(draft: &Path, target: &Path) -> Result<(), BuildError> {
    let parent = target.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(BuildError::file("make", parent))?;
    sync(draft).map_err(BuildError::file("sync", draft))?;
    fs::rename(draft, target).map_err(BuildError::file("publish", target))?;
    sync(parent).map_err(BuildError::file("sync", parent))
}

/// Makes a finished directory visible under its name, in one step even if there is one: who opens a file of it gets
/// the old or the new one, and never a mixture of both directories.
pub(crate) fn publish_dir(draft: TempDir, target: &Path) -> Result<(), BuildError> {
    for entry in fs::read_dir(draft.path()).map_err(BuildError::file("list", draft.path()))? {
        let path = entry.map_err(BuildError::file("list", draft.path()))?.path();
        sync(&path).map_err(BuildError::file("sync", path))?;
    }
    sync(draft.path()).map_err(BuildError::file("sync", draft.path()))?;
    if target.exists() {
        let exchange = RenameFlags::RENAME_EXCHANGE;
        renameat2(AT_FDCWD, draft.path(), AT_FDCWD, target, exchange)
            .map_err(|error| BuildError::file("publish", target)(error.into()))?;
        // Now the draft is the old directory; running sandboxes keep its files open.
        draft.close().map_err(BuildError::file("remove the former", target))?;
    } else {
        fs::rename(draft.keep(), target).map_err(BuildError::file("publish", target))?;
    }
    let parent = target.parent().unwrap_or(Path::new("/"));
    sync(parent).map_err(BuildError::file("sync", parent))
}

/// Reads a small JSON file; none if it is missing or isn't what is expected (then it is made again).
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = fs::read(path).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Writes a small JSON file, complete or not at all.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), BuildError> {
    let text =
        serde_json::to_vec_pretty(value).map_err(|error| BuildError::malformed(path, error))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(BuildError::file("make", parent))?;
    let mut draft =
        tempfile::NamedTempFile::new_in(parent).map_err(BuildError::file("write", path))?;
    draft.write_all(&text).map_err(BuildError::file("write", path))?;
    draft.write_all(b"\n").map_err(BuildError::file("write", path))?;
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o644);
    draft.as_file().set_permissions(mode).map_err(BuildError::file("write", path))?;
    draft.as_file().sync_all().map_err(BuildError::file("sync", path))?;
    draft.persist(path).map_err(|error| BuildError::file("publish", path)(error.error))?;
    Ok(())
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_build_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = lock(&path, Duration::ZERO).unwrap();
        assert!(matches!(lock(&path, Duration::ZERO), Err(BuildError::Locked { .. })));
        drop(held);
        lock(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn what_a_killed_build_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".tmp-old/root")).unwrap();
        fs::write(dir.path().join("base.ext4"), "kept").unwrap();
        let workspace = Workspace::enter(dir.path()).unwrap();
        assert!(!workspace.path(".tmp-old").exists());
        assert!(workspace.path("base.ext4").exists());
    }

    #[test]
    fn a_directory_is_replaced_as_a_whole_and_open_files_live_on() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("template");
        for text in ["one", "two"] {
            let draft = draft_in(dir.path()).unwrap();
            fs::write(draft.path().join("rootfs.ext4"), text).unwrap();
            let before = File::open(target.join("rootfs.ext4"));
            publish_dir(draft, &target).unwrap();
            assert_eq!(fs::read_to_string(target.join("rootfs.ext4")).unwrap(), text);
            if let Ok(before) = before {
                assert_eq!(io::read_to_string(before).unwrap(), "one");
            }
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn damaged_stamps_read_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stamp.json");
        assert_eq!(read_json::<u32>(&path), None);
        fs::write(&path, "{").unwrap();
        assert_eq!(read_json::<u32>(&path), None);
        write_json(&path, &7).unwrap();
        assert_eq!(read_json::<u32>(&path), Some(7));
    }
}
