//! Fills a disk with a file that has no name.
//!
//! # Invariants
//!
//! - The file is never to be found: its space is free again as soon as it is closed, also by the
//!   kernel when we are killed.

use std::{fs, io, os::fd::OwnedFd};

use rustix::{
    fs::{FallocateFlags, Mode, OFlags},
    io::Errno,
};

use super::{Disk, DiskError};

/// One step of filling, bytes: so often we look whether to stop.
const STEP_BYTES: u64 = 64 << 20;
/// One step where zeroes have to be written, bytes.
const WRITE_BYTES: u64 = 1 << 20;
/// More than was to be left free that still counts as full, bytes: what file systems keep.
const SLACK_BYTES: u64 = 256 << 10;
/// Tries of a name that nobody has.
const NAMES_MAX: u32 = 100;

/// The file that fills a disk. Dropped, its space is free again.
#[derive(Debug)]
pub(crate) struct Ballast(fs::File);

impl Drop for Ballast {
    fn drop(&mut self) {
        // Closing would do, but for a process that is just being started and still shares it.
        let _ = self.0.set_len(0);
    }
}

impl Disk {
    /// Takes all but `leave_kib` KiB of it. Blocks, but asks `stop` now and then.
    pub(crate) fn fill(
        &self,
        leave_kib: u64,
        stop: impl Fn() -> bool,
    ) -> Result<Ballast, DiskError> {
        self.fill_by(allocate, leave_kib, stop)
    }

    fn fill_by(
        &self,
        first: fn(&fs::File, u64, u64) -> io::Result<()>,
        leave_kib: u64,
        stop: impl Fn() -> bool,
    ) -> Result<Ballast, DiskError> {
        let ballast = Ballast(self.nameless()?);
        let (mut grow, mut step) = (first, STEP_BYTES);
        let mut length = 0;
        loop {
            if stop() {
                return Err(DiskError::Stopped { dir: self.dir.clone() });
            }
            let (block, free) = self.free()?;
            let piece = free.saturating_sub(leave_kib << 10).min(step) / block * block;
            if piece == 0 {
                break;
            }
            match grow(&ballast.0, length, piece) {
                Ok(()) => length += piece,
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => {}
                    Some(Errno::OPNOTSUPP) if step > WRITE_BYTES => {
                        (grow, step) = (write_zeroes, WRITE_BYTES);
                    }
                    // What is free isn't all ours, or not in one piece.
                    Some(Errno::NOSPC) if piece > block => step = piece / 2,
                    Some(Errno::NOSPC) => break,
                    _ => return Err(self.io("fill", error)),
                },
            }
        }
        let free_kib = self.free_to_others()? >> 10;
        if free_kib > leave_kib + (SLACK_BYTES >> 10) {
            return Err(DiskError::NotFull { dir: self.dir.clone(), free_kib, leave_kib });
        }
        Ok(ballast)
    }

    /// A new file in it that has no name, or has it no longer.
    fn nameless(&self) -> Result<fs::File, DiskError> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.handle, ".", flags | OFlags::TMPFILE, mode) {
            Ok(file) => return Ok(file.into()),
            // The file system or the kernel has no such files.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {}
            Err(errno) => return Err(self.io("create a file in", errno.into())),
        }
        named_for_a_moment(&self.handle).map_err(|errno| self.io("create a file in", errno.into()))
    }
}

/// For file systems without nameless files: made and unlinked at once.
fn named_for_a_moment(dir: &OwnedFd) -> Result<fs::File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    for number in 0..NAMES_MAX {
        let name = format!(".ballast-{}-{number}", std::process::id());
        match rustix::fs::openat(dir, &name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => {
                rustix::fs::unlinkat(dir, &name, rustix::fs::AtFlags::empty())?;
                return Ok(file.into());
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EXIST)
}

fn allocate(file: &fs::File, from: u64, bytes: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), from, bytes)?)
}

/// Holes take no space, so these are written.
fn write_zeroes(file: &fs::File, from: u64, bytes: u64) -> io::Result<()> {
    let zeroes = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    std::os::unix::fs::FileExt::write_all_at(file, &zeroes, from)?;
    // Some promise space and look for it later.
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::Mounted;

    #[test]
    fn disk_is_full_until_the_ballast_is_dropped() {
        let mounted = Mounted::new("size=8m");
        let disk = mounted.open().unwrap();
        for grow in [allocate, write_zeroes] {
            let ballast = disk.fill_by(grow, 0, || false).unwrap();
            assert_eq!(disk.free().unwrap().1, 0);
            let error = fs::write(mounted.0.path().join("file"), [1; 4096]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            drop(ballast);
            fs::write(mounted.0.path().join("file"), [1; 4096]).unwrap();
            fs::remove_file(mounted.0.path().join("file")).unwrap();
            assert_eq!(disk.free().unwrap().1, 8 << 20);
        }
    }

    #[test]
    fn ballast_has_no_name_and_leaves_what_it_should() {
        let mounted = Mounted::new("size=8m");
        let disk = mounted.open().unwrap();
        let _ballast = disk.fill(100, || false).unwrap();
        assert_eq!(disk.free().unwrap().1, 100 << 10);
        assert_eq!(fs::read_dir(mounted.0.path()).unwrap().count(), 0);
        drop(named_for_a_moment(&disk.handle).unwrap());
        assert_eq!(fs::read_dir(mounted.0.path()).unwrap().count(), 0);
    }

    #[test]
    fn zeroes_are_written_where_space_cannot_be_allocated() {
        let mounted = Mounted::new("size=8m");
        let disk = mounted.open().unwrap();
        let refuse = |_: &fs::File, _, _| Err(Errno::OPNOTSUPP.into());
        let _ballast = disk.fill_by(refuse, 0, || false).unwrap();
        assert_eq!(disk.free().unwrap().1, 0);
    }

    #[test]
    fn filling_stops_when_told_to() {
        let mounted = Mounted::new("size=8m");
        let disk = mounted.open().unwrap();
        let error = disk.fill(0, || true).unwrap_err();
        assert!(matches!(error, DiskError::Stopped { .. }), "{error}");
        assert_eq!(disk.free().unwrap().1, 8 << 20);
    }
}
