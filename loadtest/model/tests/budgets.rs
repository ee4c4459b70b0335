//! Budgets judge runs.

use std::{collections::BTreeMap, time::Duration};

use loadtest_model::{
    Budget, Budgets, CheckOutcome, Disturbance, Harness, Histogram, Machine, Part, Plan, Protocol,
    RunReport, SCHEMA, figure,
};

const PLAN: &str = r#"
    name = "judged"
    target.wrenn_dir = "stack"
    [[scenario]]
    name = "invoke"
    work = { kind = "invoke", function = "hello" }
    load = { kind = "closed", concurrency = 1, requests = 100 }
"#;

/// 100 requests over two protocols: over HTTP/1.1 all went well in 1 to 100 ms.
fn report() -> RunReport {
    let mut latency = Histogram::default();
    (1..=100).for_each(|ms| latency.record(Duration::from_millis(ms)));
    let part = Part {
        scenario: "invoke".into(),
        protocol: Some(Protocol::H1),
        duration_s: 4.0,
        planned: 100,
        sent: 100,
        succeeded: 100,
        timings: BTreeMap::from([
            ("latency".into(), latency.clone()),
            ("server.route".into(), latency),
            ("dns".into(), Histogram::default()),
        ]),
        checks: BTreeMap::from([(
            "nonce".into(),
            CheckOutcome { passed: 99, failed: 1, first: None },
        )]),
        extra: BTreeMap::from([("refill.ms".into(), 17.0), ("odd".into(), f64::NAN)]),
        ..Part::default()
    };
    let errors = BTreeMap::from([("timeout".into(), 3), ("connect".into(), 2)]);
    let other = Part { protocol: Some(Protocol::H2), succeeded: 95, errors, ..part.clone() };
    RunReport {
        schema: SCHEMA,
        version: "0.1.0".into(),
        commit: None,
        started: "2026-01-01T00:00:00Z".parse().expect("a time"),
        took_s: 10.0,
        machine: Machine::default(),
        plan: Plan::from_toml(PLAN).expect("a good plan"),
        parts: vec![part, other],
        disturbances: Vec::new(),
        harness: Harness::default(),
        verdicts: Vec::new(),
    }
}

fn disturbance(lost: u64, outage_ms: f64, recovery_ms: Option<f64>) -> Disturbance {
    let (what, part) = ("kill the agent".into(), "invoke/h2".into());
    Disturbance { what, part, at_s: 1.0, failed: None, lost, outage_ms, recovery_ms }
}

#[test]
fn figures_are_found_by_their_names() {
    let mut report = report();
    report.disturbances = vec![disturbance(3, 80.0, Some(90.0)), disturbance(2, 40.0, Some(120.0))];
    for (name, expected) in [
        ("rate", 23.75),
        ("error_share", 0.05),
        ("planned", 100.0),
        ("sent", 100.0),
        ("succeeded", 95.0),
        ("failed", 5.0),
        ("check.nonce.passed", 99.0),
        ("check.nonce.failed", 1.0),
        ("extra.refill.ms", 17.0),
        ("recovery_ms", 120.0),
        ("outage_ms", 80.0),
        ("lost", 5.0),
        ("latency.min_ms", 1.0),
        ("latency.mean_ms", 50.5),
        ("latency.p50_ms", 50.0),
        ("latency.p90_ms", 90.0),
        ("latency.p95_ms", 95.0),
        ("latency.p99_ms", 99.0),
        ("latency.p999_ms", 100.0),
        ("server.route.max_ms", 100.0),
    ] {
        let found = figure(&report, &report.parts[1], name).unwrap();
        assert!((found - expected).abs() <= expected * 1e-3, "{name}: {found}");
    }
}

#[test]
fn what_was_not_measured_has_no_figure() {
    let mut report = report();
    let found = |report: &RunReport, name| figure(report, &report.parts[1], name);
    for name in [
        "latencies.p99_ms",
        "latency.p98_ms",
        "latency",
        "dns.p99_ms",
        "check.other.failed",
        "check.nonce.skipped",
        "extra.other",
        "recovery_ms",
        "outage_ms",
        "lost",
        "",
    ] {
        assert_eq!(found(&report, name), None, "{name}");
    }
    // It never recovered from one of two.
    report.disturbances = vec![disturbance(3, 80.0, Some(90.0)), disturbance(3, 80.0, None)];
    assert_eq!(found(&report, "recovery_ms"), None);
    assert_eq!(found(&report, "lost"), Some(6.0));
    // Other parts' disturbances are theirs.
    assert_eq!(figure(&report, &report.parts[0], "lost"), None);
    // One could not be done, so nothing is known of how it would have gone.
    report.disturbances[1].failed = Some("no such process".into());
    assert_eq!(found(&report, "lost"), None);
    let idle = Part::default();
    assert_eq!(figure(&report, &idle, "error_share"), None, "of nothing sent");
    assert_eq!(figure(&report, &idle, "rate"), None, "in no time");
}

#[test]
fn each_budget_says_a_word_of_each_of_its_parts() {
    let budgets = Budgets {
        all: vec![
            Budget::at_most("invoke/*", "error_share", 0.0),
            Budget::at_least("invoke/h1", "rate", 25.0),
            Budget::at_most("*/h2", "latency.p99_ms", 20.0),
        ],
    };
    let said: Vec<_> = budgets
        .judge(&report())
        .into_iter()
        .map(|verdict| (verdict.part, verdict.budget, verdict.bound, verdict.kept))
        .collect();
    let expected = [
        ("invoke/h1", "error_share <= 0", 0.0, true),
        ("invoke/h2", "error_share <= 0", 0.0, false),
        ("invoke/h1", "rate >= 25", 25.0, true),
        ("invoke/h2", "latency.p99_ms <= 20", 20.0, false),
    ];
    assert_eq!(said, expected.map(|(part, budget, b, kept)| (part.into(), budget.into(), b, kept)));
}

#[test]
fn a_budget_of_nothing_is_not_kept() {
    for (part, figure) in [
        ("invok/h1", "latency.p99_ms"),
        ("invoke/h1", "latenzy.p99_ms"),
        ("invoke/h1", "dns.p99_ms"),
        ("invoke/h1", "extra.odd"),
        ("invoke/h1", "recovery_ms"),
    ] {
        for budget in [Budget::at_most(part, figure, 1e9), Budget::at_least(part, figure, 0.0)] {
            let verdicts = Budgets { all: vec![budget] }.judge(&report());
            assert_eq!(verdicts.len(), 1);
            assert!(!verdicts[0].kept, "{:?}", verdicts[0]);
            assert_eq!(verdicts[0].part, part);
            assert_eq!(verdicts[0].measured, None);
        }
    }
}

#[test]
fn a_single_sample_is_judged() {
    let mut report = report();
    let mut once = Histogram::default();
    once.record(Duration::from_millis(30));
    report.parts[0].timings.insert("connect".into(), once);
    let budgets = Budgets { all: vec![Budget::at_most("invoke/h1", "connect.p999_ms", 20.0)] };
    let verdicts = budgets.judge(&report);
    assert!(!verdicts[0].kept && verdicts[0].measured.is_some_and(|ms| (ms - 30.0).abs() < 0.1));
}
