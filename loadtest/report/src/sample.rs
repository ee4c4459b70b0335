//! A run that never was: for tests, and for looking at what it is drawn as.

use std::time::Duration;

use loadtest_model::{
    CheckOutcome, Disturbance, Harness, Histogram, Machine, Part, Plan, PoolSample, Protocol,
    RunReport, SCHEMA, Tick, Verdict,
};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const PLAN: &str = r#"
name = "nightly"
protocols = ["h1", "h2", "h3"]
rounds = 3
workers = 2
warmup_ms = 5000

[target]
wrenn_dir = "/run/stack"

[[scenario]]
name = "invoke"
[scenario.work]
kind = "invoke"
function = "hello"
[scenario.load]
kind = "open"
duration_ms = 60000
[scenario.load.arrivals]
kind = "poisson"
rate_per_s = 120.0

[[scenario]]
name = "lifecycle"
[scenario.work]
kind = "lifecycle"
[scenario.load]
kind = "closed"
concurrency = 4
requests = 200

[[chaos]]
at_ms = 20000
[chaos.fault]
kind = "kill"
pid_file = "/run/stack/agent.pid"
"#;

/// A skewed time of about `median` milliseconds: most near it, some far above.
pub(crate) fn skewed(rng: &mut ChaCha8Rng, median: f64) -> Duration {
    let bell: f64 = (0..6).map(|_| rng.random::<f64>()).sum::<f64>() - 3.0;
    let tail = if rng.random::<f64>() < 0.02 { rng.random::<f64>() * 3.0 } else { 0.0 };
    Duration::from_secs_f64(median / 1e3 * (0.35 * bell + tail).exp())
}

fn many(rng: &mut ChaCha8Rng, count: u64, median: f64) -> Histogram {
    let mut all = Histogram::default();
    (0..count).for_each(|_| all.record(skewed(rng, median)));
    all
}

/// One scenario over one protocol whose times are about `median` milliseconds.
pub(crate) fn invoke(rng: &mut ChaCha8Rng, protocol: Protocol, median: f64) -> Part {
    let mut part = Part {
        scenario: "invoke".to_owned(),
        protocol: Some(protocol),
        duration_s: 60.0,
        warmup_requests: 600,
        connections: 41,
        bytes_sent: 0,
        bytes_received: 7200 * 212,
        ..Part::default()
    };
    let mut latency = Histogram::default();
    for at in 0..60_u32 {
        let down = (20..22).contains(&at);
        let planned = rng.random_range(100..140);
        let failed = if down { planned / 2 } else { 0 };
        let slow = if (20..26).contains(&at) { 3.0 } else { 1.0 };
        let seen = many(rng, planned - failed, median * slow);
        if at % 3 == 0 {
            part.segments.push(Histogram::default());
        }
        if let Some(last) = part.segments.last_mut() {
            last.merge(&seen);
        }
        latency.merge(&seen);
        part.ticks.push(Tick {
            at_s: f64::from(at),
            length_s: 1.0,
            planned,
            succeeded: planned - failed,
            failed,
            p50_ms: seen.quantile_ms(0.5),
            p99_ms: seen.quantile_ms(0.99),
            in_flight: rng.random_range(0..9),
        });
        let warm = if down { 0 } else { rng.random_range(5..8) };
        let restoring = if slow > 1.0 { 4 } else { rng.random_range(0..3) };
        let leased = rng.random_range(1..5);
        part.pool.push(PoolSample { at_s: f64::from(at), warm, restoring, leased, reaping: 1 });
    }
    fill(&mut part, rng, latency, median);
    part
}

fn fill(part: &mut Part, rng: &mut ChaCha8Rng, latency: Histogram, median: f64) {
    part.planned = part.ticks.iter().map(|tick| tick.planned).sum();
    part.sent = part.planned;
    part.succeeded = part.ticks.iter().map(|tick| tick.succeeded).sum();
    let failed = part.planned - part.succeeded;
    part.errors = [("connect", failed / 4), ("status_503", failed - failed / 4)]
        .map(|(kind, count)| (kind.to_owned(), count))
        .into();
    part.samples =
        [("status_503".to_owned(), "503: no host for fn_hello (agent_lost)".to_owned())].into();
    part.statuses =
        [("200".to_owned(), part.succeeded), ("503".to_owned(), failed - failed / 4)].into();
    part.checks = ["nonce", "sandbox_distinct", "status"]
        .map(|name| {
            (name.to_owned(), CheckOutcome { passed: part.succeeded, ..Default::default() })
        })
        .into();
    part.extra = [("hit_rate".to_owned(), 0.973), ("refill_ms".to_owned(), 184.2)].into();
    part.timings = [
        ("service", part.succeeded, median * 0.97),
        ("send_lag", part.succeeded, 0.04),
        ("connect", 41, 0.06),
        ("handshake", 41, 2.1),
        ("first_byte", part.succeeded, median * 0.94),
        ("last_byte", part.succeeded, 0.05),
        ("server.route", part.succeeded, 0.03),
        ("server.lease", part.succeeded, 0.09),
        ("server.restore", part.succeeded / 30, median * 1.8),
        ("server.upstream", part.succeeded, median * 0.8),
    ]
    .map(|(name, count, median)| (name.to_owned(), many(rng, count, median)))
    .into();
    part.timings.insert("latency".to_owned(), latency);
}

fn lifecycle(rng: &mut ChaCha8Rng, scale: f64) -> Part {
    let steps = [
        ("latency", 420.0),
        ("service", 420.0),
        ("step.create", 61.0),
        ("step.exec", 24.0),
        ("step.files", 9.0),
        ("step.pause", 210.0),
        ("step.resume", 48.0),
        ("step.kill", 31.0),
    ];
    Part {
        scenario: "lifecycle".to_owned(),
        duration_s: 21.5,
        planned: 200,
        sent: 200,
        succeeded: 200,
        statuses: [("200".to_owned(), 1400)].into(),
        checks: [("file_same".to_owned(), CheckOutcome { passed: 200, ..Default::default() })]
            .into(),
        timings: steps.map(|(name, ms)| (name.to_owned(), many(rng, 200, ms * scale))).into(),
        extra: [("wall_clock_ms".to_owned(), 21_480.0)].into(),
        ..Part::default()
    }
}

/// A run whose times are `scale` times as long as usual.
pub(crate) fn report(seed: u64, scale: f64) -> RunReport {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut parts: Vec<_> = [(Protocol::H1, 4.1), (Protocol::H2, 4.4), (Protocol::H3, 5.6)]
        .into_iter()
        .map(|(protocol, median)| invoke(&mut rng, protocol, median * scale))
        .collect();
    parts.push(lifecycle(&mut rng, scale));
    RunReport {
        schema: SCHEMA,
        version: "0.1.0".to_owned(),
        commit: Some("4f2a9c1d77e05b0cc1a1d2f3e4b5a6978877a6b5".to_owned()),
        started: "2026-03-01T02:00:00Z".parse().expect("it is a time"),
        took_s: 254.0,
        machine: Machine {
            cpus: 8,
            cpu_model: "AMD EPYC 7R13".to_owned(),
            memory_mib: 31_744,
            kernel: "6.12.0".to_owned(),
            os: "Debian GNU/Linux 13".to_owned(),
        },
        plan: toml_plan(),
        disturbances: disturbances(&parts),
        parts,
        harness: Harness {
            workers: 2,
            cpus_used: 0.42,
            rss_start_mib: 24.0,
            rss_max_mib: 31.5,
            late_sends: 12,
            timed_sends: 21_600,
            ..Harness::default()
        },
        verdicts: vec![
            verdict("invoke/h1", "latency.p99_ms <= 40", Some(31.2), 40.0),
            verdict("invoke/h2", "latency.p50_ms <= 4", Some(4.5), 4.0),
            verdict("lifecycle", "error_share <= 0", Some(0.0), 0.0),
        ],
    }
}

fn toml_plan() -> Plan {
    Plan::from_toml(PLAN).expect("the plan is right")
}

fn verdict(part: &str, budget: &str, measured: Option<f64>, bound: f64) -> Verdict {
    let kept = measured.is_some_and(|measured| measured <= bound);
    Verdict { part: part.to_owned(), budget: budget.to_owned(), measured, bound, kept }
}

fn disturbances(parts: &[Part]) -> Vec<Disturbance> {
    let of = |part: &Part| Disturbance {
        what: "killed the agent".to_owned(),
        part: part.id(),
        at_s: 20.0,
        failed: None,
        lost: part.failed(),
        outage_ms: 1840.0,
        recovery_ms: Some(2012.5),
    };
    parts.iter().filter(|part| part.protocol.is_some()).map(of).collect()
}

/// A run with markup and control characters in every word that came from outside.
pub(crate) fn hostile() -> RunReport {
    let bad = "</td><script>alert(1)</script>\u{1b}[2J|`\"'&".to_owned();
    let mut report = report(3, 1.0);
    report.plan.name = bad.clone();
    report.commit = Some(bad.clone());
    report.machine.cpu_model = bad.clone();
    report.plan.target.url = Some(bad.clone());
    report.harness.bottlenecks.push(bad.clone());
    for verdict in &mut report.verdicts {
        verdict.budget = bad.clone();
    }
    for disturbance in &mut report.disturbances {
        disturbance.what = bad.clone();
    }
    let part = &mut report.parts[0];
    part.errors.insert(bad.clone(), 3);
    part.samples.insert(bad.clone(), bad.clone());
    part.statuses.insert(bad.clone(), 3);
    part.extra.insert(bad.clone(), f64::NAN);
    let failed = CheckOutcome { passed: 1, failed: 2, first: Some(bad.clone()) };
    part.checks.insert(bad.clone(), failed);
    let times = part.timings["service"].clone();
    part.timings.insert(format!("server.{bad}"), times.clone());
    part.timings.insert(format!("step.{bad}"), times);
    part.scenario = bad;
    report
}
