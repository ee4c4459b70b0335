//! How fast base memory is filled, beside plain userfaultfd, the kernel's own faults and memcpy.
//!
//! `cargo run --release -p pool-pager --example page_server_bench [MIB] [ROUNDS]` prints a Markdown
//! table: all ways in one run, round by round, medians. It needs `/dev/userfaultfd`, and serves in
//! this very process.
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::{
    fs::File,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::FileExt as _,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use pool_model::{Generation, Prefetch, SnapshotId, TeamId, TemplateId};
use pool_pager::{
    Attach, Limits, PagerClient, Population, Server, start_ticks,
    sys::{DEVICE, Event, Events, Mapping, PAGE_BYTES, Uffd},
};
use pool_remote::LayerSource;
use pool_store::{BLOCK_BYTES, LayerStore, NewManifest, SnapshotStore};

const DEADLINE: Duration = Duration::from_secs(60);

/// One line of the table: a name, a unit, and a figure per round.
struct Row(&'static str, &'static str, Vec<f64>);

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let mib: usize = args.next().map_or(Ok(512), |text| text.parse())?;
    let rounds: usize = args.next().map_or(Ok(3), |text| text.parse())?;
    let bench = Bench::new(mib << 20)?;
    let mut rows: Vec<Row> = Vec::new();
    for _ in 0..rounds {
        for (name, unit, figure) in bench.round()? {
            match rows.iter_mut().find(|row| row.0 == name) {
                Some(row) => row.2.push(figure),
                None => rows.push(Row(name, unit, vec![figure])),
            }
        }
    }
    println!("{mib} MiB, medians of {rounds} interleaved rounds\n\n| what | median | unit |");
    println!("|---|---|---|");
    for Row(name, unit, mut figures) in rows {
        figures.sort_by(f64::total_cmp);
        println!("| {name} | {:.2} | {unit} |", figures[figures.len() / 2]);
    }
    Ok(())
}

type Figure = (&'static str, &'static str, f64);

struct Bench {
    dir: tempfile::TempDir,
    bytes: usize,
    raw: SnapshotId,
    lz4: SnapshotId,
    content: Vec<u8>,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new(bytes: usize) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let content = pattern(bytes, 1);
        let raw = snapshot(dir.path(), &content, 1)?;
        // Two words alike in four: what LZ4 makes about half of.
        let lz4 = snapshot(dir.path(), &pattern(bytes, 4), 2)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { dir, bytes, raw, lz4, content, runtime })
    }

    fn pages(&self) -> f64 {
        (self.bytes / PAGE_BYTES) as f64
    }

    fn gib(&self, time: Duration) -> f64 {
        self.bytes as f64 / f64::from(1 << 30) / time.as_secs_f64()
    }

    fn round(&self) -> anyhow::Result<Vec<Figure>> {
        let mut figures = self.ours()?;
        let (full_raw, cpu_raw) = self.full(self.raw)?;
        let (full_lz4, cpu_lz4) = self.full(self.lz4)?;
        figures.push(("(1) ours, prefetch full, raw blocks", "GiB/s", self.gib(full_raw)));
        let rate = self.pages() / full_raw.as_secs_f64();
        figures.push(("(1) ours, prefetch full, raw blocks, pages", "pages/s", rate));
        figures.push(("(1) ours, prefetch full, LZ4 blocks", "GiB/s", self.gib(full_lz4)));
        for (name, cpu) in [
            ("(1) ours, prefetch full, raw blocks, per second of one processor", cpu_raw),
            ("(1) ours, prefetch full, LZ4 blocks, per second of one processor", cpu_lz4),
        ] {
            figures.push((name, "GiB", self.gib(cpu)));
        }
        let plain = self.plain()?;
        figures.push((
            "(a) plain userfaultfd, 4 KiB copies",
            "faults/s",
            self.pages() / plain.as_secs_f64(),
        ));
        let kernel = self.kernel()?;
        figures.push((
            "(b) kernel, private mapping of a full memfd",
            "pages/s",
            self.pages() / kernel.as_secs_f64(),
        ));
        figures.push(("(c) memcpy", "GiB/s", self.gib(self.memcpy())));
        Ok(figures)
    }

    /// First clone: one page per block, then all; second clone: all.
    fn ours(&self) -> anyhow::Result<Vec<Figure>> {
        let pager = Serving::start(self)?;
        let first = pager.clone_of(self, self.raw, Prefetch::None)?;
        let blocks = self.bytes / BLOCK_BYTES;
        let cold = touch(&first, BLOCK_BYTES);
        let stats = self.runtime.block_on(pager.client.stats())?;
        let warm = touch(&first, PAGE_BYTES);
        let second = pager.clone_of(self, self.raw, Prefetch::None)?;
        let shared = touch(&second, PAGE_BYTES);
        let (mut nanos, latency) = (cold.1, stats.totals.latency);
        nanos.sort_unstable();
        let at = |share: usize| nanos[(nanos.len() - 1) * share / 100] as f64 / 1e3;
        let figures = vec![
            (
                "(1) ours, first clone, one page per block",
                "faults/s",
                blocks as f64 / cold.0.as_secs_f64(),
            ),
            ("(1) ours, fault as the guest sees it, p50", "µs", at(50)),
            ("(1) ours, fault as the guest sees it, p99", "µs", at(99)),
            ("(1) ours, fault in the pager, p99 bucket", "µs", latency.quantile_us(0.99) as f64),
            ("(1) ours, first clone, block-wise demand", "GiB/s", self.gib(cold.0)),
            (
                "(1) ours, first clone, then every page",
                "pages/s",
                self.pages() / warm.0.as_secs_f64(),
            ),
            (
                "(2) ours, second clone, every page",
                "pages/s",
                self.pages() / shared.0.as_secs_f64(),
            ),
        ];
        std::mem::forget((first, second)); // unmapping is an event that kills
        pager.stop()?;
        Ok(figures)
    }

    /// How long it takes to fill all of a base ahead of faults, and the processor time of the
    /// threads that do it, which says the same on a busy machine.
    fn full(&self, snapshot: SnapshotId) -> anyhow::Result<(Duration, Duration)> {
        let pager = Serving::start(self)?;
        let dir = self.snapshot_dir(snapshot);
        self.runtime
            .block_on(async {
                let bytes = self.bytes as u64;
                let _base = pager.client.base(snapshot, &dir, bytes, Prefetch::Full).await?;
                let until = Instant::now() + DEADLINE;
                loop {
                    let base = pager.client.stats().await?.bases.remove(0);
                    if base.prefetched_units == base.units {
                        return Ok((Duration::from_micros(base.prefetch_us), prefetching()?));
                    }
                    anyhow::ensure!(Instant::now() < until, "prefetch does not end");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .and_then(|figures| pager.stop().map(|()| figures))
    }

    /// A handler that reads the page of each fault from a file and copies it, nothing else.
    fn plain(&self) -> anyhow::Result<Duration> {
        let file = self.file("plain")?;
        let memfd = File::from(rustix::fs::memfd_create("plain", rustix::fs::MemfdFlags::CLOEXEC)?);
        memfd.set_len(self.bytes as u64)?;
        let mapping = Mapping::private(memfd.as_fd(), self.bytes)?;
        let uffd = Uffd::open(Path::new(DEVICE))?;
        uffd.register(&mapping)?;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let handler = scope.spawn(|| handle(&uffd, &mapping, &file, &done));
            let took = touch(&mapping, PAGE_BYTES).0;
            done.store(true, Ordering::Release);
            handler.join().expect("the handler does not panic")?;
            Ok(took)
        })
    }

    /// What the kernel does by itself when all pages are in the file.
    fn kernel(&self) -> anyhow::Result<Duration> {
        let memfd = File::from(rustix::fs::memfd_create("full", rustix::fs::MemfdFlags::CLOEXEC)?);
        memfd.write_all_at(&self.content, 0)?;
        let mapping = Mapping::private(memfd.as_fd(), self.bytes)?;
        Ok(touch(&mapping, PAGE_BYTES).0)
    }

    fn memcpy(&self) -> Duration {
        let mut to = vec![1_u8; self.bytes];
        let start = Instant::now();
        to.copy_from_slice(&self.content);
        let took = start.elapsed();
        std::hint::black_box(to);
        took
    }

    fn file(&self, name: &str) -> anyhow::Result<File> {
        let path = self.dir.path().join(name);
        std::fs::write(&path, &self.content)?;
        Ok(File::open(path)?)
    }

    fn snapshot_dir(&self, snapshot: SnapshotId) -> PathBuf {
        self.dir.path().join("snapshots").join(snapshot.label())
    }
}

/// A page server in this process.
struct Serving {
    client: PagerClient,
    stopper: pool_pager::Stopper,
    thread: std::thread::JoinHandle<std::io::Result<()>>,
}

impl Serving {
    fn start(bench: &Bench) -> anyhow::Result<Self> {
        let root = bench.dir.path();
        let (socket, pid_file) = (root.join("pager.sock"), root.join("pager.pid"));
        let source = LayerSource::new(LayerStore::new(root.join("layers")), None);
        let server = Server::bind(&socket, &pid_file, Limits::default(), source)?;
        let stopper = server.stopper();
        let thread = std::thread::spawn(move || server.run());
        let client = bench.runtime.block_on(PagerClient::connect(&socket, DEADLINE))?;
        Ok(Self { client, stopper, thread })
    }

    fn clone_of(
        &self,
        bench: &Bench,
        snapshot: SnapshotId,
        prefetch: Prefetch,
    ) -> anyhow::Result<Mapping> {
        let snapshot_dir = bench.snapshot_dir(snapshot);
        let bytes = bench.bytes as u64;
        let base = self.client.base(snapshot, &snapshot_dir, bytes, prefetch);
        let base = bench.runtime.block_on(base)?;
        let mapping = Mapping::private(base.as_fd(), bench.bytes)?;
        let uffd = Uffd::open_with_events(Path::new(DEVICE))?;
        uffd.register(&mapping)?;
        // A second clone in one process: another start makes it another one to the pager.
        let pid = i32::try_from(std::process::id())?;
        let attach = Attach {
            snapshot,
            pid,
            pid_start_ticks: start_ticks(pid)?,
            uffd_fd: uffd.as_fd().as_raw_fd(),
            base_fd: base.as_raw_fd(),
            addr: mapping.addr(),
            len: bytes,
            population: Population::Shared,
            snapshot_dir,
        };
        // The pager takes one range per process. The second clone needs none: all is resident.
        let _ = bench.runtime.block_on(self.client.attach(attach));
        std::mem::forget((uffd, base));
        Ok(mapping)
    }

    fn stop(self) -> anyhow::Result<()> {
        self.stopper.stop();
        Ok(self.thread.join().ok().context("the server panicked")??)
    }
}

/// Processor time of the threads that fill ahead; there are only those of one server at a time.
fn prefetching() -> anyhow::Result<Duration> {
    let mut nanos = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == "prefetch" {
            let times = std::fs::read_to_string(task.join("schedstat"))?;
            let ran = times.split_whitespace().next().context("schedstat is empty")?;
            nanos += ran.parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(nanos))
}

/// Reads a word every `step` bytes; the whole time and each one's nanoseconds.
fn touch(mapping: &Mapping, step: usize) -> (Duration, Vec<u64>) {
    let mut nanos = Vec::with_capacity(mapping.len() / step);
    let mut word = [0; 8];
    let begin = Instant::now();
    for offset in (0..mapping.len()).step_by(step) {
        let start = Instant::now();
        mapping.read(offset, &mut word);
        nanos.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    (begin.elapsed(), nanos)
}

fn handle(uffd: &Uffd, mapping: &Mapping, file: &File, done: &AtomicBool) -> std::io::Result<()> {
    let (mut events, mut page) = (Events::default(), [0; PAGE_BYTES]);
    while !done.load(Ordering::Acquire) {
        let mut fds = [rustix::event::PollFd::new(uffd, rustix::event::PollFlags::IN)];
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        rustix::event::poll(&mut fds, Some(&wait))?;
        uffd.read(&mut events)?;
        for event in events.iter() {
            if let Event::Fault(address) = event {
                let start = address & !(PAGE_BYTES as u64 - 1);
                file.read_exact_at(&mut page, start - mapping.addr())?;
                uffd.copy(start, &page)?;
            }
        }
    }
    Ok(())
}

/// Words of which each stands `repeat` times.
fn pattern(bytes: usize, repeat: usize) -> Vec<u8> {
    let words = (0..bytes / 8).flat_map(|index| {
        let mut x = ((index / repeat) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (x ^ (x >> 27)).to_le_bytes()
    });
    words.collect()
}

fn snapshot(root: &Path, content: &[u8], number: i64) -> anyhow::Result<SnapshotId> {
    let layers = LayerStore::new(root.join("layers"));
    for dir in ["layers", "snapshots"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    let store = SnapshotStore::new(root.join("snapshots"), layers.clone());
    let mut writer = layers.writer(None, content.len() as u64)?;
    writer.put(0, content)?;
    let map = writer.finish()?.0;
    let draft = store.begin()?;
    std::fs::write(draft.state(), b"")?;
    std::fs::write(draft.scratch(), b"")?;
    let new = NewManifest {
        parent: None,
        template: TemplateId::DEFAULT,
        team: TeamId::PLATFORM,
        base_disk_digest: "0".repeat(64),
        kernel: String::new(),
        memory_bytes: content.len() as u64,
        vcpus: 1,
        vmm: "bench-1".to_owned(),
        accel: "none".to_owned(),
        cpu: "none".to_owned(),
        cpu_fingerprint: "none".to_owned(),
        envd_version: "1".to_owned(),
        generation: Generation::default(),
        created_at: jiff::Timestamp::from_second(number)?,
    };
    Ok(draft.commit(new, &map)?.snapshot)
}
