//! How are keys and certificates read, written and watched on disk?
//!
//! Files are replaced by rename, so a reader sees the old or the new one; a mode holds from the
//! first byte on.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use crate::error::TlsError;

/// Largest certificate, key or secret that is read, in bytes: a chain has a few KiB.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// What changes when a file is replaced or written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

/// The stamp of a file; `None` if it can't be looked at.
pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    Some(Stamp { modified: meta.modified().ok(), bytes: meta.len(), inode: meta.ino() })
}

/// Reads a small text file.
pub(crate) fn read(path: &Path) -> Result<String, TlsError> {
    let io = |source| TlsError::Io { action: "read", path: path.to_owned(), source };
    if fs::metadata(path).map_err(io)?.len() > FILE_MAX_BYTES {
        return Err(io(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB")));
    }
    fs::read_to_string(path).map_err(io)
}

/// Writes by rename.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let io = |source| TlsError::Io { action: "write", path: path.to_owned(), source };
    let partial = write_aside(path, text, mode).map_err(io)?;
    fs::rename(&partial, path).and_then(|()| sync_dir(path)).map_err(|error| {
        let _ = fs::remove_file(&partial); // gone if the rename worked
        io(error)
    })
}

/// Writes unless the file exists: whoever is first wins. Returns whether it was us.
pub(crate) fn write_new(path: &Path, text: &str, mode: u32) -> Result<bool, TlsError> {
    let io = |source| TlsError::Io { action: "write", path: path.to_owned(), source };
    let partial = write_aside(path, text, mode).map_err(io)?;
    let linked = fs::hard_link(&partial, path);
    let _ = fs::remove_file(&partial); // a leftover is harmless and found by its name
    match linked {
        Ok(()) => sync_dir(path).map(|()| true).map_err(io),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(io(error)),
    }
}

/// Makes a directory that only we may look into, with its parents.
pub(crate) fn make_dir(path: &Path) -> Result<(), TlsError> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| TlsError::Io {
        action: "create",
        path: path.to_owned(),
        source,
    })
}

/// Says it if others than the owner can read a key.
pub(crate) fn loose_mode(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.mode() & 0o777;
    let open = mode & 0o077 != 0;
    open.then(|| format!("the key {} can be read by others (mode {mode:04o})", path.display()))
}

fn write_aside(path: &Path, text: &str, mode: u32) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}-{}.new", process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    let partial = PathBuf::from(partial);
    let _ = fs::remove_file(&partial); // left by a crash of a process with our id
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = fs::remove_file(&partial); // half a key is of no use
        return Err(error);
    }
    Ok(partial)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fs::File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn first_writer_wins_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert!(write_new(&path, "one", 0o600).unwrap());
        assert!(!write_new(&path, "two", 0o600).unwrap());
        assert_eq!(read(&path).unwrap(), "one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no leftovers");
    }

    #[test]
    fn replaced_file_has_another_stamp_even_with_the_same_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert.pem");
        write(&path, "one", 0o644).unwrap();
        let before = stamp(&path);
        assert_eq!(stamp(&path), before);
        write(&path, "two", 0o644).unwrap();
        assert_ne!(stamp(&path), before);
        assert_eq!(stamp(&dir.path().join("absent")), None);
    }

    #[test]
    fn key_that_others_can_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        write(&path, "key", 0o600).unwrap();
        assert_eq!(loose_mode(&path), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let text = loose_mode(&path).unwrap();
        assert!(text.contains("0640") && text.contains("key.pem"), "{text}");
    }

    #[test]
    fn huge_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert.pem");
        fs::File::create(&path).unwrap().set_len(FILE_MAX_BYTES + 1).unwrap();
        assert!(read(&path).unwrap_err().chain().contains("larger"));
    }
}
