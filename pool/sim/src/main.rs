//! `pool-sim`: prints what sizing policies would have done.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::Parser;
use pool_sim::{
    Family, Kind, Point, Section, Setup, frontier_table, refine, summary_table, sweep, usual_table,
};

/// Simulates sizing policies over synthetic traces and compares them at equal memory.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Random numbers' seed; the same seed gives the same report.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Traces to run: steady, diurnal, bursty, flash, long-tail, mixed; all by default.
    #[arg(long, value_delimiter = ',')]
    traces: Vec<String>,
    /// Hours of virtual time; each trace's own by default: 3, diurnal 24, long-tail 6.
    #[arg(long)]
    hours: Option<f64>,
    /// Policies to compare ours with: fixed, knative; both by default.
    #[arg(long, value_delimiter = ',')]
    policies: Vec<String>,
    /// Median restore time, milliseconds.
    #[arg(long, default_value_t = 400)]
    refill_ms: u64,
    /// Mean service time, milliseconds.
    #[arg(long, default_value_t = 100)]
    service_ms: u64,
    /// Memory of a sandbox, MiB.
    #[arg(long, default_value_t = 128)]
    sandbox_mib: u32,
    /// Memory of the host, MiB; 0: no limit.
    #[arg(long, default_value_t = 0)]
    host_mib: u64,
    /// Functions in the long tail.
    #[arg(long, default_value_t = 10_000)]
    functions: u32,
    /// Print Markdown: a table of the verdicts, and one of all policies at their usual settings.
    #[arg(long)]
    markdown: bool,
    /// Print each trace's table of all settings too.
    #[arg(long)]
    frontier: bool,
    /// Exit with 1 if a trace is lost; a tie, differences within 0.05 points, is none.
    #[arg(long)]
    check: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let setup = setup(&args)?;
    let kinds = chosen(&args.traces, &Kind::ALL, Kind::name, "trace")?;
    let families = chosen(&args.policies, &Family::ALL, Family::name, "policy")?;
    let mut sections = Vec::new();
    for kind in kinds {
        let section = simulate(&args, &setup, kind, &families);
        if !args.markdown {
            println!("{}", section.lines());
        }
        sections.push(section);
    }
    if args.markdown {
        println!("{}\n{}", summary_table(&sections), usual_table(&sections, args.sandbox_mib));
    }
    let lost = sections.iter().any(Section::is_lost);
    Ok(if args.check && lost { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs all policies over one trace, and prints their table if asked to.
fn simulate(args: &Args, setup: &Setup, kind: Kind, families: &[Family]) -> Section {
    let hours = args.hours.unwrap_or(kind.hours());
    let trace = kind.make(args.seed, hours, args.functions);
    let mut ours = sweep(setup, Family::Ours, &trace, args.seed);
    let baselines: Vec<(Family, Vec<Point>)> = families
        .iter()
        .filter(|&&family| family != Family::Ours)
        .map(|&family| (family, sweep(setup, family, &trace, args.seed)))
        .collect();
    let theirs: Vec<Point> = baselines.iter().flat_map(|(_, points)| points.clone()).collect();
    refine(setup, &mut ours, &theirs, &trace, args.seed);
    if args.frontier {
        println!("{}", frontier_table(&trace, &ours, &theirs, args.sandbox_mib));
    }
    Section::new(&trace, &ours, &baselines)
}

fn setup(args: &Args) -> anyhow::Result<Setup> {
    if args.refill_ms == 0 || args.sandbox_mib == 0 {
        bail!("--refill-ms and --sandbox-mib must be more than 0");
    }
    if args.hours.is_some_and(|hours| !(0.001..=1000.0).contains(&hours)) {
        bail!("--hours must be 0.001 to 1000");
    }
    Ok(Setup {
        refill: Duration::from_millis(args.refill_ms),
        service: Duration::from_millis(args.service_ms),
        host_limit: (args.host_mib > 0).then(|| args.host_mib / u64::from(args.sandbox_mib)),
        ..Setup::default()
    })
}

/// Those of `all` that were named, all if none was.
fn chosen<T: Copy>(
    names: &[String],
    all: &[T],
    name: impl Fn(T) -> &'static str,
    what: &str,
) -> anyhow::Result<Vec<T>> {
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    let find = |wanted: &String| {
        let known = all.iter().copied().find(|&one| name(one) == wanted);
        known.with_context(|| {
            let names: Vec<&str> = all.iter().map(|&one| name(one)).collect();
            format!("no {what} `{wanted}`: expected {}", names.join(", "))
        })
    };
    names.iter().map(find).collect()
}
