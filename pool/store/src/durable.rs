//! Files that are there whole or not at all.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// Writes a new file and syncs its content.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Syncs the names in `dir`.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Puts `bytes` in the place of the file at `path` by a rename. Not synced.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut name = OsString::from(format!(".tmp-{}-{number}-", std::process::id()));
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    let half = path.with_file_name(name);
    fs::write(&half, bytes).and_then(|()| fs::rename(&half, path)).inspect_err(|_| {
        // Best effort: the error that is returned matters more than a left-over.
        let _ = fs::remove_file(&half);
    })
}
