//! The harness against a real stack: every scenario in small, and a kill under load.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use loadtest::Runner;
use loadtest_model::{
    Arrivals, Budgets, ChaosPlan, Fault, Load, Part, Plan, RunReport, TargetPlan, preset,
};
use tokio_util::sync::CancellationToken;

use crate::{fixture::seconds, host, streams, teststack::TestStack};

pub(crate) async fn every_scenario_runs_in_small_and_leaves_nothing(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    streams::deploy_echo(&stack).await?;
    let smoke = preset::preset("smoke", 1.0, "hello")?;
    let report = run(smoke.plan(target(&stack)), smoke.budgets.clone()).await?;
    for verdict in &report.verdicts {
        ensure!(verdict.kept, "{verdict:?}");
    }
    for part in &report.parts {
        let id = part.id();
        ensure!(part.sent > 0 && part.failed() == 0, "{id}: {:?} {:?}", part.errors, part.samples);
        ensure!(part.succeeded == part.sent, "{id}: {} of {}", part.succeeded, part.sent);
    }
    let invoked = find(&report, "invoke/h3")?;
    for check in ["nonce", "distinct_sandbox"] {
        let outcome = invoked.checks.get(check).with_context(|| format!("no check of {check}"))?;
        ensure!(outcome.passed == invoked.sent && outcome.failed == 0, "{check}: {outcome:?}");
    }
    for timing in ["server.route", "server.lease", "server.restore", "server.upstream"] {
        ensure!(invoked.timings.contains_key(timing), "no {timing}");
    }
    let proxied = find(&report, "proxy/h2")?;
    ensure!(proxied.checks["own_sandbox"].passed > 0 && proxied.checks["pattern"].passed > 0);
    ensure!(proxied.bytes_received >= 1024, "{} bytes", proxied.bytes_received);
    ensure!(find(&report, "ws")?.checks["echo"].passed == 3);
    ensure!(find(&report, "sse/h1")?.checks["events"].passed == 1);
    let life = find(&report, "lifecycle")?;
    for step in
        ["create", "exec", "write", "read", "pause", "resume", "exec_after", "kill", "interactive"]
    {
        ensure!(life.timings.contains_key(&format!("step.{step}")), "no step {step}");
    }
    ensure!(life.extra.contains_key("computesdk_score"));
    let pool = find(&report, "pool/h1")?;
    ensure!(pool.sent == 2 && pool.extra["refill_ms"] > 0.0, "{:?}", pool.extra);
    ensure!(!pool.pool.is_empty(), "nobody looked at the pool");
    let zero = find(&report, "scale-from-zero/h1")?;
    let waited = zero.timings["server.lease"].quantile_ms(0.5);
    ensure!(waited > 1.0, "an empty pool took {waited} ms");
    ensure!(report.harness.rss_max_mib > 0.0 && report.machine.cpus > 0);
    host::no_orphans(&stack, true, seconds(60)).await
}

pub(crate) async fn killed_agent_is_noticed_and_recovered_from(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let dev_json = stack.layout().dev_file().display().to_string();
    let mut plan = preset::preset("smoke", 1.0, "hello")?.plan(target(&stack));
    plan.protocols.truncate(1);
    plan.scenarios.retain(|scenario| scenario.name == "invoke");
    plan.scenarios[0].load = Some(Load::Open {
        arrivals: Arrivals::Constant { rate_per_s: 2.0 },
        duration_ms: 15_000,
        max_in_flight: 64,
    });
    let fault = Fault::Kill { pid_file: format!("{dev_json}#/pids/agent").into() };
    plan.chaos = vec![ChaosPlan { at_ms: 3000, every_ms: None, fault }];
    let before = stack.dev()?.pids.agent;
    let report = run(plan, Budgets::default()).await?;
    let [killed] = &report.disturbances[..] else { anyhow::bail!("{:?}", report.disturbances) };
    ensure!(killed.failed.is_none(), "{killed:?}");
    let recovery = killed.recovery_ms.context("it never recovered")?;
    ensure!(Duration::from_secs_f64(recovery / 1e3) < seconds(15), "{killed:?}");
    let part = find(&report, "invoke/h1")?;
    ensure!(part.succeeded > 0 && part.succeeded + part.failed() == part.sent);
    ensure!(killed.lost == part.failed(), "{killed:?} {:?}", part.errors);
    // What was answered was answered rightly, by a machine of its own.
    let wrong = part.errors.keys().find(|kind| kind.starts_with("check_"));
    ensure!(wrong.is_none(), "{:?}", part.samples);
    ensure!(stack.dev()?.pids.agent != before, "the agent was not killed");
    host::no_orphans(&stack, true, seconds(60)).await
}

fn target(stack: &TestStack) -> TargetPlan {
    TargetPlan { wrenn_dir: Some(stack.layout().root().to_owned()), ..TargetPlan::default() }
}

async fn run(plan: Plan, budgets: Budgets) -> anyhow::Result<RunReport> {
    Ok(Runner::new(plan, budgets)?.run(&CancellationToken::new()).await?)
}

fn find<'a>(report: &'a RunReport, id: &str) -> anyhow::Result<&'a Part> {
    report.parts.iter().find(|part| part.id() == id).with_context(|| format!("no part {id}"))
}
