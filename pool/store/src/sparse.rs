//! Sparse files: where their data is, and copies that keep their holes.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom as StdSeekFrom, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use rustix::{fs::SeekFrom, io::Errno};

/// Bytes moved per step where the kernel can't copy by itself.
const STEP_BYTES: usize = 256 << 10;

/// A run of bytes that may hold data; what lies between two of them reads as zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// Length in bytes, never 0.
    pub len: u64,
}

/// The extents of `file` in order. Moves the file's offset.
///
/// # Errors
///
/// What `lseek` says; a file system without holes answers with one extent for the whole file.
pub fn data_extents(file: &File) -> io::Result<Vec<Extent>> {
    let end = file.metadata()?.len();
    let mut extents = Vec::new();
    let mut at = 0;
    while at < end {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break, // only a hole is left
            Err(error) => return Err(error.into()),
        };
        let hole = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(end);
        if hole <= start {
            break; // it was cut short under us
        }
        extents.push(Extent { start, len: hole - start });
        at = hole;
    }
    Ok(extents)
}

/// Copies `from` to `to` with its holes; returns how many bytes of data it holds.
///
/// Blocks are shared where the file system can (`FICLONE`, then `copy_file_range` per extent),
/// else copied. `to` is replaced if it exists, and removed if the copy fails half-way.
///
/// # Errors
///
/// What the system says as it is, `ENOSPC` included (see [`crate::is_no_space`]);
/// `InvalidInput` if both paths are the same file.
pub fn copy_sparse(from: &Path, to: &Path) -> io::Result<u64> {
    let source = File::open(from)?;
    let meta = source.metadata()?;
    if let Ok(there) = std::fs::metadata(to)
        && (there.dev(), there.ino()) == (meta.dev(), meta.ino())
    {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot copy a file onto itself"));
    }
    let target = File::create(to)?;
    copy_into(&source, meta.len(), &target).inspect_err(|_| {
        // Best effort: the error that is returned matters more than a left-over.
        let _ = std::fs::remove_file(to);
    })
}

fn copy_into(source: &File, len: u64, target: &File) -> io::Result<u64> {
    let extents = data_extents(source)?;
    let data = extents.iter().map(|extent| extent.len).sum();
    if rustix::fs::ioctl_ficlone(target, source).is_ok() {
        return Ok(data);
    }
    target.set_len(len)?;
    let mut in_kernel = true;
    for extent in extents {
        let mut copied = 0;
        if in_kernel {
            copied = copy_in_kernel(source, target, extent)?;
            in_kernel = copied == extent.len;
        }
        copy_by_hand(source, target, extent, copied)?;
    }
    Ok(data)
}

/// Lets the kernel copy `extent`; returns how far it got before it said it can't.
fn copy_in_kernel(source: &File, target: &File, extent: Extent) -> io::Result<u64> {
    let (mut from, mut to) = (extent.start, extent.start);
    let end = extent.start + extent.len;
    while from < end {
        let want = usize::try_from(end - from).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), want) {
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::INTR) => {}
            // Not between these two file systems: the caller does it by hand.
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(from - extent.start)
}

fn copy_by_hand(source: &File, mut target: &File, extent: Extent, done: u64) -> io::Result<()> {
    let mut buffer = vec![0; STEP_BYTES];
    let (mut at, end) = (extent.start + done, extent.start + extent.len);
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let read = source.read_at(&mut buffer[..want], at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        target.seek(StdSeekFrom::Start(at))?;
        target.write_all(&buffer[..read])?;
        at += read as u64;
    }
    Ok(())
}
