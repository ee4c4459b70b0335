//! Writing one file for a user, from blocking code.
//!
//! A new small file makes exactly three events for a watcher: created, owner changed, written.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown, fchown},
    path::{Path, PathBuf},
};

use http::StatusCode;

use super::bad_request;
use crate::{accounts::User, http::Refusal};

/// Bytes that are gathered before a write, so that a small file is written at once.
const PIECE_BYTES: usize = 256 << 10;

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// There is a directory in its place.
    #[error("path is a directory: {}", path.display())]
    IsDirectory { path: PathBuf },
    /// The disk is full.
    #[error("not enough disk space for {}", path.display())]
    NoSpace { path: PathBuf },
    /// The body broke off or is no gzip.
    #[error("can't read the content of {}", path.display())]
    Content {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The system refused.
    #[error("can't {step} {}", path.display())]
    Io {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::IsDirectory { .. } => bad_request(error),
            WriteError::Content { .. } => Self::of(StatusCode::BAD_REQUEST, &error),
            WriteError::NoSpace { .. } => Self::of(StatusCode::INSUFFICIENT_STORAGE, &error),
            WriteError::Io { .. } => Self::of(StatusCode::INTERNAL_SERVER_ERROR, &error),
        }
    }
}

/// Turns an error of one step into ours.
pub(super) fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| match source.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => WriteError::NoSpace { path },
        Some(libc::EISDIR) => WriteError::IsDirectory { path },
        _ => WriteError::Io { step, path, source },
    }
}

/// Makes a directory and those above it; what is new belongs to the user.
pub(super) fn make_dirs(dir: &Path, user: &User) -> Result<(), WriteError> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o755).create(dir) {
            Ok(()) => {
                chown(dir, Some(user.uid), Some(user.gid)).map_err(failed("give away", dir))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("make directory", dir)(error)),
        }
    }
    Ok(())
}

/// Writes all that `content` gives. A file that this made is removed again when it fails.
pub(super) fn write_file(
    path: &Path,
    user: &User,
    content: &mut dyn Read,
) -> Result<(), WriteError> {
    if let Some(parent) = path.parent() {
        make_dirs(parent, user)?;
    }
    let is_new = fs::symlink_metadata(path).is_err();
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path);
    let mut file = open.map_err(failed("open", path))?;
    let written = fchown(&file, Some(user.uid), Some(user.gid))
        .map_err(failed("give away", path))
        .and_then(|()| pour(content, &mut file, path));
    if written.is_err() && is_new {
        // What stays would look like the whole file.
        let _ = fs::remove_file(path);
    }
    written
}

fn pour(content: &mut dyn Read, file: &mut File, path: &Path) -> Result<(), WriteError> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    loop {
        piece.clear();
        let limit = u64::try_from(PIECE_BYTES).unwrap_or(u64::MAX);
        let read = content.take(limit).read_to_end(&mut piece);
        let unreadable = |source| WriteError::Content { path: path.to_owned(), source };
        if read.map_err(unreadable)? == 0 {
            return Ok(());
        }
        file.write_all(&piece).map_err(failed("write", path))?;
    }
}
