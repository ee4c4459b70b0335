//! Sparse files: where their data is, and copies that keep their holes.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom as StdSeekFrom, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use rustix::{
    fs::{FallocateFlags, SeekFrom},
    io::Errno,
};

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

/// Makes the content of `to`, which is there and as long, that of `from`; returns how many bytes
/// of data that has. Works as [`copy_sparse`] does; what is a hole in `from` is one in `to` after,
/// or written zeroes where the file system has no holes.
///
/// # Errors
///
/// What the system says as it is; `to` is partly copied then. `InvalidInput` if the lengths differ
/// or both are the same file.
pub fn copy_sparse_into(from: &Path, to: &File) -> io::Result<u64> {
    let invalid = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    let source = File::open(from)?;
    let (meta, there) = (source.metadata()?, to.metadata()?);
    if (there.dev(), there.ino()) == (meta.dev(), meta.ino()) {
        return invalid("cannot copy a file onto itself");
    }
    if there.len() != meta.len() {
        return invalid("cannot copy into a file of another length");
    }
    let extents = data_extents(&source)?;
    let data = extents.iter().map(|extent| extent.len).sum();
    if rustix::fs::ioctl_ficlone(to, &source).is_ok() {
        return Ok(data);
    }
    for old in data_extents(to)? {
        for stale in without(old, &extents) {
            clear(to, stale)?;
        }
    }
    copy_extents(&source, to, extents)?;
    Ok(data)
}

fn copy_into(source: &File, len: u64, target: &File) -> io::Result<u64> {
    let extents = data_extents(source)?;
    let data = extents.iter().map(|extent| extent.len).sum();
    if rustix::fs::ioctl_ficlone(target, source).is_ok() {
        return Ok(data);
    }
    target.set_len(len)?;
    copy_extents(source, target, extents)?;
    Ok(data)
}

/// The parts of `extent` that are in none of `others`, which are sorted.
fn without(extent: Extent, others: &[Extent]) -> Vec<Extent> {
    let (mut at, end) = (extent.start, extent.start + extent.len);
    let mut parts = Vec::new();
    let after = others.partition_point(|other| other.start + other.len <= at);
    for other in others[after..].iter().take_while(|other| other.start < end) {
        if other.start > at {
            parts.push(Extent { start: at, len: other.start - at });
        }
        at = other.start + other.len;
    }
    if at < end {
        parts.push(Extent { start: at, len: end - at });
    }
    parts
}

/// Makes `extent` of `file` a hole, or zeroes where there are no holes.
fn clear(file: &File, extent: Extent) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    loop {
        match rustix::fs::fallocate(file, flags, extent.start, extent.len) {
            Err(Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::OPNOTSUPP) => return write_zeroes(file, extent),
            done => return Ok(done?),
        }
    }
}

fn write_zeroes(file: &File, extent: Extent) -> io::Result<()> {
    let zeroes = vec![0; STEP_BYTES];
    let (mut at, end) = (extent.start, extent.start + extent.len);
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(zeroes.len());
        file.write_all_at(&zeroes[..want], at)?;
        at += want as u64;
    }
    Ok(())
}

fn copy_extents(source: &File, target: &File, extents: Vec<Extent>) -> io::Result<()> {
    let mut in_kernel = true;
    for extent in extents {
        let mut copied = 0;
        if in_kernel {
            copied = copy_in_kernel(source, target, extent)?;
            in_kernel = copied == extent.len;
        }
        copy_by_hand(source, target, extent, copied)?;
    }
    Ok(())
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
