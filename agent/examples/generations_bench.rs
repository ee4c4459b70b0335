//! What does the fiftieth pause and resume of one sandbox cost beside the second: in bytes, in time, in layers?
//!
//! ```text
//! generations_bench --wrenn-dir DIR [--bin-dir DIR] [--generations N]
//! ```
//!
//! The guest writes random bytes over one file in its memory before each pause, so what changed is
//! known and does not compress. Between a pause and its resume the background work on the image is
//! waited for, as a sandbox that nobody needs would. Prints Markdown.

mod support;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    sync::Arc,
    time::{Duration, Instant},
};

use agent::{lifecycle::Source, sandbox::Sandbox};
use agent_vmm::clone_private_bytes;
use anyhow::{Context as _, ensure};
use pool_model::{Prefetch, SnapshotId};
use pool_store::{LayerId, Snapshot};
use support::{
    Options, Stage,
    figures::{mib, ms, percentile, ratio},
    hello,
};
use tokio::time::sleep;

const MEMORY_MIB: u32 = 512;
/// What is written before the first pause, MiB.
const FIRST_MIB: u32 = 32;
/// Written before each later pause in the second measurement, MiB.
const LATER_MIB: u32 = 2;
/// More layers than this are merged while the sandbox is paused.
const LAYERS_KEPT: usize = 8;
/// Longest to wait for that.
const MERGE_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::read()?;
    let generations = options.number("--generations", 50)?;
    let stage = Stage::start(&options, &[]).await?;
    let (snapshot, _) = hello::deploy(&stage, MEMORY_MIB).await?;
    let all = live(&stage, snapshot, generations, FIRST_MIB).await?;
    let little = live(&stage, snapshot, generations, LATER_MIB).await?;
    stage.stop().await?;
    print(&all, &little);
    Ok(())
}

/// One pause and the resume after it.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// What the guest was told to write, bytes.
    written: u64,
    /// The clone's own pages just before the pause, bytes.
    changed: u64,
    /// Memory and device state on the disk, bytes.
    stored: u64,
    pause: Duration,
    resume: Duration,
    layers: usize,
    merged: bool,
}

/// The life of one sandbox; before each pause but the first it writes `later` MiB.
async fn live(
    stage: &Stage,
    snapshot: SnapshotId,
    generations: usize,
    later: u32,
) -> anyhow::Result<Vec<Turn>> {
    let source = Source::Snapshot(snapshot);
    let (sandbox, _) = stage.create(source, 0, Prefetch::WorkingSet).await?;
    hello::run(&sandbox, "mkdir -p /mem && mount -t tmpfs -o size=64m tmpfs /mem").await?;
    let mut turns = Vec::new();
    for generation in 0..generations {
        let mib = if generation == 0 { FIRST_MIB } else { later };
        turns.push(turn(stage, &sandbox, mib).await?);
    }
    let sum = format!("test $(stat -c %s /mem/file) = {}", u64::from(FIRST_MIB) << 20);
    hello::run(&sandbox, &sum).await.context("the file is not what was written")?;
    stage.destroy(&sandbox).await?;
    Ok(turns)
}

async fn turn(stage: &Stage, sandbox: &Arc<Sandbox>, mib: u32) -> anyhow::Result<Turn> {
    let write =
        format!("dd if=/dev/urandom of=/mem/file bs=1M count={mib} conv=notrunc status=none");
    hello::run(sandbox, &write).await?;
    let before = layers(stage)?;
    let changed = clone_private_bytes(&sandbox.serving().context("no guest")?.record())?;
    let began = Instant::now();
    stage.agent.pause(sandbox.id).await?;
    let pause = began.elapsed();
    let image = image(stage, sandbox)?;
    let new = image.map().layers().iter().filter(|layer| !before.contains(layer));
    let mut stored =
        fs::metadata(image.state_path())?.len() + fs::metadata(image.map_path())?.len();
    for layer in new {
        stored += layer_bytes(stage, *layer)?;
    }
    let merged = merged(stage, sandbox, &image).await?;
    let layers = self::image(stage, sandbox)?.map().layers().len();
    let began = Instant::now();
    stage.agent.resume(sandbox.id, 0).await?;
    let resume = began.elapsed();
    Ok(Turn { written: u64::from(mib) << 20, changed, stored, pause, resume, layers, merged })
}

fn image(stage: &Stage, sandbox: &Sandbox) -> anyhow::Result<Snapshot> {
    let image = sandbox.record().image.context("no image")?;
    Ok(stage.agent.host.images(sandbox.id).open(image)?)
}

/// Waits until an image of many layers was replaced by one of few. Says whether it was.
async fn merged(stage: &Stage, sandbox: &Sandbox, image: &Snapshot) -> anyhow::Result<bool> {
    if image.map().layers().len() <= LAYERS_KEPT {
        return Ok(false);
    }
    let until = Instant::now() + MERGE_MAX;
    while sandbox.record().image == Some(image.manifest.snapshot) {
        ensure!(Instant::now() < until, "the layers of {} are not merged", sandbox.id);
        sleep(LOOK_EVERY).await;
    }
    // Its turn is held until the old image is gone.
    drop(sandbox.turn().await);
    ensure!(self::image(stage, sandbox)?.map().bytes() == image.map().bytes(), "another length");
    Ok(true)
}

/// The layers on this host.
fn layers(stage: &Stage) -> anyhow::Result<BTreeSet<LayerId>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(stage.agent.host.layers.dir())? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".blocks"));
        if let Some(id) = id.and_then(|id| id.parse().ok()) {
            found.insert(id);
        }
    }
    Ok(found)
}

/// What a layer takes of the disk.
fn layer_bytes(stage: &Stage, layer: LayerId) -> anyhow::Result<u64> {
    let store = &stage.agent.host.layers;
    let files = [store.blocks_path(layer), store.index_path(layer)];
    // 512: what `st_blocks` counts, whatever the file system's block size.
    files.iter().try_fold(0, |sum, file| Ok(sum + fs::metadata(file)?.blocks() * 512))
}

fn print(all: &[Turn], little: &[Turn]) {
    println!(
        "{MEMORY_MIB} MiB guest, {} pauses and resumes each; times in ms, medians of 3 around.\n",
        all.len()
    );
    println!(
        "| what | {FIRST_MIB} MiB anew each time | {FIRST_MIB} MiB once, then {LATER_MIB} MiB each |"
    );
    println!("|---|---:|---:|");
    let lives = [all, little];
    let row = |name: &str, figure: &dyn Fn(&[Turn]) -> String| {
        println!("| {name} | {} | {} |", figure(lives[0]), figure(lives[1]));
    };
    let sum = |turns: &[Turn], part: fn(&Turn) -> u64| turns[1..].iter().map(part).sum::<u64>();
    let each = |turns: &[Turn], bytes: u64| mib(bytes / (turns.len() as u64 - 1).max(1));
    row("the guest wrote, MiB per pause after the first", &|turns| {
        each(turns, sum(turns, |turn| turn.written))
    });
    row("changed in all (the clone's own pages), MiB", &|turns| {
        each(turns, sum(turns, |turn| turn.changed))
    });
    row("stored (layer, map, device state), MiB", &|turns| {
        each(turns, sum(turns, |turn| turn.stored))
    });
    row("stored / changed (target at most 1.2)", &|turns| {
        let stored = sum(turns, |turn| turn.stored);
        format!("{:.2}", ratio(stored, sum(turns, |turn| turn.changed)))
    });
    row("stored / written", &|turns| {
        let stored = sum(turns, |turn| turn.stored);
        format!("{:.2}", ratio(stored, sum(turns, |turn| turn.written)))
    });
    for (name, part) in
        [("pause", (|turn| turn.pause) as fn(&Turn) -> Duration), ("resume", |turn| turn.resume)]
    {
        for generation in generations(all.len()) {
            row(&format!("{name} of generation {generation}"), &|turns| {
                ms(around(turns, generation, part))
            });
        }
        row(&format!("{name}: last / generation 2 (target at most 1.2)"), &|turns| {
            let last = around(turns, turns.len(), part).as_secs_f64();
            format!("{:.2}", last / around(turns, 2, part).as_secs_f64())
        });
    }
    row("layers in the map: generation 2, most, last", &|turns| {
        let most = turns.iter().map(|turn| turn.layers).max().unwrap_or_default();
        let of = |at: Option<&Turn>| at.map_or(0, |turn| turn.layers);
        format!("{}, {most}, {}", of(turns.get(1)), of(turns.last()))
    });
    row("images whose layers were merged while paused", &|turns| {
        turns.iter().filter(|turn| turn.merged).count().to_string()
    });
}

/// The generations that are printed.
fn generations(count: usize) -> Vec<usize> {
    let mut some: Vec<usize> = [2, 10].into_iter().filter(|number| *number < count).collect();
    some.push(count);
    some
}

/// Median of a generation (counted from 1) and its neighbours.
fn around(turns: &[Turn], generation: usize, part: fn(&Turn) -> Duration) -> Duration {
    let from = generation.saturating_sub(2).min(turns.len().saturating_sub(3));
    let some: Vec<Duration> = turns[from..].iter().take(3).map(part).collect();
    percentile(&some, 50)
}
