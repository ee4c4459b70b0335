//! A VMM in miniature: maps base memory as QEMU does and checks every byte it reads.
//!
//! The tests and the benchmark run it as a process of its own. Guest memory is a pattern that is
//! computed from each offset (see [`expected_page`]), so a wrong byte is found without a second
//! copy. It prints `{"uffd":N,"addr":A,"len":L,"base":B}` once it is ready, as the library
//! preloaded into QEMU does, and `{"pages":P,"wrong":W,"nanos":T}` after each pass.
//!
//! ```text
//! pager-probe socket=… snapshot=… file=… bytes=… [population=copy] [order=shuffled]
//!             [passes=1] [write=no] [hold=no] [attach=yes]
//! pager-probe pattern=FILE bytes=N     writes the pattern, with its holes
//! ```
//!
//! With `hold=yes` it reads one line from stdin before each pass.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, Write as _},
    os::{fd::AsFd as _, fd::AsRawFd as _, unix::fs::FileExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use pool_model::SnapshotId;
use pool_pager::{
    Attach, PagerClient, Population, start_ticks,
    sys::{DEVICE, Mapping, PAGE_BYTES, Uffd},
};

const DEADLINE: Duration = Duration::from_secs(5);

/// One page in five is a hole, and so is every seventh run of 64 pages.
const fn is_hole(page: usize) -> bool {
    page % 5 == 3 || (page / 64) % 7 == 6
}

/// What page number `page` of the pattern holds.
fn expected_page(page: usize, out: &mut [u8; PAGE_BYTES]) {
    out.fill(0);
    if is_hole(page) {
        return;
    }
    // SplitMix64 over the offset: no two words are alike.
    let (words, _) = out.as_chunks_mut::<8>();
    for (index, word) in words.iter_mut().enumerate() {
        let seed = (page * PAGE_BYTES / 8 + index) as u64;
        let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        *word = (x ^ (x >> 31)).to_le_bytes();
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    if let Some(path) = options.texts.get("pattern") {
        return write_pattern(Path::new(path), options.number("bytes", None)?);
    }
    let memory = Memory::open(&options)?;
    memory.attach(&options)?;
    memory.run(&options)
}

fn write_pattern(path: &Path, bytes: usize) -> anyhow::Result<()> {
    let file = File::create(path)?;
    file.set_len(bytes as u64)?;
    let mut content = [0; PAGE_BYTES];
    for page in (0..bytes / PAGE_BYTES).filter(|page| !is_hole(*page)) {
        expected_page(page, &mut content);
        file.write_all_at(&content, (page * PAGE_BYTES) as u64)?;
    }
    Ok(())
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
    file: PathBuf,
    base: std::os::fd::OwnedFd,
    mapping: Mapping,
    uffd: Uffd,
}

impl Memory {
    fn open(options: &Options) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let bytes = options.number("bytes", None)?;
        let snapshot = options.text("snapshot")?.parse()?;
        let file = PathBuf::from(options.text("file")?);
        let socket = options.text("socket")?;
        let (client, base) = runtime.block_on(async {
            let client = PagerClient::connect(Path::new(socket), DEADLINE).await?;
            let base = client.base(snapshot, &file, bytes as u64).await?;
            anyhow::Ok((client, base))
        })?;
        let mapping = Mapping::private(base.as_fd(), bytes)?;
        let uffd = Uffd::open(Path::new(DEVICE))?;
        uffd.register(&mapping)?;
        Ok(Self { runtime, client, snapshot, file, base, mapping, uffd })
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
            memory_file: self.file.clone(),
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
            self.pass(options.is("order", "shuffled"))?;
            if options.is("write", "yes") {
                self.scribble();
            }
        }
        if options.is("hold", "yes") {
            let _ = stdin.read_line(&mut String::new())?; // alive until told, or stdin's end
        }
        Ok(())
    }

    /// Reads every page once and counts those that aren't as they should be.
    fn pass(&self, shuffled: bool) -> anyhow::Result<()> {
        let pages = self.mapping.len() / PAGE_BYTES;
        let (mut found, mut expected) = ([0; PAGE_BYTES], [0; PAGE_BYTES]);
        let (mut wrong, mut nanos) = (0, 0);
        for index in 0..pages {
            let page = if shuffled { shuffle(index, pages) } else { index };
            let start = Instant::now();
            self.mapping.read(page * PAGE_BYTES, &mut found);
            nanos += start.elapsed().as_nanos();
            expected_page(page, &mut expected);
            wrong += usize::from(found != expected);
        }
        print_line(&format!(r#"{{"pages":{pages},"wrong":{wrong},"nanos":{nanos}}}"#))
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
