//! Invocations one after the other, each with a warm sandbox waiting for it.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, bail, ensure};
use edge_api::{FunctionName, PoolInfo};
use loadtest::{Connection, Protocol, Request, Samples, Stack};
use tokio::time::{Instant, sleep};

use crate::BenchArgs;

/// Longest for a pool to have a warm sandbox again.
const WARM_MAX: Duration = Duration::from_secs(60);
/// How often a pool is looked at meanwhile.
const POLL: Duration = Duration::from_millis(50);
/// The entries of `Server-Timing`, in the order of a request's way.
const ENTRIES: [&str; 4] = ["route", "lease", "restore", "upstream"];

/// What one protocol's invocations took.
#[derive(Default)]
struct Measured {
    total: Samples,
    /// Route and lease together, of invocations that found a warm sandbox.
    to_lease: Samples,
    entries: [Samples; ENTRIES.len()],
}

/// Runs it and gives the report.
pub(crate) async fn run(args: &BenchArgs) -> anyhow::Result<String> {
    let dev_json = args.wrenn_dir.join("dev.json");
    let stack = Stack::open(&dev_json)
        .with_context(|| format!("no stack at {} (run `make dev`)", dev_json.display()))?;
    let function: FunctionName = args.function.parse()?;
    let mut rows = Vec::new();
    let mut all = Measured::default();
    let before = warm(&stack, &function).await?;
    for protocol in Protocol::ALL {
        let measured = one(&stack, &function, protocol, args.invocations, &mut all).await?;
        rows.push((protocol.to_string(), measured));
    }
    let after = warm(&stack, &function).await?;
    rows.push(("all".to_owned(), all));
    Ok(report(args, &rows, &before, &after))
}

async fn one(
    stack: &Stack,
    function: &FunctionName,
    protocol: Protocol,
    invocations: u32,
    all: &mut Measured,
) -> anyhow::Result<Measured> {
    let host = stack.function_host(function.as_str());
    let mut connection = Connection::open(stack, &host, protocol).await?;
    let mut measured = Measured::default();
    for _ in 0..invocations {
        let hits = stats(&warm(stack, function).await?)?.hits;
        let began = Instant::now();
        let answer = connection.call(Request::get("/")).await?;
        let total = began.elapsed().as_secs_f64() * 1e3;
        ensure!(answer.status.is_success(), "{function} answered {}", answer.status);
        let hit = stats(&stack.api().pool(function).await?)?.hits > hits;
        let timing = answer.timing();
        for into in [&mut measured, all] {
            into.total.push(total);
            for (name, samples) in ENTRIES.iter().zip(&mut into.entries) {
                samples.push(timing.get(name).with_context(|| format!("no timing of {name}"))?);
            }
            if let (true, Some(route), Some(lease)) =
                (hit, timing.get("route"), timing.get("lease"))
            {
                into.to_lease.push(route + lease);
            }
        }
    }
    Ok(measured)
}

/// Waits until the pool holds a warm sandbox and nothing else goes on in it.
async fn warm(stack: &Stack, function: &FunctionName) -> anyhow::Result<PoolInfo> {
    let deadline = Instant::now() + WARM_MAX;
    loop {
        let pool = stack.api().pool(function).await?;
        let quiet = pool
            .stats
            .as_ref()
            .is_some_and(|s| s.warm >= 1 && s.restoring == 0 && s.leased == 0 && s.reaping == 0);
        if quiet {
            return Ok(pool);
        }
        if Instant::now() >= deadline {
            bail!("the pool of {function} has no warm sandbox after {WARM_MAX:?}: {pool:?}");
        }
        sleep(POLL).await;
    }
}

fn stats(pool: &PoolInfo) -> anyhow::Result<&edge_api::PoolStats> {
    pool.stats.as_ref().context("the agent doesn't know the pool")
}

fn report(
    args: &BenchArgs,
    rows: &[(String, Measured)],
    before: &PoolInfo,
    after: &PoolInfo,
) -> String {
    let mut text = format!(
        "### Invocations of `{}`, {} by each protocol, one at a time, pool warm\n\n\
         Milliseconds, p50 / p99. A sandbox is restored before its request, so `restore` is not \
         part of the total.\n\n\
         | protocol | total | route + lease on a hit | {} | hits |\n|---|---|---|",
        args.function,
        args.invocations,
        ENTRIES.map(|name| format!("`{name}`")).join(" | "),
    );
    text.push_str(&"---|".repeat(ENTRIES.len() + 1));
    text.push('\n');
    for (name, measured) in rows {
        let Measured { total, to_lease, entries } = measured;
        let entries = entries.each_ref().map(percentiles).join(" | ");
        let hits = format!("{} of {}", to_lease.len(), total.len());
        let (total, to_lease) = (percentiles(total), percentiles(to_lease));
        // Writing to a String does not fail.
        let _ = writeln!(text, "| {name} | {total} | {to_lease} | {entries} | {hits} |");
    }
    if let (Some(before), Some(after)) = (&before.stats, &after.stats) {
        let _ = writeln!(
            text,
            "\nPool: {} restored meanwhile, {} failed; restore {:.1} / {:.1} ms.",
            after.restored - before.restored,
            after.failed - before.failed,
            after.restore_p50_ms,
            after.restore_p99_ms
        );
    }
    text
}

fn percentiles(samples: &Samples) -> String {
    match (samples.percentile(50), samples.percentile(99)) {
        (Some(p50), Some(p99)) => format!("{p50:.2} / {p99:.2}"),
        _ => "-".to_owned(),
    }
}
