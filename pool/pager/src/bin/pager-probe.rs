//! A VMM in miniature: maps base memory as QEMU does and checks every byte it reads.
//!
//! The tests run it as a process of its own. Guest memory is a pattern that is computed from each
//! offset (see [`expected_page`]), so a wrong byte is found without a second copy. It prints
//! `{"uffd":N,"addr":A,"len":L,"base":B}` once it is ready, as the library preloaded into QEMU
//! does, and `{"pages":P,"wrong":W,"nanos":T}` after each pass.
//!
//! ```text
//! pager-probe socket=… snapshot=… dir=… bytes=… [prefetch=none] [population=copy]
//!             [order=shuffled] [every=1] [passes=1] [write=no] [discard=no] [hold=no] [attach=yes]
//! pager-probe pattern=ROOT bytes=N [number=0] [diff=no]
//!             makes a snapshot of the pattern in ROOT/snapshots and ROOT/layers, prints its id
//! ```
//!
//! With `hold=yes` it reads one line from stdin before each pass, with `every=N` it reads only one
//! 64 KiB window in N, with `discard=yes` it gives all its memory back after each pass. With
//! `diff=yes` the pattern's snapshot is another one's, corrected by a scattered diff layer.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, Write as _},
    os::{fd::AsFd as _, fd::AsRawFd as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use pool_model::{Generation, Prefetch, SnapshotId, TeamId, TemplateId};
use pool_pager::{
    Attach, PagerClient, Population, start_ticks,
    sys::{DEVICE, Mapping, PAGE_BYTES, Uffd},
};
use pool_store::{LayerStore, NewManifest, PageMap, SnapshotStore};

const DEADLINE: Duration = Duration::from_secs(10);

/// Pages in a window.
const WINDOW: usize = 16;

/// One page in five is a hole, and so is every seventh run of 64 pages.
const fn is_hole(page: usize) -> bool {
    page % 5 == 3 || (page / 64) % 7 == 6
}

/// What page number `page` of the pattern holds. In every other window a page in three can be
/// compressed well, all others can't.
fn expected_page(page: usize, out: &mut [u8; PAGE_BYTES]) {
    out.fill(0);
    if is_hole(page) {
        return;
    }
    let is_plain = (page / WINDOW) % 2 == 1 && page.is_multiple_of(3);
    // SplitMix64 over the offset: no two words are alike.
    let (words, _) = out.as_chunks_mut::<8>();
    for (index, word) in words.iter_mut().enumerate() {
        let seed = (page * PAGE_BYTES / 8 + if is_plain { 0 } else { index }) as u64;
        let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        *word = (x ^ (x >> 31)).to_le_bytes();
    }
}

/// Whether the parent of the `diff=yes` snapshot has something else in this page.
const fn differs(page: usize) -> bool {
    page % 37 == 5 || page % 37 == 6
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    if let Some(path) = options.texts.get("pattern") {
        return make_snapshot(Path::new(path), &options);
    }
    let memory = Memory::open(&options)?;
    memory.attach(&options)?;
    memory.run(&options)?;
    // As a VMM that ends: its memory goes with the process. To unmap it would be an event that
    // waits for the pager, and that no guest can cause.
    std::mem::forget(memory);
    Ok(())
}

/// Makes a snapshot and prints its id.
fn make_snapshot(root: &Path, options: &Options) -> anyhow::Result<()> {
    let bytes = options.number("bytes", None)?;
    let store = SnapshotStore::new(root.join("snapshots"), LayerStore::new(root.join("layers")));
    for dir in ["snapshots", "layers"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    let is_diff = options.is("diff", "yes");
    let mut map = write_layer(store.layers(), None, bytes, |page, content| {
        expected_page(page, content);
        if is_diff && differs(page) {
            content.fill(0xEE);
        }
        true
    })?;
    if is_diff {
        map = write_layer(store.layers(), Some(map), bytes, |page, content| {
            expected_page(page, content);
            differs(page)
        })?;
    }
    let draft = store.begin()?;
    std::fs::write(draft.state(), b"device state")?;
    std::fs::write(draft.scratch(), b"disk")?;
    let manifest = draft.commit(manifest(bytes, options.number("number", Some(0))?)?, &map)?;
    print_line(&manifest.snapshot.to_string())
}

/// Writes the pages that `content` says true for.
fn write_layer(
    layers: &LayerStore,
    parent: Option<PageMap>,
    bytes: usize,
    content: impl Fn(usize, &mut [u8; PAGE_BYTES]) -> bool,
) -> anyhow::Result<PageMap> {
    let mut writer = layers.writer(parent, bytes as u64)?;
    let mut page_content = [0; PAGE_BYTES];
    for page in 0..bytes / PAGE_BYTES {
        if content(page, &mut page_content) {
            writer.put(page as u64, &page_content)?;
        }
    }
    Ok(writer.finish()?.0)
}

/// Snapshots with other numbers have other ids.
fn manifest(bytes: usize, number: usize) -> anyhow::Result<NewManifest> {
    Ok(NewManifest {
        parent: None,
        template: TemplateId::DEFAULT,
        team: TeamId::PLATFORM,
        base_disk_digest: "0".repeat(64),
        kernel: String::new(),
        memory_bytes: bytes as u64,
        vcpus: 1,
        vmm: "probe-1".to_owned(),
        accel: "none".to_owned(),
        cpu: "none".to_owned(),
        cpu_fingerprint: "none".to_owned(),
        envd_version: "1".to_owned(),
        generation: Generation::default(),
        created_at: jiff::Timestamp::from_second(i64::try_from(number)?)?,
    })
}

#[derive(Debug)]
struct Options {
    texts: BTreeMap<String, String>,
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let split = |arg: String| {
            let (name, value) = arg.split_once('=').context("expected name=value")?;
            anyhow::Ok((name.to_owned(), value.to_owned()))
        };
        Ok(Self { texts: args.map(split).collect::<Result<_, _>>()? })
    }

    fn text(&self, name: &str) -> anyhow::Result<&str> {
        self.texts.get(name).map(String::as_str).with_context(|| format!("{name}= is missing"))
    }

    fn number(&self, name: &str, default: Option<usize>) -> anyhow::Result<usize> {
        match (self.texts.get(name), default) {
            (Some(text), _) => text.parse().with_context(|| format!("{name}= is no number")),
            (None, Some(default)) => Ok(default),
            (None, None) => bail!("{name}= is missing"),
        }
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.texts.get(name).is_some_and(|text| text == value)
    }
}

struct Memory {
    runtime: tokio::runtime::Runtime,
    client: PagerClient,
    snapshot: SnapshotId,
    dir: PathBuf,
    base: std::os::fd::OwnedFd,
    mapping: Mapping,
    uffd: Uffd,
}

impl Memory {
    fn open(options: &Options) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let bytes = options.number("bytes", None)?;
        let snapshot = options.text("snapshot")?.parse()?;
        let dir = PathBuf::from(options.text("dir")?);
        let prefetch: Prefetch = options.text("prefetch").unwrap_or("none").parse()?;
        let socket = options.text("socket")?;
        let (client, base) = runtime.block_on(async {
            let client = PagerClient::connect(Path::new(socket), DEADLINE).await?;
            let base = client.base(snapshot, &dir, bytes as u64, prefetch).await?;
            anyhow::Ok((client, base))
        })?;
        let mapping = Mapping::private(base.as_fd(), bytes)?;
        let uffd = Uffd::open_with_events(Path::new(DEVICE))?;
        uffd.register(&mapping)?;
        Ok(Self { runtime, client, snapshot, dir, base, mapping, uffd })
    }

    /// Attaches, unless told that someone else will, and says where memory is.
    fn attach(&self, options: &Options) -> anyhow::Result<()> {
        let (uffd, base) = (self.uffd.as_fd().as_raw_fd(), self.base.as_raw_fd());
        let (addr, len) = (self.mapping.addr(), self.mapping.len());
        let report = format!(r#"{{"uffd":{uffd},"addr":{addr},"len":{len},"base":{base}}}"#);
        if options.is("attach", "no") {
            return print_line(&report);
        }
        let pid = i32::try_from(std::process::id())?;
        let copy = options.is("population", "copy");
        let attach = Attach {
            snapshot: self.snapshot,
            pid,
            pid_start_ticks: start_ticks(pid)?,
            uffd_fd: uffd,
            base_fd: base,
            addr,
            len: len as u64,
            population: if copy { Population::Copy } else { Population::Shared },
            snapshot_dir: self.dir.clone(),
        };
        self.runtime.block_on(self.client.attach(attach))?;
        print_line(&report)
    }

    fn run(&self, options: &Options) -> anyhow::Result<()> {
        let mut stdin = std::io::stdin().lock();
        for _ in 0..options.number("passes", Some(1))? {
            if options.is("hold", "yes") {
                ensure!(stdin.read_line(&mut String::new())? > 0, "stdin ended");
            }
            self.pass(options.is("order", "shuffled"), options.number("every", Some(1))?)?;
            if options.is("write", "yes") {
                self.scribble();
            }
            if options.is("discard", "yes") {
                self.mapping.discard(0, self.mapping.len())?;
            }
        }
        if options.is("hold", "yes") {
            let _ = stdin.read_line(&mut String::new())?; // alive until told, or stdin's end
        }
        Ok(())
    }

    /// Reads every page of every `every`th window once and counts those that aren't as they should
    /// be.
    fn pass(&self, shuffled: bool, every: usize) -> anyhow::Result<()> {
        let pages = self.mapping.len() / PAGE_BYTES;
        let mut read = 0;
        let (mut found, mut expected) = ([0; PAGE_BYTES], [0; PAGE_BYTES]);
        let (mut wrong, mut nanos) = (0, 0);
        for index in 0..pages {
            let page = if shuffled { shuffle(index, pages) } else { index };
            if !(page / WINDOW).is_multiple_of(every) {
                continue;
            }
            read += 1;
            let start = Instant::now();
            self.mapping.read(page * PAGE_BYTES, &mut found);
            nanos += start.elapsed().as_nanos();
            expected_page(page, &mut expected);
            wrong += usize::from(found != expected);
        }
        print_line(&format!(r#"{{"pages":{read},"wrong":{wrong},"nanos":{nanos}}}"#))
    }

    /// Writes every page: what is written must stay private to this process.
    fn scribble(&self) {
        for page in 0..self.mapping.len() / PAGE_BYTES {
            self.mapping.write(page * PAGE_BYTES, b"scribble");
        }
    }
}

/// A permutation of `0..pages` that hardly ever stays in one block; `pages` is a power of two.
const fn shuffle(index: usize, pages: usize) -> usize {
    index.wrapping_mul(40_503) % pages
}

fn print_line(line: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}
