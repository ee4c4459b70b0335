//! Differences that are there are seen; differences that are not, are not.

use std::time::Duration;

use loadtest_model::{Histogram, Part, Protocol, names};
use proptest::prelude::*;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::sample;

fn row<'a>(all: &'a [Row], figure: &str) -> &'a Row {
    all.iter().find(|row| row.figure == figure).unwrap_or_else(|| panic!("no {figure} in {all:#?}"))
}

/// A part with `segments` segments of `each` requests, whose times are `scale` times as long.
fn part(seed: u64, segments: usize, each: usize, scale: f64) -> Part {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut part = Part { scenario: "x".to_owned(), duration_s: 60.0, ..Part::default() };
    let mut latency = Histogram::default();
    for _ in 0..segments {
        // Segments are alike but not the same, as those of a real run.
        let drift = 1.0 + 0.04 * (rng.random::<f64>() - 0.5);
        let mut segment = Histogram::default();
        (0..each).for_each(|_| segment.record(sample::skewed(&mut rng, 10.0 * scale * drift)));
        latency.merge(&segment);
        part.segments.push(segment);
    }
    part.sent = latency.len();
    part.succeeded = latency.len();
    part.timings.insert(names::SERVICE.to_owned(), latency.clone());
    part.timings.insert(names::LATENCY.to_owned(), latency);
    part
}

/// The rows of comparisons of runs of which the second's times are `scale` times as long.
fn compared(seeds: u64, scale: f64) -> Vec<Vec<Row>> {
    let one = |seed| rows::of(&part(seed * 2, 20, 60, 1.0), &part(seed * 2 + 1, 20, 60, scale));
    (0..seeds).map(one).collect()
}

/// Of how many of them a row is as asked.
fn how_many(all: &[Vec<Row>], figure: &str, good: impl Fn(&Row) -> bool) -> usize {
    all.iter().filter(|rows| good(row(rows, figure))).count()
}

// 40 runs with a 95 % interval: fewer than 33 would come about once in ten thousand times. The
// seeds are fixed, so it either never happens or always does.
#[test]
fn what_is_the_same_is_mostly_not_told_apart() {
    let all = compared(40, 1.0);
    for figure in ["latency p50", "latency p99", "latency mean", "service mean", "service p90"] {
        let same = how_many(&all, figure, |row| row.verdict == Verdict::NoDifference);
        assert!(same >= 33, "{figure}: {same} of 40");
    }
}

#[test]
fn a_tenth_slower_is_seen_and_its_size_is_in_the_interval() {
    let all = compared(40, 1.1);
    for figure in ["latency p50", "service p50"] {
        let seen = how_many(&all, figure, |row| row.verdict == Verdict::Worse);
        assert!(seen >= 36, "{figure}: seen in {seen} of 40");
    }
    for figure in ["latency p50", "latency mean", "service p50", "service mean"] {
        let covered = how_many(&all, figure, |row| {
            row.change.is_some_and(|change| change.low <= 10.0 && change.high >= 10.0)
        });
        assert!(covered >= 33, "{figure}: covered by {covered} of 40");
    }
    let faster = compared(10, 0.9);
    let seen = how_many(&faster, "latency p50", |row| row.verdict == Verdict::Better);
    assert!(seen >= 9, "{seen} of 10");
}

#[test]
fn runs_that_were_made_alike_are_compared() {
    let (a, mut b) = (sample::report(1, 1.0), sample::report(2, 1.3));
    b.plan.name = "after".to_owned();
    b.plan.seed = 9;
    b.commit = None;
    b.plan.target.wrenn_dir = Some("/elsewhere".into());
    b.plan.chaos[0].fault = loadtest_model::Fault::Kill { pid_file: "/elsewhere/agent.pid".into() };
    let found = compare(&a, &b).unwrap();
    let h2: Vec<Row> = found.rows.iter().filter(|row| row.part == "invoke/h2").cloned().collect();
    assert_eq!(row(&h2, "latency p50").method, Method::Segments);
    assert_eq!(row(&h2, "latency p50").verdict, Verdict::Worse);
    assert_eq!(row(&h2, "server.upstream p50").verdict, Verdict::Worse);
    assert_eq!(row(&h2, "server.restore p99").verdict, Verdict::TooFew, "some 240 samples");
    assert_eq!(row(&h2, "rate").method, Method::Ticks);
    assert_eq!(compare(&a, &b).unwrap(), found, "chance has a fixed seed");
}

#[test]
fn text_and_json_tell_the_same() {
    let found = compare(&sample::report(1, 1.0), &sample::report(2, 1.3)).unwrap();
    let text = found.text();
    for wanted in [
        "== invoke/h2",
        "latency p99 ",
        "server.upstream p99 ",
        "times in ms",
        "worse",
        "too few",
        "block bootstrap",
        "each",
    ] {
        assert!(text.contains(wanted), "{wanted} in\n{text}");
    }
    assert!(!text.contains("NaN"), "{text}");
    let wide = text.lines().filter(|line| line.chars().count() > 100);
    assert_eq!(wide.collect::<Vec<_>>(), [""; 0]);
    assert_eq!(
        serde_json::from_str::<Comparison>(&found.json()).unwrap().rows.len(),
        found.rows.len()
    );
}

#[test]
fn unlike_runs_are_refused_with_every_reason() {
    let a = sample::report(1, 1.0);
    let mut b = a.clone();
    b.plan.protocols.pop();
    b.plan.rounds = 4;
    b.plan.workers = 5;
    b.plan.warmup_ms = 6;
    b.plan.scenarios[0].timeout_ms = 7;
    b.plan.scenarios[0].load = a.plan.scenarios[1].load.clone();
    b.plan.scenarios[1].work = a.plan.scenarios[0].work.clone();
    b.plan.chaos[0].at_ms = 8;
    b.plan.target = loadtest_model::TargetPlan {
        url: Some("https://example.test".to_owned()),
        headers: [("x".to_owned(), "y".to_owned())].into(),
        ..Default::default()
    };
    b.machine.cpus = 9;
    b.machine.cpu_model = "other".to_owned();
    b.machine.memory_mib = 10;
    b.machine.kernel = "11".to_owned();
    b.harness.bottlenecks = vec!["busy".to_owned()];
    b.parts.pop();
    b.parts[0].timings.insert(names::LATENCY.to_owned(), Histogram::default());
    let refused = compare(&a, &b).unwrap_err();
    let wanted = [
        "protocols differ: h1 h2 h3 and h1 h2",
        "rounds differ: 3 and 4",
        "workers differ: 2 and 5",
        "warm-ups differ, ms: 5000 and 6",
        "invoke: timeouts differ, ms: 60000 and 7",
        "invoke: load differs: open loop",
        "lifecycle: work differs",
        "what is disturbed, or when, differs",
        "kinds of target differ: a Wrenn stack and an https URL",
        "headers of requests differ",
        "machines differ, processors: 8 and 9",
        "machines differ, processor: AMD EPYC 7R13 and other",
        "machines differ, memory, MiB: 31744 and 10",
        "machines differ, kernel: 6.12.0 and 11",
        "the harness was the limit of the second run: busy",
        "only the first has measured lifecycle",
        "invoke/h1 of the second has 0 samples, at least 30 are needed",
    ];
    for wanted in wanted {
        assert!(refused.to_string().contains(wanted), "{wanted} in {refused}");
    }
    assert_eq!(refused.reasons.len(), wanted.len(), "{:#?}", refused.reasons);
    let forced = compare_anyway(&a, &b);
    assert_eq!(forced.unlike, refused.reasons);
    assert!(forced.text().contains("NOT ALIKE") && !forced.text().contains("NaN"));
    assert_eq!(row(&forced.rows, "latency p50").verdict, Verdict::TooFew);
}

#[test]
fn errors_are_compared_in_points() {
    let mut a = part(1, 20, 100, 1.0);
    let mut b = a.clone();
    b.errors.insert("timeout".to_owned(), 60);
    let worse = rows::of(&a, &b);
    let found = row(&worse, "error share");
    assert_eq!(found.verdict, Verdict::Worse);
    let change = found.change.unwrap();
    assert!(
        (change.value - 3.0).abs() < 1e-9 && change.low > 2.0 && change.high < 4.0,
        "{change:?}"
    );
    assert_eq!(row(&rows::of(&b, &a), "error share").verdict, Verdict::Better);
    (a.sent, b.sent) = (10, 10);
    assert_eq!(row(&rows::of(&a, &b), "error share").verdict, Verdict::TooFew);
}

#[test]
fn a_rate_without_ticks_is_a_poisson_count() {
    let a = part(1, 20, 100, 1.0);
    let b = Part { succeeded: 1800, ..a.clone() };
    let all = rows::of(&a, &b);
    let found = row(&all, "rate");
    assert_eq!((found.method, found.verdict), (Method::Poisson, Verdict::Worse));
    let change = found.change.unwrap();
    assert!((change.value + 10.0).abs() < 1e-9 && change.low < -14.0, "{change:?}");
}

#[test]
fn millions_of_samples_are_no_more_work() {
    let mut part = part(1, 20, 100, 1.0);
    part.segments.clear();
    let mut many = Histogram::default();
    for (size, count) in part.timings[names::LATENCY].counts() {
        many.record_n(size, count * 1_000_000);
    }
    part.timings.insert(names::LATENCY.to_owned(), many);
    let all = rows::of(&part, &part);
    let change = row(&all, "latency p50").change.unwrap();
    assert!(change.low <= 0.0 && change.high >= 0.0 && change.high < 0.5, "{change:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_run_never_differs_from_itself(
        segments in prop::collection::vec(prop::collection::vec(1_u64..20_000_000_000, 0..40), 0..14),
        ticks in prop::collection::vec((0_u64..50, 0_u64..50, 0.0_f64..2.0), 0..24),
        failed in 0_u64..100,
        wide in 1_u64..1_000_000_000,
    ) {
        let mut report = sample::report(1, 1.0);
        let mut part = Part { scenario: "x".to_owned(), duration_s: 1.0, ..Part::default() };
        let mut latency = Histogram::default();
        for values in &segments {
            let mut segment = Histogram::default();
            // Some runs have few different values, others have many.
            values.iter().for_each(|v| segment.record(Duration::from_nanos(v / wide * wide)));
            latency.merge(&segment);
            part.segments.push(segment);
        }
        for (planned, succeeded, length_s) in &ticks {
            let (planned, succeeded, length_s) = (*planned, *succeeded, *length_s);
            part.ticks.push(loadtest_model::Tick { planned, succeeded, length_s, ..Default::default() });
            part.succeeded += succeeded;
        }
        part.sent = part.succeeded + failed;
        part.errors.insert("x".to_owned(), failed);
        for name in ["latency", "service", "server.x", "step.y"] {
            part.timings.insert(name.to_owned(), latency.clone());
        }
        part.protocol = Some(Protocol::H1);
        report.parts = vec![part];
        let found = compare_anyway(&report, &report);
        for row in &found.rows {
            prop_assert!(
                matches!(row.verdict, Verdict::NoDifference | Verdict::TooFew), "{:?}", row
            );
            let change = row.change.map_or([0.0; 3], |c| [c.value, c.low, c.high]);
            let all = change.into_iter().chain(row.a).chain(row.b);
            prop_assert!(all.into_iter().all(f64::is_finite), "{:?}", row);
        }
        prop_assert!(!found.text().contains("NaN"));
    }
}
