//! Where the access log goes, and the thread that writes it.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use crate::{
    line::Lines,
    record::RequestRecord,
    sink::{LineCounts, Sink},
};

/// How often the writer looks for records.
const WRITE_EVERY: Duration = Duration::from_millis(50);
/// Records per worker that may wait.
pub(crate) const WAITING_MAX: usize = 16_384;
/// With so many waiting the writer is woken before its time: what it writes then takes a fraction of a
/// millisecond, so a worker that shares its processor is not kept waiting for longer.
const WAKE_AT: usize = 256;
/// Text that is written in one go.
const WRITE_BYTES: usize = 256 * 1024;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LogTarget {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// The access log's settings.
#[derive(Debug, Clone, Default)]
pub struct LogConfig {
    /// Where lines go.
    pub target: LogTarget,
    /// Share of answers below 400 that is logged, 0 to 1; errors are logged always.
    pub sample: Option<f64>,
}

/// Records on their way to the writer; one per worker, so that nobody else waits for the lock.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    writer: OnceLock<thread::Thread>,
    pub(crate) dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    records: Vec<Arc<RequestRecord>>,
    /// The writer has gone: what comes now is not written.
    closed: bool,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, record: &Arc<RequestRecord>) {
        let mut waiting = self.lock();
        let count = waiting.records.len();
        if waiting.closed || count == WAITING_MAX {
            drop(waiting);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.records.push(Arc::clone(record));
        drop(waiting);
        if count == WAKE_AT
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }

    /// Exchanges the records for the empty `into`.
    fn take(&self, into: &mut Vec<Arc<RequestRecord>>, last: bool) {
        let mut waiting = self.lock();
        waiting.closed |= last;
        std::mem::swap(&mut waiting.records, into);
    }
}

/// Tells the writer to open its file anew.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reopen(Arc<AtomicBool>);

impl Reopen {
    pub(crate) fn ask(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The writer's thread; told to end when this is dropped.
#[derive(Debug)]
pub(crate) struct Writer {
    thread: Option<thread::JoinHandle<()>>,
    ended: oneshot::Receiver<()>,
    stop: Arc<AtomicBool>,
}

impl Writer {
    /// Starts the thread; `None` if nothing is to be written.
    pub(crate) fn start(
        target: &LogTarget,
        outboxes: Vec<Arc<Outbox>>,
        reopen: Reopen,
        counts: Arc<LineCounts>,
    ) -> io::Result<Option<Self>> {
        let Some(sink) = Sink::open(target, counts)? else { return Ok(None) };
        let stop = Arc::new(AtomicBool::new(false));
        let (end, ended) = oneshot::channel();
        let ours = outboxes.clone();
        let stopping = Arc::clone(&stop);
        let thread = thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            run(sink, &ours, &reopen, &stopping);
            let _ = end.send(()); // nobody may wait
        })?;
        for outbox in &outboxes {
            let _ = outbox.writer.set(thread.thread().clone()); // there is one writer
        }
        Ok(Some(Self { thread: Some(thread), ended, stop }))
    }

    /// Writes what waits and ends the thread. If it takes longer than `within` (a disk may hang),
    /// the thread is left to itself: a thread can't be ended from outside.
    pub(crate) async fn stop(mut self, within: Duration) {
        self.ask_to_stop();
        let ended = timeout(within, &mut self.ended).await.is_ok();
        let thread = self.thread.take();
        if !ended {
            tracing::warn!("the access log's end could not be written in time");
        } else if let Some(thread) = thread {
            let _ = thread.join(); // at its end; a panic was reported by its hook
        }
    }

    fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}

fn run(mut sink: Sink, outboxes: &[Arc<Outbox>], reopen: &Reopen, stop: &AtomicBool) {
    let (mut records, mut text) = (Vec::new(), Vec::new());
    let mut lines = Lines::default();
    loop {
        let last = stop.load(Ordering::Acquire);
        if reopen.0.swap(false, Ordering::AcqRel) {
            sink.reopen();
        }
        for outbox in outboxes {
            outbox.take(&mut records, last);
            for record in records.drain(..) {
                lines.write(&mut text, &record);
                if text.len() >= WRITE_BYTES {
                    sink.write(&mut text);
                }
            }
        }
        sink.write(&mut text);
        if last {
            return;
        }
        thread::park_timeout(WRITE_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_handed_over_is_written_and_a_moved_file_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let outbox = Arc::new(Outbox::default());
        let reopen = Reopen::default();
        let target = LogTarget::File(path.clone());
        let counts = Arc::<LineCounts>::default();
        let outboxes = vec![Arc::clone(&outbox)];
        let writer = Writer::start(&target, outboxes, reopen.clone(), Arc::clone(&counts));
        let writer = writer.unwrap().unwrap();
        outbox.push(&Arc::default());
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(&path).unwrap().is_empty() {
            assert!(std::time::Instant::now() < until, "nothing was written");
            thread::sleep(Duration::from_millis(10));
        }
        let moved = dir.path().join("access.log.1");
        std::fs::rename(&path, &moved).unwrap();
        reopen.ask();
        while !path.exists() {
            assert!(std::time::Instant::now() < until, "the file was not opened anew");
            thread::sleep(Duration::from_millis(10));
        }
        for _ in 0..100 {
            outbox.push(&Arc::default());
        }
        writer.stop(Duration::from_secs(60)).await;
        outbox.push(&Arc::default());
        assert_eq!(outbox.dropped.load(Ordering::Relaxed), 1, "it came after the end");
        assert_eq!(counts.written.load(Ordering::Relaxed), 101);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 100);
        assert_eq!(std::fs::read_to_string(&moved).unwrap().lines().count(), 1);
    }

    #[test]
    fn a_full_outbox_drops_and_counts() {
        let outbox = Outbox::default();
        let record = Arc::default();
        for _ in 0..WAITING_MAX + 3 {
            outbox.push(&record);
        }
        assert_eq!(outbox.dropped.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error() {
        let target = LogTarget::File(PathBuf::from("/nonexistent/access.log"));
        assert!(Writer::start(&target, Vec::new(), Reopen::default(), Arc::default()).is_err());
    }

    /// A pipe that nobody reads: once it is full, a write hangs.
    fn hanging(dir: &std::path::Path) -> (LogTarget, std::fs::File) {
        let path = dir.join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let both = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        (LogTarget::File(path), both)
    }

    #[test]
    fn a_disk_that_hangs_does_not_hang_the_end_of_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let (target, _reader) = hanging(dir.path());
        let outbox = Arc::new(Outbox::default());
        let outboxes = vec![Arc::clone(&outbox)];
        let writer = Writer::start(&target, outboxes, Reopen::default(), Arc::default());
        let writer = writer.unwrap().unwrap();
        for _ in 0..5000 {
            outbox.push(&Arc::default()); // far more than a pipe holds
        }
        let started = std::time::Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(writer.stop(Duration::from_millis(300)));
        drop(runtime); // would wait for a blocking task of its own
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(300), "the pipe did not hang: {took:?}");
        assert!(took < Duration::from_secs(30), "{took:?}");
    }

    #[test]
    fn a_dropped_writer_writes_what_waits_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let (outbox, target) = (Arc::new(Outbox::default()), LogTarget::File(path.clone()));
        let outboxes = vec![Arc::clone(&outbox)];
        let writer = Writer::start(&target, outboxes, Reopen::default(), Arc::default());
        outbox.push(&Arc::default());
        drop(writer.unwrap().unwrap());
        let until = std::time::Instant::now() + Duration::from_secs(30);
        while !outbox.lock().closed {
            assert!(std::time::Instant::now() < until, "the thread goes on");
            thread::sleep(Duration::from_millis(5));
        }
        while std::fs::read_to_string(&path).unwrap().lines().count() < 1 {
            assert!(std::time::Instant::now() < until, "the line was not written");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
