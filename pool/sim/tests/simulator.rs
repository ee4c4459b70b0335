//! Does the simulator count right, and does a small run come out as the large ones do?
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::time::Duration;

use pool_sim::{
    Family, Kind, Knative, Outcome, Point, PolicyKind, Section, Setup, Verdict, compare,
    interpolate, refine, run, summary_table, sweep, usual_table, verdict_line,
};
use proptest::prelude::*;

fn policies() -> [PolicyKind; 3] {
    let sizing = pool::sizing::Sizing {
        min_warm: 1,
        max_warm: 50,
        burst: 0,
        idle_ttl: Duration::from_secs(60),
        refill_concurrency: 8,
    };
    let knative = Knative { utilisation: 0.7, min_scale: 0, occupied: 0.5 };
    [
        PolicyKind::Ours(sizing, Duration::from_secs(60)),
        PolicyKind::Fixed(3),
        PolicyKind::Knative(knative),
    ]
}

fn assert_conserved(outcome: &Outcome, arrivals: usize, what: &str) {
    assert_eq!(outcome.served + outcome.waiting_at_end, arrivals as u64, "{what}");
    let (integral, summed) = (outcome.sandbox_seconds, outcome.summed_seconds);
    assert!((integral - summed).abs() <= 1e-6 * integral + 1e-6, "{what}: {integral} {summed}");
    assert!(outcome.hits + outcome.waits.len() as u64 <= outcome.arrivals, "{what}");
    assert!(outcome.waits.is_sorted(), "{what}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_caller_is_accounted_for_and_so_is_every_sandbox_second(
        seed: u64,
        kind in prop::sample::select(Kind::ALL.to_vec()),
        refill_ms in 20..3000_u64,
        concurrency in 1..20_u32,
        host_limit in prop::option::of(1..30_u64),
    ) {
        let trace = kind.make(seed, 0.05, 60);
        let setup = Setup {
            refill: Duration::from_millis(refill_ms),
            refill_concurrency: concurrency,
            host_limit,
            ..Setup::default()
        };
        for policy in policies() {
            let outcome = run(&setup, &policy, &trace, seed);
            assert_conserved(&outcome, trace.arrivals.len(), &policy.label());
            prop_assert!(host_limit.is_none_or(|limit| outcome.peak <= limit));
            prop_assert_eq!(outcome, run(&setup, &policy, &trace, seed));
        }
    }
}

#[test]
fn traces_are_made_of_their_seed_and_have_the_rates_they_claim() {
    for kind in Kind::ALL {
        let trace = kind.make(5, 0.2, 100);
        assert_eq!(trace, kind.make(5, 0.2, 100));
        assert_ne!(trace.arrivals, kind.make(6, 0.2, 100).arrivals, "{}", trace.name);
        assert!(trace.arrivals.is_sorted() && !trace.arrivals.is_empty());
        assert!(trace.arrivals.iter().all(|a| a.at < trace.end && a.function < trace.functions));
    }
    let steady = Kind::Steady.make(1, 1.0, 0).arrivals.len() as f64;
    assert!((steady / 72_000.0 - 1.0).abs() < 0.02, "{steady} callers in an hour");
}

#[test]
fn a_sandbox_that_is_there_is_a_hit_and_one_that_is_not_costs_a_refill() {
    let trace = Kind::Steady.make(1, 0.1, 0);
    let setup = Setup { refill_spread: 0.0, ..Setup::default() };
    let none = run(&setup, &PolicyKind::Fixed(0), &trace, 1);
    assert_eq!(none.hits, 0);
    assert!((none.wait_ms(0.5) - 400.0).abs() < 0.01, "{}", none.wait_ms(0.5));
    let plenty = run(&setup, &PolicyKind::Fixed(40), &trace, 1);
    assert_eq!(plenty.hits, plenty.arrivals);
    let span = (trace.end - trace.measured_from) as f64 / 1e6;
    assert!((plenty.sandbox_seconds / span - 40.0).abs() < 0.01);
}

#[test]
fn ours_is_ahead_at_equal_memory_where_the_rate_changes() {
    for (kind, hours) in [(Kind::Bursty, 0.5), (Kind::Flash, 0.5)] {
        let (setup, trace) = (Setup::default(), kind.make(2, hours, 0));
        let mut ours = sweep(&setup, Family::Ours, &trace, 2);
        let knative = sweep(&setup, Family::Knative, &trace, 2);
        refine(&setup, &mut ours, &knative, &trace, 2);
        let comparisons = compare(&ours, &knative);
        let line = verdict_line(trace.name, "knative", &comparisons);
        let mean: f64 =
            comparisons.iter().map(|c| c.ours - c.theirs).sum::<f64>() / comparisons.len() as f64;
        assert!(mean > 0.02, "{line}");
    }
}

#[test]
fn constant_rate_is_no_loss_and_wastes_nothing() {
    let (setup, trace) = (Setup::default(), Kind::Steady.make(4, 0.75, 0));
    let mut ours = sweep(&setup, Family::Ours, &trace, 4);
    let fixed = sweep(&setup, Family::Fixed, &trace, 4);
    refine(&setup, &mut ours, &fixed, &trace, 4);
    let comparisons = compare(&ours, &fixed);
    let line = verdict_line(trace.name, "fixed", &comparisons);
    // The first minutes, which count here, are not yet as good as knowing the rate.
    assert!(comparisons.iter().all(|c| c.ours - c.theirs > -0.005), "{line}");
    let usual = ours.iter().find(|point| point.is_usual(&trace)).unwrap();
    assert!(usual.outcome.wasted <= 5, "{} wasted", usual.outcome.wasted);
}

fn point(hits: u64, sandbox_seconds: f64) -> Point {
    let outcome = Outcome { arrivals: 1000, hits, sandbox_seconds, ..Outcome::default() };
    Point { policy: PolicyKind::Fixed(8), outcome }
}

#[test]
fn equal_memory_is_the_upper_hull_and_ties_are_not_lost() {
    let ours = [point(100, 1.0), point(200, 2.0), point(500, 3.0), point(400, 4.0)];
    let at = |memory| interpolate(&ours, memory);
    assert_eq!(at(0.5), None);
    assert!((at(2.0).unwrap() - 0.3).abs() < 1e-9, "{:?}", at(2.0));
    assert!((at(9.0).unwrap() - 0.5).abs() < 1e-9);
    let verdict = |theirs| Verdict::of(&compare(&ours, &[theirs]));
    assert_eq!(verdict(point(300, 2.0)), Verdict::Equal);
    assert_eq!(verdict(point(290, 2.0)), Verdict::Won);
    assert_eq!(verdict(point(310, 2.0)), Verdict::Lost);
}

#[test]
fn tables_name_the_verdict_and_the_usual_settings() {
    let trace = Kind::Steady.make(1, 0.01, 0);
    let sections = |theirs| {
        let ours = [point(500, 3.0)];
        [Section::new(&trace, &ours, &[(Family::Fixed, vec![point(theirs, 3.0)])])]
    };
    let lost = sections(600);
    assert!(lost[0].is_lost() && !sections(500)[0].is_lost());
    let table = summary_table(&lost);
    assert!(table.contains("fixed | -10.00 | -10.00 | fixed 8 | LOST |"), "{table}");
    let usual = usual_table(&lost, 128);
    assert!(usual.contains("| steady | fixed 8 | 60.000 % |"), "{usual}");
}
