//! `POST /files/archive`: unpacks a tar.gz below one directory.
//!
//! Nothing in it is trusted. Every entry is reached from the directory's descriptor, one
//! component at a time, never through a symbolic link; so nothing outside can be written, also
//! where an earlier entry, or a process that runs meanwhile, puts a link in the way.
//!
//! An archive that turns out bad half-way leaves what was unpacked until then.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use flate2::bufread::GzDecoder;
use http::{Request, Response, StatusCode};
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::stat::{FchmodatFlags, Mode, fchmodat, futimens, mkdirat},
    sys::time::TimeSpec,
    unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat},
};
use tar::{Entry, EntryType};

use super::{
    admit, bad_request,
    body::{Content, Encoding},
    upload::blocking,
    write::make_dirs,
};
use crate::{
    accounts::User,
    guest::Guest,
    http::{Body, Refusal, full},
};

/// Most entries of one archive.
const ENTRIES_MAX: usize = 200_000;

/// Most bytes that one archive unpacks to: more than any guest's disk.
const UNPACKED_MAX_BYTES: u64 = 16 << 30;

/// Deepest path of an entry.
const DEPTH_MAX: usize = 128;

/// Why an archive was not unpacked to its end.
#[derive(Debug, thiserror::Error)]
enum ExtractError {
    /// No tar, no gzip, or cut off.
    #[error("malformed archive")]
    Malformed(#[source] io::Error),
    /// More than we take.
    #[error(
        "archive is too large: expected at most {ENTRIES_MAX} entries and {UNPACKED_MAX_BYTES} bytes"
    )]
    TooLarge,
    /// The name is absolute, climbs, is empty or too deep.
    #[error("entry '{}' has a path that does not stay inside", entry.display())]
    BadPath { entry: PathBuf },
    /// The link does.
    #[error("entry '{}' links to '{}', which is not inside", entry.display(), target.display())]
    BadLink { entry: PathBuf, target: PathBuf },
    /// A device, a pipe, or something newer.
    #[error("entry '{}' is neither file, directory nor link", entry.display())]
    BadKind { entry: PathBuf },
    /// There is a link, or a file, where a directory is needed.
    #[error("entry '{}' goes through something that is no directory", entry.display())]
    NoDirectory { entry: PathBuf },
    /// The disk is full.
    #[error("not enough disk space for entry '{}'", entry.display())]
    NoSpace { entry: PathBuf },
    /// The system refused.
    #[error("can't unpack entry '{}'", entry.display())]
    Io {
        entry: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl From<ExtractError> for Refusal {
    fn from(error: ExtractError) -> Self {
        let status = match error {
            ExtractError::Malformed(_)
            | ExtractError::BadPath { .. }
            | ExtractError::BadLink { .. }
            | ExtractError::BadKind { .. }
            | ExtractError::NoDirectory { .. } => StatusCode::BAD_REQUEST,
            ExtractError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ExtractError::NoSpace { .. } => StatusCode::INSUFFICIENT_STORAGE,
            ExtractError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::of(status, &error)
    }
}

/// Turns an error about one entry into ours.
fn failed(entry: &Path) -> impl Fn(io::Error) -> ExtractError {
    let entry = entry.to_owned();
    move |source| {
        let entry = entry.clone();
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => ExtractError::NoSpace { entry },
            Some(libc::ENOTDIR | libc::ELOOP) => ExtractError::NoDirectory { entry },
            _ => ExtractError::Io { entry, source },
        }
    }
}

/// Answers `POST /files/archive`.
pub(crate) async fn extract_archive(
    guest: &Arc<Guest>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let (query, user) = admit("write", guest, &request)?;
    let dir = guest.resolve(query.path(), &user).map_err(bad_request)?;
    let body = BodyDataStream::new(request.into_body());
    // The body is a gzip file, whatever its content encoding says.
    let packed = Content::new(body, Encoding::Identity);
    blocking(move || {
        make_dirs(&dir, &user)?;
        extract(packed.reader(), &dir, &user).map_err(Refusal::from)
    })
    .await??;
    let mut answer = Response::new(full(""));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    Ok(answer)
}

fn extract(packed: impl Read, dir: &Path, user: &User) -> Result<(), ExtractError> {
    let unpacked = GzDecoder::new(io::BufReader::new(packed)).take(UNPACKED_MAX_BYTES);
    let mut archive = tar::Archive::new(unpacked);
    let root = File::open(dir).map_err(failed(dir))?.into();
    let target = Target { root, user };
    for (index, entry) in archive.entries().map_err(ExtractError::Malformed)?.enumerate() {
        if index >= ENTRIES_MAX {
            return Err(ExtractError::TooLarge);
        }
        target.unpack(entry.map_err(ExtractError::Malformed)?)?;
    }
    // What follows the last entry is read too: a cut-off or corrupt gzip shows only at its end.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(ExtractError::Malformed)?;
    if rest.limit() == 0 { Err(ExtractError::TooLarge) } else { Ok(()) }
}

/// The path's components, if they all lead down.
fn downward(path: &Path) -> Option<Vec<&Path>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(Path::new(name)),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (names.len() <= DEPTH_MAX).then_some(names)
}

/// Whether a link in a directory at `depth` below the root leads to something inside.
///
/// Climbing is allowed at the start only, where every step is a real directory; behind a name,
/// which may be a link itself, `..` could lead anywhere.
fn link_stays_inside(depth: usize, target: &Path) -> bool {
    let mut climbed = 0;
    let mut named = false;
    for component in target.components() {
        match component {
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            Component::ParentDir if named => return false,
            Component::ParentDir => climbed += 1,
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    climbed <= depth && target != Path::new("")
}

/// The directory that is unpacked into.
struct Target<'a> {
    root: OwnedFd,
    user: &'a User,
}

impl Target<'_> {
    fn unpack<R: Read>(&self, mut entry: Entry<'_, R>) -> Result<(), ExtractError> {
        let path = entry.path().map_err(ExtractError::Malformed)?.into_owned();
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let bad_path = || ExtractError::BadPath { entry: path.clone() };
        let names = downward(&path).ok_or_else(bad_path)?;
        let mode = entry.header().mode().map_err(ExtractError::Malformed)?;
        let Some((name, parents)) = names.split_last() else {
            // "./" is the directory itself, which is there.
            return if kind.is_dir() { Ok(()) } else { Err(bad_path()) };
        };
        let error = failed(&path);
        let dir = self.enter(parents).map_err(&error)?;
        match kind {
            EntryType::Directory => self.make_dir(&dir, name, mode).map_err(error),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mtime = entry.header().mtime().unwrap_or_default();
                self.make_file(&dir, name, mode, mtime, &mut entry, &path)
            }
            EntryType::Symlink | EntryType::Link => {
                let to = entry.link_name().map_err(ExtractError::Malformed)?.unwrap_or_default();
                let linked = if kind == EntryType::Symlink {
                    self.make_symlink(&dir, name, parents.len(), &to)
                } else {
                    self.make_hard_link(&dir, name, &to)
                };
                linked.map_err(error)?.ok_or_else(|| ExtractError::BadLink {
                    entry: path.clone(),
                    target: to.into_owned(),
                })
            }
            _ => Err(ExtractError::BadKind { entry: path.clone() }),
        }
    }

    /// Opens the directory below the root, making what is missing, following no link.
    fn enter(&self, names: &[&Path]) -> io::Result<OwnedFd> {
        let mut dir = self.root.try_clone()?;
        for name in names {
            dir = match open_dir(&dir, name) {
                Err(Errno::ENOENT) => {
                    self.make_dir(&dir, name, 0o755)?;
                    open_dir(&dir, name)?
                }
                opened => opened?,
            };
        }
        Ok(dir)
    }

    fn make_dir(&self, dir: &OwnedFd, name: &Path, mode: u32) -> io::Result<()> {
        match mkdirat(dir, name, Mode::from_bits_truncate(0o700)) {
            // One that is there is taken as it is, if it is one.
            Err(Errno::EEXIST) => drop(open_dir(dir, name)?),
            made => {
                made?;
                self.own(dir, name)?;
            }
        }
        Ok(fchmodat(dir, name, permissions(mode), FchmodatFlags::FollowSymlink)?)
    }

    fn make_file(
        &self,
        dir: &OwnedFd,
        name: &Path,
        mode: u32,
        mtime: u64,
        content: &mut dyn Read,
        path: &Path,
    ) -> Result<(), ExtractError> {
        let error = failed(path);
        clear_way(dir, name).map_err(&error)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let made = openat(dir, name, flags | OFlag::O_NOFOLLOW, Mode::from_bits_truncate(0o600));
        let mut file = File::from(made.map_err(|errno| error(errno.into()))?);
        copy(content, &mut file, &error)?;
        let finish = || -> io::Result<()> {
            self.own(dir, name)?;
            nix::sys::stat::fchmod(&file, permissions(mode))?;
            let seconds = i64::try_from(mtime).unwrap_or_default();
            let time = TimeSpec::new(seconds, 0);
            Ok(futimens(file.as_fd(), &time, &time)?)
        };
        finish().map_err(error)
    }

    fn make_symlink(
        &self,
        dir: &OwnedFd,
        name: &Path,
        depth: usize,
        to: &Path,
    ) -> io::Result<Option<()>> {
        if !link_stays_inside(depth, to) {
            return Ok(None);
        }
        clear_way(dir, name)?;
        symlinkat(to, dir, name)?;
        self.own(dir, name).map(Some)
    }

    /// The target of a hard link is a path of the archive, from its root.
    fn make_hard_link(&self, dir: &OwnedFd, name: &Path, to: &Path) -> io::Result<Option<()>> {
        let Some(names) = downward(to) else { return Ok(None) };
        let Some((target, parents)) = names.split_last() else { return Ok(None) };
        let from = self.enter(parents)?;
        clear_way(dir, name)?;
        // Without AT_SYMLINK_FOLLOW a link to a symbolic link is to the link itself.
        Ok(Some(linkat(from, *target, dir, name, AtFlags::empty())?))
    }

    fn own(&self, dir: &OwnedFd, name: &Path) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
        Ok(fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }
}

fn open_dir(dir: &OwnedFd, name: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// Removes a file or link of that name; the new entry replaces it, as tar does.
fn clear_way(dir: &OwnedFd, name: &Path) -> io::Result<()> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// What tar's mode allows here: no set-user-id, which would outlive the archive's trust.
fn permissions(mode: u32) -> Mode {
    Mode::from_bits_truncate(mode & 0o777)
}

/// Copies a file's bytes, telling a bad archive from a bad disk.
fn copy(
    content: &mut dyn Read,
    file: &mut File,
    error: &dyn Fn(io::Error) -> ExtractError,
) -> Result<(), ExtractError> {
    let mut piece = vec![0; 128 << 10];
    loop {
        match content.read(&mut piece).map_err(ExtractError::Malformed)? {
            0 => return Ok(()),
            n => io::Write::write_all(file, &piece[..n]).map_err(error)?,
        }
    }
}
