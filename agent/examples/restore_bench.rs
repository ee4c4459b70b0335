//! What does a restore cost, step by step: on a cold host, with its working set, over memory that is there, into a blank?
//!
//! ```text
//! restore_bench --wrenn-dir DIR [--bin-dir DIR] [--rounds N] [--memory-out FILE]
//! ```
//!
//! FILE gets the guest's memory, for benches of codecs. DIR needs a built image. Everything is made in a directory of its own beside it and removed.
//! Machines are real, the page server is the real one. The kinds of restore take turns, so that a
//! busy moment hits all of them; prints Markdown.

mod support;

use std::time::{Duration, Instant};

use agent::{guest::Guest, lifecycle::Source};
use anyhow::Context as _;
use pool_model::{Prefetch, SnapshotId};
use support::{
    Options, Stage,
    figures::{float, median, mib, ms, p50_p99, percentile, ratio},
    hello,
};

const MEMORY_MIB: u32 = 256;
/// Boots that are timed.
const BOOTS: usize = 3;
/// Restores whose touched pages become the working set: as many as the page server records.
const RECORDED: usize = 3;
/// Restores of an agent that copies pages; each is a cold one.
const COPIES: usize = 10;
/// What an agent reports of a restore, then what is done here.
const STEPS: [&str; 6] = ["slot", "vmm", "memory", "state", "init", "ready"];
const DIAL_MAX: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::read()?;
    let rounds = options.number("--rounds", 100)?;
    let mut kinds = kinds();
    let boots = compare(&options, rounds, &mut kinds).await?;
    let copied = copies(&options, rounds.min(COPIES)).await?;
    print(rounds, &kinds, &boots, &copied);
    Ok(())
}

/// One kind of restore, and what all its rounds showed.
struct Kind {
    name: &'static str,
    /// Whether base memory is dropped before.
    cold: bool,
    prefetch: Prefetch,
    blank: bool,
    steps: [Vec<Duration>; STEPS.len()],
    totals: Vec<Duration>,
    answers: Vec<Duration>,
    faults: Vec<u64>,
    prefetched_bytes: Vec<u64>,
}

impl Kind {
    fn new(name: &'static str, cold: bool, prefetch: Prefetch, blank: bool) -> Self {
        Self {
            name,
            cold,
            prefetch,
            blank,
            steps: Default::default(),
            totals: Vec::new(),
            answers: Vec::new(),
            faults: Vec::new(),
            prefetched_bytes: Vec::new(),
        }
    }

    /// One restore, one request, and the end of both.
    async fn round(&mut self, stage: &Stage, snapshot: SnapshotId) -> anyhow::Result<()> {
        if self.cold {
            stage.agent.host.pager.drop_base(snapshot).await;
        }
        if self.blank {
            stage.blanks(1).await?;
        }
        let began = Instant::now();
        let (sandbox, _) = stage.create(Source::Snapshot(snapshot), 0, self.prefetch).await?;
        let (guest, _) = hello::reach(&sandbox)?;
        let ready = Instant::now();
        guest.dial(hello::port()?, DIAL_MAX).await.context("the server does not listen")?;
        self.note(&guest, ready.elapsed(), began.elapsed());
        hello::get(&guest, "/").await?;
        self.answers.push(began.elapsed());
        let stats = stage.agent.host.pager.stats().await.context("no stats")?;
        let pid = guest.record().pid;
        let clone = stats.clones.iter().find(|clone| clone.pid == pid).context("not attached")?;
        let base = stats.bases.iter().find(|base| base.snapshot == snapshot).context("no base")?;
        self.faults.push(clone.faults);
        self.prefetched_bytes.push(base.prefetched_bytes);
        stage.destroy(&sandbox).await
    }

    fn note(&mut self, guest: &Guest, ready: Duration, total: Duration) {
        for (name, samples) in STEPS.iter().zip(&mut self.steps) {
            let step = guest.steps.iter().find(|(step, _)| step == name);
            samples.push(step.map_or(ready, |(_, took)| *took));
        }
        self.totals.push(total);
    }

    fn row(&self) {
        let steps: Vec<String> = self.steps.iter().map(|samples| p50_p99(samples)).collect();
        println!(
            "| {} | {} | {} | {} | {} | {} |",
            self.name,
            steps.join(" | "),
            p50_p99(&self.totals),
            p50_p99(&self.answers),
            median(&self.faults),
            if self.cold { mib(median(&self.prefetched_bytes)) } else { "–".to_owned() },
        );
    }
}

fn kinds() -> [Kind; 4] {
    [
        Kind::new("cold", true, Prefetch::None, false),
        Kind::new("cold, working set", true, Prefetch::WorkingSet, false),
        Kind::new("base there", false, Prefetch::WorkingSet, false),
        Kind::new("base there, blank", false, Prefetch::WorkingSet, true),
    ]
}

/// All kinds in turns, on two agents: one keeps blanks, one does not. Returns the boots' times.
async fn compare(
    options: &Options,
    rounds: usize,
    kinds: &mut [Kind],
) -> anyhow::Result<Vec<Duration>> {
    let plain = Stage::start(options, &[("blank-vmms", "0")]).await?;
    // Addresses and users that no other agent of this host is given by itself.
    let own = [("blank-vmms", "1"), ("slot-network", "10.128.0.0"), ("first-uid", "600000")];
    let blanks = Stage::start(options, &own).await?;
    let mut boots = Vec::new();
    let mut last = None;
    for _ in 0..BOOTS {
        let (snapshot, took) = hello::deploy(&plain, MEMORY_MIB).await?;
        boots.push(took);
        last = Some(snapshot);
    }
    let snapshots = [last.context("no boot")?, hello::deploy(&blanks, MEMORY_MIB).await?.0];
    if let Some(path) = options.path("--memory-out") {
        hello::write_memory(&plain, snapshots[0], &path)?;
    }
    for (stage, snapshot) in [&plain, &blanks].into_iter().zip(snapshots) {
        warm_up(stage, snapshot).await?;
    }
    for round in 0..rounds {
        // Each round begins with another kind, so that none always follows the same one.
        for step in 0..kinds.len() {
            let kind = &mut kinds[(round + step) % 4];
            let (stage, snapshot) =
                if kind.blank { (&blanks, snapshots[1]) } else { (&plain, snapshots[0]) };
            kind.round(stage, snapshot).await?;
        }
    }
    plain.stop().await?;
    blanks.stop().await?;
    Ok(boots)
}

/// Restores that nobody times: they serve once, and what they touched is the working set and is
/// there from then on; a cold restore leaves it there, too.
async fn warm_up(stage: &Stage, snapshot: SnapshotId) -> anyhow::Result<()> {
    for _ in 0..RECORDED {
        serve_once(stage, snapshot).await?;
    }
    Ok(())
}

async fn serve_once(stage: &Stage, snapshot: SnapshotId) -> anyhow::Result<()> {
    let (sandbox, _) = stage.create(Source::Snapshot(snapshot), 0, Prefetch::None).await?;
    let (guest, _) = hello::reach(&sandbox)?;
    hello::get(&guest, "/").await?;
    stage.agent.host.pager.record(guest.record().pid).await;
    stage.destroy(&sandbox).await
}

/// What restores cost when each clone copies its pages, base or not.
async fn copies(options: &Options, rounds: usize) -> anyhow::Result<Kind> {
    let stage = Stage::start(options, &[("blank-vmms", "0"), ("population", "copy")]).await?;
    let (snapshot, _) = hello::deploy(&stage, MEMORY_MIB).await?;
    let mut kind = Kind::new("each clone copies", false, Prefetch::None, false);
    for _ in 0..rounds {
        kind.round(&stage, snapshot).await?;
    }
    stage.stop().await?;
    Ok(kind)
}

fn print(rounds: usize, kinds: &[Kind; 4], boots: &[Duration], copied: &Kind) {
    println!(
        "{MEMORY_MIB} MiB guest with a Python server; {rounds} restores of each kind in turns;"
    );
    println!(
        "p50 / p99 in ms; page faults and MiB filled ahead: medians up to the first answer.\n"
    );
    println!(
        "| restore | {} | total | first answer | page faults | filled ahead |",
        STEPS.join(" | ")
    );
    println!("|---|{}---|---|---:|---:|", "---|".repeat(STEPS.len()));
    kinds.iter().for_each(Kind::row);
    copied.row();
    let [cold, with_set, there, blank] = kinds;
    let (boot, p50) = (percentile(boots, 50), |kind: &Kind| percentile(&kind.totals, 50));
    let share = ratio(median(&with_set.faults), median(&cold.faults)) * 100.0;
    println!("\n| beside each other | figure |\n|---|---|");
    println!("| boot to an acknowledged `/init`, p50 of {BOOTS} | {} ms |", ms(boot));
    for (name, kind) in [("base there", there), ("base there and a blank", blank)] {
        println!(
            "| boot / restore, {name} | {:.1}x |",
            boot.as_secs_f64() / p50(kind).as_secs_f64()
        );
    }
    println!("| page faults with the working set / without (target at most 5 %) | {share:.1} % |");
    let faults = copied.faults.iter().copied().max().unwrap_or_default();
    let later = float(there.faults.iter().copied().max().unwrap_or_default());
    println!(
        "| page faults of a later clone, most: shared / each copies | {later:.0} / {faults} |"
    );
}
