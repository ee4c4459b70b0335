//! How the access log's text reaches its target, and how many lines are lost where it doesn't.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::access_log::LogTarget;

/// Lines of the access log by what became of them.
#[derive(Debug, Default)]
pub(crate) struct LineCounts {
    pub(crate) written: AtomicU64,
    /// Handed over, but the target did not take them.
    pub(crate) lost: AtomicU64,
}

/// An open file, or standard output.
#[derive(Debug)]
pub(crate) struct Sink {
    target: LogTarget,
    file: File,
    counts: Arc<LineCounts>,
    failing: bool,
    /// The last write ended within a line.
    torn: bool,
}

impl Sink {
    /// `None` if nothing is to be written.
    pub(crate) fn open(target: &LogTarget, counts: Arc<LineCounts>) -> io::Result<Option<Self>> {
        let file = open(target)?;
        let target = target.clone();
        Ok(file.map(|file| Self { target, file, counts, failing: false, torn: false }))
    }

    /// After the file was moved away by whoever rotates it. The old one is kept if that fails.
    pub(crate) fn reopen(&mut self) {
        match open(&self.target) {
            Ok(Some(file)) => (self.file, self.torn) = (file, false),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "the access log cannot be opened anew"),
        }
    }

    /// Writes whole lines and clears the text; what can't be written is counted and gone.
    pub(crate) fn write(&mut self, text: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        let stdout = (self.target == LogTarget::Stdout).then(|| io::stdout().lock());
        let result = self.write_lines(text);
        drop(stdout); // held so that nobody else's line ends up within ours
        match result {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true; // said once, not per batch
                tracing::error!(%error, "the access log cannot be written");
            }
            Err(_) => {}
        }
        text.clear();
    }

    fn write_lines(&mut self, text: &[u8]) -> io::Result<()> {
        // A line that was cut is ended first, so that the next one can be read.
        let mended = if self.torn { write(&mut self.file, b"\n").1 } else { Ok(()) };
        let (written, result) = match mended {
            Ok(()) => write(&mut self.file, text),
            Err(error) => (0, Err(error)),
        };
        let (told, rest) = text.split_at(written);
        if let Some(last) = told.last() {
            self.torn = *last != b'\n';
        }
        self.counts.written.fetch_add(lines(told), Relaxed);
        self.counts.lost.fetch_add(lines(rest), Relaxed);
        result
    }
}

/// Counts the ends of lines. In pieces whose counts fit into a byte: many bytes at a time, that is.
fn lines(text: &[u8]) -> u64 {
    let of = |piece: &[u8]| piece.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>();
    text.chunks(u8::MAX.into()).map(|piece| u64::from(of(piece))).sum()
}

fn open(target: &LogTarget) -> io::Result<Option<File>> {
    match target {
        LogTarget::Off => Ok(None),
        // Its own descriptor: what the standard library's buffer took would not be counted right.
        LogTarget::Stdout => Ok(Some(File::from(io::stdout().as_fd().try_clone_to_owned()?))),
        LogTarget::File(path) => OpenOptions::new().create(true).append(true).open(path).map(Some),
    }
}

/// Writes all of it, or says how much it was.
fn write(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    fn sink(path: PathBuf) -> (Sink, Arc<LineCounts>) {
        let counts = Arc::<LineCounts>::default();
        let sink = Sink::open(&LogTarget::File(path), Arc::clone(&counts));
        (sink.unwrap().unwrap(), counts)
    }

    fn counted(counts: &LineCounts) -> (u64, u64) {
        (counts.written.load(Relaxed), counts.lost.load(Relaxed))
    }

    #[test]
    fn lines_that_a_full_disk_refuses_are_counted() {
        let (mut sink, counts) = sink("/dev/full".into());
        for _ in 0..2 {
            let mut text = b"one\ntwo\nthree\n".to_vec();
            sink.write(&mut text);
            assert!(text.is_empty(), "it does not pile up");
        }
        assert_eq!(counted(&counts), (0, 6));
    }

    #[test]
    fn a_line_that_was_cut_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let (mut sink, counts) = sink(path.clone());
        // As if the disk had been full in the midst of the second line.
        assert_eq!(write(&mut sink.file, b"{}\n{\"half").0, 9);
        sink.torn = true;
        sink.write(&mut b"{\"next\":1}\n".to_vec());
        sink.write(&mut b"{\"after\":1}\n".to_vec());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{}\n{\"half\n{\"next\":1}\n{\"after\":1}\n");
        assert_eq!(counted(&counts), (2, 0));
    }

    #[test]
    fn a_write_that_ends_within_a_line_counts_that_line_as_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        // A pipe that takes no more answers at once, as its other end is of the same open file.
        let reader = std::os::unix::fs::OpenOptionsExt::custom_flags(
            OpenOptions::new().read(true).write(true),
            nix::fcntl::OFlag::O_NONBLOCK.bits(),
        )
        .open(&path)
        .unwrap();
        let (mut sink, counts) = sink(path);
        sink.file = reader.try_clone().unwrap();
        let mut text = b"0123456789\n".repeat(100_000);
        sink.write(&mut text);
        let (written, lost) = counted(&counts);
        assert!(written > 0 && lost > 0 && written + lost == 100_000, "{written} {lost}");
        assert!(sink.torn, "a pipe's size is no multiple of eleven");
    }
}
