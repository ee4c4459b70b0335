//! Reads a stopped machine's memory, page by page, into a sink.
//!
//! A booted machine's memory is its memfd: its data extents are read, and a hole is zeroes that
//! nobody needs to be told of. A clone's memory is its base plus the pages it wrote: only those
//! are read, less those that hold again, or still, what the base holds.
//!
//! # Invariants
//!
//! - No page is touched in the clone that it does not own: nothing is faulted in to be saved.
//!   `/proc/<pid>/mem` refuses a page that is missing instead of waiting for the page server.
//! - A page of zeroes is never left out as equal to the base: where base memory has a hole, it
//!   reads as zeroes too, and means "not there yet". Any other page cannot equal a hole.
//! - A sink sees each page at most once, in ascending order.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};

use crate::{
    error::CaptureError,
    process,
    record::{MachineRecord, MemoryRecord},
    sys::{Method, OwnPages},
};

/// Guests and hosts agree on this page size; x86_64 has no other smallest one.
const PAGE: usize = 4096;
/// Read at once and handed on at once, bytes.
const CHUNK: usize = 1 << 20;

/// Where a machine's pages go.
pub trait PageSink: Send + 'static {
    /// Takes whole consecutive pages from guest page `page` on, at most 1 MiB of them.
    ///
    /// Pages come in ascending order, and zero pages may be among them. Of a clone, a page that
    /// never comes is as in the base; of a booted machine it is zero.
    ///
    /// # Errors
    ///
    /// Whatever the sink fails with ends the capture. A full disk should be
    /// [`io::ErrorKind::StorageFull`] or [`io::ErrorKind::QuotaExceeded`].
    fn put(&mut self, page: u64, content: &[u8]) -> io::Result<()>;
}

/// What a capture read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Captured {
    /// Size of guest memory.
    pub memory_bytes: u64,
    /// Pages that the machine has of its own: all that exist of a booted machine, those that a
    /// clone wrote. The sink got them, less `same_pages`.
    pub own_pages: u64,
    /// Own pages of a clone that equal the base's, which the sink did not get.
    pub same_pages: u64,
    /// How long it took to find the pages.
    pub scan: Duration,
    /// How long it took to read, compare and hand them on: most of it is the sink's.
    pub copy: Duration,
}

/// Hands the memory of `record`'s machine, which must be stopped, to `sink`, and gives that back.
///
/// Save the device state before this, not after it: saving writes to guest memory.
///
/// # Errors
///
/// [`CaptureError`]; the sink, which may have got some pages, is dropped then.
///
/// # Cancel safety
///
/// Not cancel-safe: the reading goes on in its thread and the sink is dropped at its end.
pub async fn capture_memory<S: PageSink>(
    record: &MachineRecord,
    sink: S,
) -> Result<(Captured, S), CaptureError> {
    let capture = Capture { record: record.clone(), sink, captured: Captured::default() };
    let sandbox = record.sandbox;
    let running = tokio::task::spawn_blocking(move || capture.run(Method::Scan));
    running.await.unwrap_or_else(|panicked| {
        let source = io::Error::other(panicked);
        Err(CaptureError::Io { sandbox, step: "run", source })
    })
}

struct Capture<S> {
    record: MachineRecord,
    sink: S,
    captured: Captured,
}

impl<S: PageSink> Capture<S> {
    fn run(mut self, method: Method) -> Result<(Captured, S), CaptureError> {
        let begun = Instant::now();
        self.captured.memory_bytes = self.record.memory.bytes();
        match self.record.memory {
            MemoryRecord::Owned { fd, .. } => self.owned(fd)?,
            MemoryRecord::Clone { base_fd, addr, len, .. } => {
                self.clone_of_base(base_fd, addr..addr + len, method)?;
            }
            MemoryRecord::Blank { .. } => {
                let none = io::ErrorKind::InvalidInput.into();
                return Err(self.failed("look at memory that a blank has not got", none));
            }
        }
        self.captured.copy = begun.elapsed().saturating_sub(self.captured.scan);
        Ok((self.captured, self.sink))
    }

    /// All that exists of a booted machine's memory.
    fn owned(&mut self, fd: i32) -> Result<(), CaptureError> {
        let memory = self.of_process(&format!("fd/{fd}"))?;
        self.check_size("memory", &memory)?;
        let mut buffer = vec![0_u8; CHUNK];
        let mut at = 0;
        while let Some(extent) = self.next_extent(&memory, at)? {
            at = extent.end;
            for part in parts(extent) {
                let pages = &mut buffer[..len_of(&part)];
                memory
                    .read_exact_at(pages, part.start)
                    .map_err(|e| self.failed("read the memory", e))?;
                self.captured.own_pages += (pages.len() / PAGE) as u64;
                self.put(part.start / PAGE as u64, pages)?;
            }
        }
        Ok(())
    }

    /// The pages that a clone wrote to its mapping at `addresses`.
    fn clone_of_base(
        &mut self,
        base_fd: i32,
        addresses: Range<u64>,
        method: Method,
    ) -> Result<(), CaptureError> {
        let base = self.of_process(&format!("fd/{base_fd}"))?;
        self.check_size("base memory", &base)?;
        let memory = self.of_process("mem")?;
        let pagemap = self.of_process("pagemap")?;
        let first = addresses.start;
        let mut own = OwnPages::new(pagemap, addresses, method);
        let mut buffers = (vec![0_u8; CHUNK], vec![0_u8; CHUNK]);
        let mut found = Vec::new();
        while self.scan(&mut own, &mut found)? {
            for part in found.drain(..).flat_map(parts) {
                let pages = &mut buffers.0[..len_of(&part)];
                memory
                    .read_exact_at(pages, part.start)
                    .map_err(|e| self.failed("read the clone's own pages", e))?;
                let of_base = &mut buffers.1[..pages.len()];
                base.read_exact_at(of_base, part.start - first)
                    .map_err(|e| self.failed("read base memory", e))?;
                self.put_changed((part.start - first) / PAGE as u64, pages, of_base)?;
            }
        }
        Ok(())
    }

    fn scan(
        &mut self,
        own: &mut OwnPages,
        found: &mut Vec<Range<u64>>,
    ) -> Result<bool, CaptureError> {
        let begun = Instant::now();
        let more = own.next_batch(found).map_err(|e| self.failed("find the clone's own pages", e));
        self.captured.scan += begun.elapsed();
        more
    }

    /// Hands on what differs from the base, as few runs of pages.
    fn put_changed(&mut self, first: u64, pages: &[u8], base: &[u8]) -> Result<(), CaptureError> {
        let mut run = 0..0;
        for (page, of_base) in pages.chunks(PAGE).zip(base.chunks(PAGE)) {
            self.captured.own_pages += 1;
            let end = run.end + page.len();
            if is_same(page, of_base) {
                self.captured.same_pages += 1;
                self.put(first + (run.start / PAGE) as u64, &pages[run])?;
                run = end..end;
            } else {
                run.end = end;
            }
        }
        self.put(first + (run.start / PAGE) as u64, &pages[run])
    }

    fn put(&mut self, page: u64, content: &[u8]) -> Result<(), CaptureError> {
        if content.is_empty() {
            return Ok(());
        }
        let sandbox = self.record.sandbox;
        self.sink.put(page, content).map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                CaptureError::NoSpace { sandbox, page, source }
            }
            _ => CaptureError::Io { sandbox, step: "hand its pages on", source },
        })
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

    /// The first data at or behind `at`, if there is any.
    fn next_extent(&self, file: &File, at: u64) -> Result<Option<Range<u64>>, CaptureError> {
        let seek = |from, whence| seek(file, from, whence);
        let extent = seek(at, Whence::SeekData).and_then(|start| match start {
            Some(start) => Ok(seek(start, Whence::SeekHole)?.map(|end| start..end)),
            None => Ok(None),
        });
        extent.map_err(|e| self.failed("find the memory's data", e))
    }

    fn failed(&self, step: &'static str, source: io::Error) -> CaptureError {
        CaptureError::Io { sandbox: self.record.sandbox, step, source }
    }
}

/// Whether a clone's page may be left out for the base's. Zeroes never may: see the module's doc.
fn is_same(page: &[u8], of_base: &[u8]) -> bool {
    page == of_base && page.iter().any(|&byte| byte != 0)
}

/// Cuts a range into parts that fit a buffer.
fn parts(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    range.step_by(CHUNK).map(move |start| start..end.min(start + CHUNK as u64))
}

/// Length of one of the [`parts`].
fn len_of(part: &Range<u64>) -> usize {
    usize::try_from(part.end - part.start).map_or(CHUNK, |len| len.min(CHUNK))
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

#[cfg(test)]
mod tests;
