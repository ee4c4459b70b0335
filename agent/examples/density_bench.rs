//! How much memory do idle clones of one snapshot take: in all, and for one more, kind by kind?
//!
//! ```text
//! density_bench --wrenn-dir DIR [--bin-dir DIR] [--clones N]
//! ```
//!
//! Everything is made in a directory of its own in DIR and removed. Counts what the kernel accounts
//! to each process and its cgroup, not what the host has left: others may use that. Prints Markdown.

mod support;

use std::{fs, sync::Arc, time::Duration};

use agent::{
    journal::{self, Purpose},
    lifecycle::Source,
    sandbox::Sandbox,
};
use agent_vmm::{VmmUsage, vmm_usage};
use anyhow::Context as _;
use pool_model::{Prefetch, SnapshotId};
use support::{
    Options, Stage,
    figures::{float, mib},
    hello,
};
use tokio::time::sleep;

const MEMORY_MIB: u32 = 256;
/// Blanks that wait idle in the second measurement.
const BLANKS: usize = 2;
/// After this a clone has done what it does after its start.
const IDLE: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::read()?;
    let most = options.number("--clones", 50)?;
    let counts: Vec<usize> = [1, 10, 50].into_iter().filter(|count| *count < most).collect();
    let counts: Vec<usize> = counts.into_iter().chain([most]).collect();
    let without = measure(&options, &counts, 0).await?;
    let with = measure(&options, &counts, BLANKS).await?;
    print(&counts, &without, &with);
    Ok(())
}

/// The memory of so many clones and blanks, bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    clones: u64,
    vmm_private: u64,
    guest_private: u64,
    kernel: u64,
    page_tables: u64,
    /// Once, whatever the number of clones.
    base: u64,
    /// QEMU's program and libraries: once.
    program: u64,
    blanks: u64,
    blank_bytes: u64,
}

impl Memory {
    /// What clones take, blanks aside.
    fn of_clones(&self) -> u64 {
        self.vmm_private + self.guest_private + self.kernel
    }

    fn total(&self) -> u64 {
        self.of_clones() + self.base + self.program + self.blank_bytes
    }

    fn each(&self, bytes: u64) -> u64 {
        bytes / self.clones.max(1)
    }
}

/// Adds clones until there are so many, and looks at each of these numbers.
async fn measure(
    options: &Options,
    counts: &[usize],
    blanks: usize,
) -> anyhow::Result<Vec<Memory>> {
    let stage = Stage::start(options, &[("blank-vmms", &blanks.to_string())]).await?;
    let (snapshot, _) = hello::deploy(&stage, MEMORY_MIB).await?;
    let mut clones = Vec::new();
    let mut all = Vec::new();
    for count in counts {
        while clones.len() < *count {
            clones.push(restore(&stage, snapshot, blanks).await?);
        }
        stage.blanks(blanks).await?;
        sleep(IDLE).await;
        all.push(look(&stage, snapshot, &clones).await?);
    }
    stage.stop().await?;
    Ok(all)
}

/// A clone out of a blank, if there are to be any.
async fn restore(
    stage: &Stage,
    snapshot: SnapshotId,
    blanks: usize,
) -> anyhow::Result<Arc<Sandbox>> {
    // Nothing is wanted before the first restore.
    if stage.agent.sandboxes(None).iter().any(|sandbox| sandbox.serving().is_some()) {
        stage.blanks(blanks.min(1)).await?;
    }
    let source = Source::Snapshot(snapshot);
    Ok(stage.create(source, 0, Prefetch::WorkingSet).await?.0)
}

async fn look(
    stage: &Stage,
    snapshot: SnapshotId,
    clones: &[Arc<Sandbox>],
) -> anyhow::Result<Memory> {
    let stats = stage.agent.host.pager.stats().await.context("no stats")?;
    let base = stats.bases.iter().find(|base| base.snapshot == snapshot).context("no base")?;
    let mut memory = Memory { base: base.resident_bytes, ..Memory::default() };
    for clone in clones {
        let usage = vmm_usage(&clone.serving().context("a clone died")?.record())?;
        add(&mut memory, &usage);
    }
    for entry in fs::read_dir(stage.agent.host.layout.sandboxes_dir())? {
        let record = journal::read(&entry?.path())?;
        if let (Purpose::Blank, Some(machine)) = (record.purpose, record.machine) {
            memory.blanks += 1;
            memory.blank_bytes += blank_bytes(machine.pid)?;
        }
    }
    Ok(memory)
}

fn add(memory: &mut Memory, usage: &VmmUsage) {
    memory.clones += 1;
    memory.vmm_private += usage.vmm_private;
    memory.guest_private += usage.guest_private;
    memory.kernel += usage.kernel.max(usage.page_tables);
    memory.page_tables += usage.page_tables;
    memory.program = memory.program.max(usage.vmm_shared);
}

/// A blank has no guest memory yet: its own pages and its page tables.
fn blank_bytes(pid: i32) -> anyhow::Result<u64> {
    let field = |file: &str, name: &str| -> anyhow::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).context(file.to_owned())?;
        Ok(kib.trim().parse::<u64>()? << 10)
    };
    Ok(field("smaps_rollup", "Anonymous:")? + field("status", "VmPTE:")?)
}

fn print(counts: &[usize], without: &[Memory], with: &[Memory]) {
    println!("{MEMORY_MIB} MiB guest with a Python server, idle for {} s; MiB.\n", IDLE.as_secs());
    println!(
        "| clones | total | per clone: VMM private | guest private | kernel (page tables in it) \
         | base, once | QEMU's program, once | one more clone \
         | with {BLANKS} idle blanks: total | one more clone | each blank |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (at, count) in counts.iter().enumerate() {
        let (plain, blank) = (&without[at], &with[at]);
        let previous = at.checked_sub(1);
        println!(
            "| {count} | {} | {} | {} | {} ({}) | {} | {} | {} | {} | {} | {} |",
            mib(plain.total()),
            mib(plain.each(plain.vmm_private)),
            mib(plain.each(plain.guest_private)),
            mib(plain.each(plain.kernel)),
            mib(plain.each(plain.page_tables)),
            mib(plain.base),
            mib(plain.program),
            marginal(plain, previous.map(|at| &without[at])),
            mib(blank.total()),
            marginal(blank, previous.map(|at| &with[at])),
            mib(blank.blank_bytes / blank.blanks.max(1)),
        );
    }
    let (first, last) = (without.first(), without.last());
    if let (Some(first), Some(last)) = (first, last) {
        let whole = float(u64::from(MEMORY_MIB) << 20);
        let each = float(last.total()) / float(last.clones.max(1));
        println!(
            "\nWith {} clones each takes {:.0} % of its guest's {MEMORY_MIB} MiB, all shared parts \
             divided among them; the only one of one {:.0} %.",
            last.clones,
            each * 100.0 / whole,
            float(first.total()) * 100.0 / whole
        );
    }
}

/// What each clone since the number before has added.
fn marginal(now: &Memory, before: Option<&Memory>) -> String {
    let Some(before) = before else { return "–".to_owned() };
    let grown = |memory: &Memory| memory.of_clones() + memory.base;
    mib(grown(now).saturating_sub(grown(before)) / (now.clones - before.clones).max(1))
}
