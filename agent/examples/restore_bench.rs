//! What a restore costs beside a boot, and a clone beside a copy; prints Markdown.
//!
//! ```text
//! restore_bench --wrenn-dir DIR [--bin-dir DIR] [--rounds N]
//! ```
//!
//! DIR needs a built image. Everything is made in a directory of its own beside it and removed.
//! Machines are real, the page server is the real one. Run it on a quiet machine.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use agent::{
    agent::Agent,
    journal::Purpose,
    lifecycle::{CreateSandbox, Source},
    sandbox::Sandbox,
    start,
};
use anyhow::{Context as _, bail};
use pool_config::{Inputs, Outcome};
use pool_model::{OnTimeout, SnapshotId, TeamId, TemplateId};

/// Clones that live side by side when memory is looked at.
const CLONES: usize = 10;
const MEMORY_MIB: u32 = 256;

struct Options {
    wrenn_dir: PathBuf,
    bin_dir: PathBuf,
    rounds: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = options()?;
    let shared = measure(&options, "shared").await?;
    let copied = measure(&options, "copy").await?;
    print(&options, &shared, &copied);
    Ok(())
}

/// What one population mode showed.
struct Figures {
    boots: Vec<Duration>,
    restores: Vec<Duration>,
    /// Page-fault events of each of the clones that live side by side, in order.
    faults: Vec<u64>,
    /// Private bytes of each clone's guest memory.
    private: Vec<u64>,
    /// Resident bytes of each VMM that are not guest memory.
    vmm: Vec<u64>,
    base_bytes: u64,
}

async fn measure(options: &Options, population: &str) -> anyhow::Result<Figures> {
    let dir = tempfile::Builder::new().prefix("restore-bench-").tempdir_in(&options.wrenn_dir)?;
    let agent = start_agent(options, dir.path(), population).await?;
    let result = run(&agent, options.rounds).await;
    agent.reap_all().await?;
    agent.host.cancel.cancel();
    agent.host.tasks.close();
    agent.host.pager.stop().await?;
    agent.host.tasks.wait().await;
    result
}

async fn run(agent: &Agent, rounds: usize) -> anyhow::Result<Figures> {
    let mut boots = Vec::new();
    let mut last = None;
    for _ in 0..rounds.clamp(1, 3) {
        if let Some(old) = last.take() {
            destroy(agent, &old).await?;
        }
        let (sandbox, took) = create(agent, Source::Template(TemplateId::DEFAULT)).await?;
        boots.push(took);
        last = Some(sandbox);
    }
    let booted = last.context("at least one boot")?;
    let snapshot = agent.snapshot(booted.id).await?;
    destroy(agent, &booted).await?;
    let clones = side_by_side(agent, snapshot).await?;
    let mut restores = Vec::new();
    for _ in 0..rounds {
        let (sandbox, took) = create(agent, Source::Snapshot(snapshot)).await?;
        restores.push(took);
        destroy(agent, &sandbox).await?;
    }
    Ok(Figures { boots, restores, ..clones })
}

/// Clones that live at the same time: their faults and their memory.
async fn side_by_side(agent: &Agent, snapshot: SnapshotId) -> anyhow::Result<Figures> {
    let mut clones = Vec::new();
    for _ in 0..CLONES {
        clones.push(create(agent, Source::Snapshot(snapshot)).await?.0);
    }
    // Idle: whatever a guest does after its start has been done.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let stats = agent.host.pager.stats().await.context("the page server does not answer")?;
    let mut figures = Figures {
        boots: Vec::new(),
        restores: Vec::new(),
        faults: Vec::new(),
        private: Vec::new(),
        vmm: Vec::new(),
        base_bytes: stats.bases.iter().map(|base| base.resident_bytes).sum(),
    };
    for clone in &clones {
        let record = clone.serving().context("a clone died")?.record();
        let seen = stats.clones.iter().find(|seen| seen.pid == record.pid);
        figures.faults.push(seen.map_or(0, |seen| seen.faults));
        let usage = agent_vmm::clone_usage(&record)?;
        figures.private.push(usage.private_bytes);
        figures.vmm.push(resident(record.pid)?.saturating_sub(usage.resident_bytes));
    }
    for clone in &clones {
        destroy(agent, clone).await?;
    }
    Ok(figures)
}

async fn create(agent: &Agent, source: Source) -> anyhow::Result<(Arc<Sandbox>, Duration)> {
    let memory_mib = if matches!(source, Source::Template(_)) { MEMORY_MIB } else { 0 };
    let began = Instant::now();
    let sandbox = agent
        .create(CreateSandbox {
            sandbox: None,
            source,
            team: TeamId::PLATFORM,
            purpose: Purpose::Sandbox,
            timeout_ms: 0,
            on_timeout: OnTimeout::Kill,
            memory_mib,
            vcpus: 0,
            env: BTreeMap::new(),
            internet: false,
            prefetch: Default::default(),
        })
        .await?;
    Ok((sandbox, began.elapsed()))
}

async fn destroy(agent: &Agent, sandbox: &Arc<Sandbox>) -> anyhow::Result<()> {
    Ok(agent.destroy(sandbox.id).await?)
}

/// Bytes of a process that are in memory (`VmRSS`).
fn resident(pid: i32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}

async fn start_agent(options: &Options, dir: &Path, population: &str) -> anyhow::Result<Agent> {
    for shared in ["kernels", "images"] {
        std::os::unix::fs::symlink(options.wrenn_dir.join(shared), dir.join(shared))?;
    }
    let bin = |name: &str| options.bin_dir.join(name).display().to_string();
    let args = [
        ("--wrenn-dir", dir.display().to_string()),
        ("--pager", bin("pager")),
        ("--qemu-uffd", bin("libqemu_uffd.so")),
        ("--population", population.to_owned()),
    ];
    let inputs = Inputs {
        args: args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect(),
        ..Inputs::default()
    };
    let loader = pool_config::Loader::new("restore_bench", "measures restores");
    match loader.load_from(&inputs)? {
        Outcome::Run(loaded) => start::agent(loaded.layout, loaded.config).await,
        Outcome::Print(text) => bail!("{text}"),
    }
}

fn options() -> anyhow::Result<Options> {
    let mut args: BTreeMap<String, String> = BTreeMap::new();
    let mut given = std::env::args().skip(1);
    while let (Some(flag), Some(value)) = (given.next(), given.next()) {
        args.insert(flag, value);
    }
    let beside = std::env::current_exe()?.ancestors().nth(2).map(Path::to_path_buf);
    let bin_dir = args.get("--bin-dir").map(PathBuf::from).or(beside).context("--bin-dir")?;
    let wrenn_dir = args.get("--wrenn-dir").context("--wrenn-dir is needed")?;
    Ok(Options {
        wrenn_dir: std::fs::canonicalize(wrenn_dir)?,
        bin_dir,
        rounds: args.get("--rounds").map_or(Ok(20), |text| text.parse())?,
    })
}

fn print(options: &Options, shared: &Figures, copied: &Figures) {
    let boot = percentile(&shared.boots, 50);
    let (p50, p99) = (percentile(&shared.restores, 50), percentile(&shared.restores, 99));
    println!("| what ({MEMORY_MIB} MiB guest, {} restores) | figure |\n|---|---|", options.rounds);
    println!("| boot to ready, p50 | {:.0} ms |", ms(boot));
    println!("| restore to ready, p50 / p99 | {:.0} / {:.0} ms |", ms(p50), ms(p99));
    println!("| boot / restore | {:.1}x |", ms(boot) / ms(p50));
    let copy = percentile(&copied.restores, 50);
    println!("| restore when each clone copies its pages, p50 | {:.0} ms |", ms(copy));
    let later = shared.faults[1..].iter().max().copied().unwrap_or(0);
    let first = shared.faults[0];
    #[expect(clippy::cast_precision_loss, reason = "a share, printed with one decimal")]
    let share = later as f64 * 100.0 / first.max(1) as f64;
    println!(
        "| page-fault events, clone 1 / most of clones 2 to {CLONES} | {first} / {later} ({share:.1} %) |"
    );
    println!("| the same when each clone copies | {} each |", copied.faults[CLONES - 1]);
    let (ours, theirs) = (shared.private[CLONES - 1], copied.private[CLONES - 1]);
    println!(
        "| guest memory private to clone {CLONES}, shared / copied | {} / {} MiB ({} %) |",
        ours >> 20,
        theirs >> 20,
        ours * 100 / theirs.max(1)
    );
    println!("| base memory shared by all clones | {} MiB |", shared.base_bytes >> 20);
    println!(
        "| QEMU's own memory per clone (code, TCG cache) | {} MiB |",
        shared.vmm[CLONES - 1] >> 20
    );
}

fn percentile(samples: &[Duration], percent: usize) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
