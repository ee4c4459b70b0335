//! Writes a stopped machine's memory to a file.
//!
//! A booted machine's memory is its memfd: its data extents are copied. A clone's memory is its
//! base plus the pages it wrote: the base's file is copied (as a reflink where the file system
//! can) and the process's own pages, found in `/proc/<pid>/pagemap`, are laid over it.
//!
//! # Invariants
//!
//! - A page of zeroes is a hole in the file, never a block.
//! - No page is touched in the clone: nothing is faulted in to be saved.
//! - The file is complete or it is removed.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
    unistd::{Whence, lseek},
};

use crate::{
    error::CaptureError,
    process,
    record::{MachineRecord, MemoryRecord},
    sys,
};

/// Guests and hosts agree on this page size; x86_64 has no other smallest one.
const PAGE: usize = 4096;
/// Read and written at once, bytes.
const CHUNK: usize = 1 << 20;
/// Bits of a pagemap entry (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_OR_SHARED: u64 = 1 << 61;

/// What a capture wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Captured {
    /// Size of guest memory and of the file.
    pub memory_bytes: u64,
    /// Bytes taken from the process: not zero, and in a clone not the base's.
    pub written_bytes: u64,
    /// Pages of the process that were all zeroes, bytes; they became holes.
    pub zero_bytes: u64,
    /// Bytes of the base that were copied. None if it was reflinked, or if there is no base.
    pub base_bytes: u64,
    /// Whether the base's blocks are shared with its file.
    pub reflinked: bool,
}

/// Writes the memory of `record`'s machine, which must be stopped, to the new file `out`.
///
/// A clone needs `base_file`, the memory file of the snapshot it was restored from.
///
/// # Errors
///
/// [`CaptureError`]; `out` is removed then.
///
/// # Cancel safety
///
/// Not cancel-safe: the writing goes on in its thread.
pub async fn capture_memory(
    record: &MachineRecord,
    base_file: Option<&Path>,
    out: &Path,
) -> Result<Captured, CaptureError> {
    let capture = Capture {
        record: record.clone(),
        base_file: base_file.map(Path::to_owned),
        out: out.to_owned(),
    };
    let sandbox = record.sandbox;
    let running = tokio::task::spawn_blocking(move || capture.run());
    running.await.unwrap_or_else(|panicked| {
        let source = io::Error::other(panicked);
        Err(CaptureError::Io { sandbox, step: "run", source })
    })
}

struct Capture {
    record: MachineRecord,
    base_file: Option<PathBuf>,
    out: PathBuf,
}

impl Capture {
    fn run(&self) -> Result<Captured, CaptureError> {
        let open = OpenOptions::new().read(true).write(true).create_new(true).open(&self.out);
        let out = open.map_err(|e| self.failed("make the file", e))?;
        let captured = out
            .set_len(self.record.memory.bytes())
            .map_err(|e| self.failed("size the file", e))
            .and_then(|()| match self.record.memory {
                MemoryRecord::Owned { fd, .. } => self.owned(fd, &out),
                MemoryRecord::Clone { addr, .. } => self.clone_of_base(addr, &out),
            });
        if captured.is_err()
            && let Err(error) = std::fs::remove_file(&self.out)
        {
            tracing::warn!(path = %self.out.display(), %error, "half a memory file stays");
        }
        captured
    }

    fn owned(&self, fd: i32, out: &File) -> Result<Captured, CaptureError> {
        let memory = self.of_process(&format!("fd/{fd}"))?;
        self.check_size("memory", &memory)?;
        let mut captured = self.empty();
        copy_data(&memory, out, &mut captured).map_err(|e| self.failed("copy the memory", e))?;
        Ok(captured)
    }

    fn clone_of_base(&self, addr: u64, out: &File) -> Result<Captured, CaptureError> {
        let sandbox = self.record.sandbox;
        let base = self.base_file.as_ref().ok_or(CaptureError::BaseMissing { sandbox })?;
        let base = File::open(base).map_err(|e| self.failed("open the base", e))?;
        self.check_size("base memory", &base)?;
        let mut captured = self.empty();
        captured.reflinked = sys::reflink(&base, out).is_ok();
        if !captured.reflinked {
            let mut copied = self.empty();
            copy_data(&base, out, &mut copied).map_err(|e| self.failed("copy the base", e))?;
            captured.base_bytes = copied.written_bytes;
        }
        let pagemap = self.of_process("pagemap")?;
        let memory = self.of_process("mem")?;
        let pages = Overlay { pagemap, memory, addr, out };
        pages
            .lay_over(self.record.memory.bytes(), &mut captured)
            .map_err(|e| self.failed("copy the clone's own pages", e))?;
        Ok(captured)
    }

    fn empty(&self) -> Captured {
        Captured { memory_bytes: self.record.memory.bytes(), ..Captured::default() }
    }

    /// Opens a file of the process, and makes sure afterwards that it was this process's.
    fn of_process(&self, name: &str) -> Result<File, CaptureError> {
        let pid = self.record.pid;
        let file = File::open(format!("/proc/{pid}/{name}"))
            .map_err(|e| self.failed("open the process's memory", e))?;
        match process::start_ticks(pid) {
            Ok(ticks) if ticks == self.record.start_ticks => Ok(file),
            Ok(_) => Err(self.failed("find the process", io::ErrorKind::NotFound.into())),
            Err(error) => Err(self.failed("find the process", error)),
        }
    }

    fn check_size(&self, what: &'static str, file: &File) -> Result<(), CaptureError> {
        let expected = self.record.memory.bytes();
        let found = file.metadata().map_err(|e| self.failed("measure memory", e))?.len();
        if found == expected {
            return Ok(());
        }
        Err(CaptureError::Size { sandbox: self.record.sandbox, what, found, expected })
    }

    fn failed(&self, step: &'static str, source: io::Error) -> CaptureError {
        let sandbox = self.record.sandbox;
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                CaptureError::NoSpace { sandbox, path: self.out.clone() }
            }
            _ => CaptureError::Io { sandbox, step, source },
        }
    }
}

/// Copies the data extents of `from` to the same places in `to`, which has holes there.
fn copy_data(from: &File, to: &File, captured: &mut Captured) -> io::Result<()> {
    let mut buffer = vec![0_u8; CHUNK];
    let mut at = 0;
    while let Some(start) = seek(from, at, Whence::SeekData)? {
        let end = seek(from, start, Whence::SeekHole)?.unwrap_or(start);
        at = start;
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            from.read_exact_at(&mut buffer[..len], at)?;
            write_pages(to, at, &buffer[..len], Zeroes::AreHoles, captured)?;
            at += len as u64;
        }
    }
    Ok(())
}

/// The next offset of a kind, or none behind the last data.
fn seek(file: &File, from: u64, whence: Whence) -> io::Result<Option<u64>> {
    let from = i64::try_from(from).map_err(io::Error::other)?;
    match lseek(file, from, whence) {
        Ok(found) => Ok(Some(u64::try_from(found).map_err(io::Error::other)?)),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The pages of a process, laid over a copy of its base.
struct Overlay<'a> {
    pagemap: File,
    memory: File,
    addr: u64,
    out: &'a File,
}

impl Overlay<'_> {
    fn lay_over(&self, bytes: u64, captured: &mut Captured) -> io::Result<()> {
        const ENTRY: usize = size_of::<u64>();
        let first_page = self.addr / PAGE as u64;
        let pages = bytes / PAGE as u64;
        let mut entries = vec![0_u8; (CHUNK / PAGE) * ENTRY];
        let mut buffer = vec![0_u8; CHUNK];
        let mut page = 0;
        while page < pages {
            let count = usize::try_from(pages - page).unwrap_or(usize::MAX).min(CHUNK / PAGE);
            let entries = &mut entries[..count * ENTRY];
            self.pagemap.read_exact_at(entries, (first_page + page) * ENTRY as u64)?;
            let own: Vec<bool> = entries.chunks_exact(ENTRY).map(is_own).collect();
            for (start, len) in runs(&own) {
                let offset = (page + start as u64) * PAGE as u64;
                let buffer = &mut buffer[..len * PAGE];
                self.memory.read_exact_at(buffer, self.addr + offset)?;
                write_pages(self.out, offset, buffer, Zeroes::ArePunched, captured)?;
            }
            page += count as u64;
        }
        Ok(())
    }
}

/// Whether the page belongs to the process alone, going by its pagemap entry.
fn is_own(entry: &[u8]) -> bool {
    let entry = entry.try_into().map_or(0, u64::from_ne_bytes);
    entry & (PRESENT | SWAPPED) != 0 && entry & FILE_OR_SHARED == 0
}

/// Start and length of each run of `true`.
fn runs(flags: &[bool]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + flags[at..].iter().position(|&flag| flag)?;
        let len = flags[start..].iter().position(|&flag| !flag).unwrap_or(flags.len() - start);
        at = start + len;
        Some((start, len))
    })
}

/// What is where pages of zeroes go.
#[derive(Clone, Copy, PartialEq)]
enum Zeroes {
    AreHoles,
    ArePunched,
}

/// Writes whole pages at `offset`, leaving out those of zeroes.
fn write_pages(
    to: &File,
    offset: u64,
    bytes: &[u8],
    zeroes: Zeroes,
    captured: &mut Captured,
) -> io::Result<()> {
    let full: Vec<bool> =
        bytes.chunks(PAGE).map(|page| page.iter().any(|&byte| byte != 0)).collect();
    for (start, len) in runs(&full) {
        let run = &bytes[start * PAGE..((start + len) * PAGE).min(bytes.len())];
        to.write_all_at(run, offset + (start * PAGE) as u64)?;
        captured.written_bytes += run.len() as u64;
    }
    let empty: Vec<bool> = full.iter().map(|full| !full).collect();
    for (start, len) in runs(&empty) {
        let run = &bytes[start * PAGE..((start + len) * PAGE).min(bytes.len())];
        if zeroes == Zeroes::ArePunched {
            punch(to, offset + (start * PAGE) as u64, run)?;
        }
        captured.zero_bytes += run.len() as u64;
    }
    Ok(())
}

/// Makes a hole; where the file system has none, writes the zeroes.
fn punch(file: &File, offset: u64, zeroes: &[u8]) -> io::Result<()> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let start = i64::try_from(offset).map_err(io::Error::other)?;
    let len = i64::try_from(zeroes.len()).map_err(io::Error::other)?;
    match fallocate(file, flags, start, len) {
        Ok(()) => Ok(()),
        Err(Errno::EOPNOTSUPP) => file.write_all_at(zeroes, offset),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn runs_are_found_at_both_ends() {
        let flags = [true, true, false, true, false, false, true];
        assert_eq!(runs(&flags).collect::<Vec<_>>(), [(0, 2), (3, 1), (6, 1)]);
        assert_eq!(runs(&[]).count(), 0);
        assert_eq!(runs(&[false; 3]).count(), 0);
    }

    #[test]
    fn only_anonymous_pages_are_a_clones_own() {
        let own = |entry: u64| is_own(&entry.to_ne_bytes());
        assert!(own(PRESENT) && own(SWAPPED));
        assert!(!own(PRESENT | FILE_OR_SHARED) && !own(SWAPPED | FILE_OR_SHARED) && !own(0));
    }

    #[test]
    fn zero_pages_become_holes_and_old_blocks_are_freed() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let path = dir.path().join(name);
            OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap()
        };
        let (from, to) = (open("from"), open("to"));
        let size = 64 * PAGE as u64;
        from.set_len(size).unwrap();
        to.set_len(size).unwrap();
        from.write_all_at(&[7; PAGE], 3 * PAGE as u64).unwrap();
        from.write_all_at(&[0; PAGE], 5 * PAGE as u64).unwrap();
        let mut captured = Captured::default();
        copy_data(&from, &to, &mut captured).unwrap();
        assert_eq!(captured.written_bytes, PAGE as u64);
        let blocks = to.metadata().unwrap().blocks();
        assert!(blocks <= 8 * 2, "{blocks} blocks of 512 bytes");

        write_pages(&to, 3 * PAGE as u64, &[0; PAGE], Zeroes::ArePunched, &mut captured).unwrap();
        let mut page = [1; PAGE];
        to.read_exact_at(&mut page, 3 * PAGE as u64).unwrap();
        assert_eq!(page, [0; PAGE]);
    }
}
