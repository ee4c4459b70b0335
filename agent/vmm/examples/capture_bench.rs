//! Which way finds and reads the pages that a clone wrote fastest?
//!
//! A process maps 512 MiB of base memory privately, reads all of it, and writes 32 MiB: one piece,
//! or single pages all over. Another, as the agent would, looks for those pages in different ways
//! and reads them. Prints a table of medians over interleaved rounds.
//!
//! `cargo run --release -p agent-vmm --example capture_bench [rounds]`
#![allow(unsafe_code)] // maps memory and asks for write protection, in the process that is looked at

use std::{
    error::Error,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    ops::Range,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        memfd::{MFdFlags, memfd_create},
        mman::{MapFlags, ProtFlags, mmap},
        uio::{RemoteIoVec, process_vm_readv},
    },
    unistd::Pid,
};
use pagemap::{Method, OwnPages};

#[path = "../src/sys/pagemap.rs"]
#[allow(dead_code, reason = "not all of it is compared")]
mod pagemap;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PAGE: usize = 4096;
const MEMORY: usize = 512 << 20;
const WRITTEN: usize = 32 << 20;
const CHUNK: usize = 1 << 20;
const ROUNDS: usize = 9;
/// Single pages are written this far apart.
const STRIDE: usize = MEMORY / WRITTEN * PAGE;

const PAGEMAP_SCAN: libc::Ioctl = 0xC060_6610;
const PAGE_IS_WRITTEN: u64 = 1 << 1;
const UFFD_NEW: libc::Ioctl = 0xAA00;
const UFFD_API: libc::Ioctl = 0xC018_AA3F;
const UFFD_REGISTER: libc::Ioctl = 0xC020_AA00;
const UFFD_WRITEPROTECT: libc::Ioctl = 0xC018_AA06;
/// PAGEFAULT_FLAG_WP, WP_HUGETLBFS_SHMEM, WP_UNPOPULATED, WP_ASYNC.
const UFFD_FEATURES: u64 = 1 | 1 << 12 | 1 << 13 | 1 << 15;
const UFFD_MODE_WP: u64 = 1 << 1;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [mode, layout, armed] if mode == "clone" => act_clone(layout, armed == "armed"),
        [rounds] => compare(rounds.parse()?),
        _ => compare(ROUNDS),
    }
}

/// One row of the table: its name, and a figure per layout and round.
type Row = (&'static str, [Vec<f64>; 2]);

fn compare(rounds: usize) -> Result<()> {
    let base = make_base()?;
    let mut rows: Vec<Row> = Vec::new();
    for round in 0..rounds {
        for (column, layout) in ["contiguous", "scattered"].into_iter().enumerate() {
            let mut add = |name, value: f64| match rows.iter_mut().find(|row| row.0 == name) {
                Some(row) => row.1[column].push(value),
                None => {
                    let mut row: Row = (name, Default::default());
                    row.1[column].push(value);
                    rows.push(row);
                }
            };
            let plain = Target::start(&base, layout, "plain")?;
            let armed = Target::start(&base, layout, "armed")?;
            measure(&plain, &armed, &base, round, &mut add)?;
        }
    }
    println!("| median of {rounds} | 32 MiB in one piece | 8192 single pages |\n|---|---:|---:|");
    for (name, mut columns) in rows {
        let [one, many] = columns.each_mut().map(|column| median(column));
        println!("| {name} | {one:.2} | {many:.2} |");
    }
    Ok(())
}

fn measure(
    plain: &Target,
    armed: &Target,
    base: &OwnedFd,
    round: usize,
    add: &mut impl FnMut(&'static str, f64),
) -> Result<()> {
    let pages = WRITTEN / PAGE;
    let own = plain.own(Method::Scan)?;
    // Each round begins with another way, so that none always pays for the first look.
    for step in 0..4 {
        match (round + step) % 4 {
            0 => add("(a) find: pagemap entries, ms", timed(|| plain.own(Method::Entries), pages)?),
            1 => add("(b) find: PAGEMAP_SCAN, ms", timed(|| plain.own(Method::Scan), pages)?),
            2 => add("(c) find and read: compare all, ms", timed(|| plain.unlike(base), pages)?),
            _ => add("(d) find: PAGEMAP_SCAN of written, ms", timed(|| armed.written(), pages)?),
        }
    }
    for step in 0..3 {
        match (round + step) % 3 {
            0 => add("read: /proc/pid/mem, ms", timed(|| plain.read(&own, None), pages)?),
            1 => add("read: process_vm_readv, ms", timed(|| plain.read_vectored(&own), pages)?),
            _ => add(
                "read: /proc/pid/mem, and compare with base, ms",
                timed(|| plain.read(&own, Some(base)), pages)?,
            ),
        }
    }
    add("first write to a page, µs", plain.write_us);
    add("(d) first write to a protected page, µs", armed.write_us);
    add("(d) protecting 512 MiB, ms", armed.arm_ms);
    Ok(())
}

/// Milliseconds that `find` took; it has to cover exactly `pages`.
fn timed(find: impl FnOnce() -> Result<Vec<Range<u64>>>, pages: usize) -> Result<f64> {
    let begun = Instant::now();
    let found = find()?;
    let took = begun.elapsed();
    let covered: u64 = found.iter().map(|range| range.end - range.start).sum();
    if covered != (pages * PAGE) as u64 {
        return Err(format!("{covered} bytes found instead of {pages} pages").into());
    }
    Ok(millis(took))
}

/// Base memory in which every page is there and no two are alike.
fn make_base() -> Result<OwnedFd> {
    let base = File::from(memfd_create(c"capture-bench-base", MFdFlags::empty())?);
    base.set_len(MEMORY as u64)?;
    let mut chunk = vec![1_u8; CHUNK];
    for at in (0..MEMORY).step_by(CHUNK) {
        for (number, page) in chunk.chunks_mut(PAGE).enumerate() {
            page[..8].copy_from_slice(&((at / PAGE + number + 1) as u64).to_ne_bytes());
        }
        base.write_all_at(&chunk, at as u64)?;
    }
    Ok(base.into())
}

/// The process that is looked at, as seen by the one that looks.
struct Target {
    child: Child,
    start: u64,
    write_us: f64,
    arm_ms: f64,
}

impl Target {
    fn start(base: &OwnedFd, layout: &str, armed: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["clone", layout, armed]).stdin(base.try_clone()?).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let words: Vec<f64> = line
            .split_whitespace()
            .skip(1)
            .map(str::parse)
            .collect::<std::result::Result<_, _>>()?;
        let start = line.split_whitespace().next().ok_or("the clone said nothing")?.parse()?;
        let [write_us, arm_ms] = words[..] else { return Err("not two figures".into()) };
        Ok(Self { child, start, write_us, arm_ms })
    }

    fn open(&self, name: &str) -> io::Result<File> {
        File::open(format!("/proc/{}/{name}", self.child.id()))
    }

    fn addresses(&self) -> Range<u64> {
        self.start..self.start + MEMORY as u64
    }

    fn own(&self, method: Method) -> Result<Vec<Range<u64>>> {
        let mut own = OwnPages::new(self.open("pagemap")?, self.addresses(), method);
        let (mut all, mut batch) = (Vec::new(), Vec::new());
        while own.next_batch(&mut batch)? {
            all.append(&mut batch);
        }
        if own.method() != method {
            return Err("this kernel has no PAGEMAP_SCAN".into());
        }
        Ok(all)
    }

    /// Pages written since they were protected.
    fn written(&self) -> Result<Vec<Range<u64>>> {
        let pagemap = self.open("pagemap")?;
        let mut all = Vec::new();
        let mut regions = [[0_u64; 3]; 512];
        let Range { start: mut at, end } = self.addresses();
        while at < end {
            let vec = regions.as_mut_ptr().expose_provenance() as u64;
            let anyof = PAGE_IS_WRITTEN;
            // struct pm_scan_arg; see the module that is included above.
            let mut arg = [96, 0, at, end, 0, vec, 512, 0, 0, 0, anyof, 0_u64];
            // SAFETY: `arg` has the struct's 12 words and names `regions` and their number.
            let filled =
                unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, arg.as_mut_ptr()) };
            let filled = usize::try_from(filled).map_err(|_| io::Error::last_os_error())?;
            all.extend(regions[..filled].iter().map(|region| region[0]..region[1]));
            at = arg[4];
        }
        Ok(all)
    }

    /// Reads everything, and finds what differs from the base.
    fn unlike(&self, base: &OwnedFd) -> Result<Vec<Range<u64>>> {
        let (memory, base) = (self.open("mem")?, File::from(base.try_clone()?));
        let (mut ours, mut theirs) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut all = Vec::new();
        for at in (0..MEMORY as u64).step_by(CHUNK) {
            memory.read_exact_at(&mut ours, self.start + at)?;
            base.read_exact_at(&mut theirs, at)?;
            let pairs = ours.chunks(PAGE).zip(theirs.chunks(PAGE)).enumerate();
            all.extend(pairs.filter(|(_, (ours, theirs))| ours != theirs).map(|(number, _)| {
                let start = self.start + at + (number * PAGE) as u64;
                start..start + PAGE as u64
            }));
        }
        Ok(all)
    }

    /// Reads `own` as the capture does.
    fn read(&self, own: &[Range<u64>], base: Option<&OwnedFd>) -> Result<Vec<Range<u64>>> {
        let memory = self.open("mem")?;
        let base = base.map(|base| base.try_clone().map(File::from)).transpose()?;
        let (mut ours, mut theirs) = (vec![0; CHUNK], vec![0; CHUNK]);
        for range in own {
            for at in range.clone().step_by(CHUNK) {
                let len = usize::try_from(range.end - at)?.min(CHUNK);
                memory.read_exact_at(&mut ours[..len], at)?;
                let Some(base) = &base else { continue };
                base.read_exact_at(&mut theirs[..len], at - self.start)?;
                if ours[..len].chunks(PAGE).zip(theirs.chunks(PAGE)).any(|(a, b)| a == b) {
                    return Err("a written page is as before".into());
                }
            }
        }
        Ok(own.to_vec())
    }

    /// Reads `own` with as few system calls as there can be.
    fn read_vectored(&self, own: &[Range<u64>]) -> Result<Vec<Range<u64>>> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        let mut buffer = vec![0; CHUNK];
        let parts = own.iter().flat_map(|range| {
            let end = range.end;
            range.clone().step_by(CHUNK).map(move |at| (at, end.min(at + CHUNK as u64) - at))
        });
        let remote: Vec<RemoteIoVec> = parts
            .map(|(at, len)| Ok(RemoteIoVec { base: at.try_into()?, len: len.try_into()? }))
            .collect::<Result<_>>()?;
        let each = remote.first().map_or(1, |part| CHUNK / part.len);
        for some in remote.chunks(each) {
            let wanted: usize = some.iter().map(|part| part.len).sum();
            let local = io::IoSliceMut::new(&mut buffer[..wanted]);
            if process_vm_readv(pid, &mut [local], some)? != wanted {
                return Err("a short read".into());
            }
        }
        Ok(own.to_vec())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// The process that is looked at: maps, reads, writes, says where, and waits for its end.
fn act_clone(layout: &str, armed: bool) -> Result<()> {
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let len = MEMORY.try_into()?;
    // SAFETY: a new mapping at an address that the kernel picks replaces no other.
    let at = unsafe { mmap(None, len, access, MapFlags::MAP_PRIVATE, io::stdin().as_fd(), 0) }?;
    // SAFETY: the mapping just made, which advice on huge pages does not change.
    unsafe { libc::madvise(at.as_ptr(), MEMORY, libc::MADV_NOHUGEPAGE) };
    // SAFETY: all of the mapping, which is never unmapped and changed through this alone.
    let memory = unsafe { std::slice::from_raw_parts_mut(at.cast::<u8>().as_ptr(), MEMORY) };
    let start = memory.as_ptr().expose_provenance();
    let sum = memory.iter().step_by(PAGE).fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    std::hint::black_box(sum);

    let begun = Instant::now();
    let _uffd = if armed { Some(protect(start as u64)?) } else { None };
    let arm_ms = millis(begun.elapsed());
    let step = if layout == "scattered" { STRIDE } else { PAGE };
    let begun = Instant::now();
    memory.chunks_mut(step).take(WRITTEN / PAGE).for_each(|pages| pages[..PAGE].fill(0x5A));
    let write_us = millis(begun.elapsed()) * 1000.0 / (WRITTEN / PAGE) as f64;
    println!("{start} {write_us} {arm_ms}");
    io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}

/// Protects all of the mapping; the kernel lifts that by itself from a page that is written.
fn protect(start: u64) -> Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/userfaultfd")?;
    // SAFETY: the request takes its argument by value and makes a new descriptor.
    let uffd = unsafe { libc::ioctl(device.as_raw_fd(), UFFD_NEW, libc::O_CLOEXEC) };
    if uffd < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let uffd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(uffd) };
    let mut api = [0xAA, UFFD_FEATURES, 0_u64];
    let mut range = [start, MEMORY as u64, UFFD_MODE_WP, 0_u64];
    let mut protection = [start, MEMORY as u64, 1_u64];
    let requests = [
        (UFFD_API, api.as_mut_ptr()),
        (UFFD_REGISTER, range.as_mut_ptr()),
        (UFFD_WRITEPROTECT, protection.as_mut_ptr()),
    ];
    for (request, argument) in requests {
        // SAFETY: each array is live and as many words long as the request's struct.
        if unsafe { libc::ioctl(uffd.as_raw_fd(), request, argument) } < 0 {
            return Err(io::Error::last_os_error().into());
        }
    }
    Ok(uffd)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
