//! What a page holds, and what it never does.

use std::collections::BTreeMap;

use loadtest_model::{Harness, Histogram, PoolSample, Tick};

use super::*;
use crate::sample;

fn sound(page: &str) {
    for wrong in ["NaN", "inf\"", "\"-inf", "<script", "http://", "https://", "url("] {
        assert!(!page.contains(wrong), "{wrong} in the page");
    }
    for tag in ["section", "figure", "svg", "table", "div", "details", "dl", "g", "text", "span"] {
        let opened =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn a_page_shows_every_part() {
    let page = page(&sample::report(1, 1.0));
    sound(&page);
    for wanted in [
        "name=\"viewport\"",
        "prefers-color-scheme:dark",
        "1 of 3 budgets broken",
        "Latency distribution",
        "HTTP/3: latency over time",
        "HTTP/2: rate over time",
        "HTTP/1.1: pool over time",
        "Errors by kind",
        "Server timings: median and p99",
        "Steps: median and p99",
        "<title>killed the agent: ",
    ] {
        assert!(page.contains(wanted), "{wanted}");
    }
    assert!(!page.contains("The harness itself was the limit"));
    assert!(page.len() < 400_000, "{} bytes", page.len());
}

#[test]
fn a_harness_that_was_the_limit_is_told_first() {
    let mut report = sample::report(1, 1.0);
    report.harness.bottlenecks.push("workers were busy 98 % of the time".to_owned());
    let page = page(&report);
    let (warning, scenario) = (page.find("workers were busy"), page.find("<section>"));
    assert!(warning.is_some() && warning < scenario);
}

#[test]
fn hostile_output_is_only_text() {
    let page = page(&sample::hostile());
    sound(&page);
    assert!(page.contains("&lt;script&gt;alert(1)"));
    assert!(page.chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn what_was_not_measured_is_left_out() {
    let mut report = sample::report(1, 1.0);
    report.parts = vec![Part { scenario: "nothing".to_owned(), ..Part::default() }];
    report.verdicts.clear();
    report.harness = Harness::default();
    let page = page(&report);
    sound(&page);
    assert!(page.contains("nothing") && !page.contains("<figure"));
}

#[test]
fn odd_figures_do_no_harm() {
    let mut one = Histogram::default();
    one.record_n(1, 1);
    let tick = Tick { length_s: 0.0, planned: 3, p50_ms: f64::NAN, ..Tick::default() };
    let odd = Tick { at_s: f64::NAN, p99_ms: f64::INFINITY, ..tick };
    let part = Part {
        scenario: "odd".to_owned(),
        ticks: vec![tick, odd, Tick { p50_ms: 1.0, p99_ms: f64::INFINITY, ..tick }],
        pool: vec![PoolSample::default(); 3],
        timings: BTreeMap::from([("latency".to_owned(), one.clone()), ("step.".to_owned(), one)]),
        errors: BTreeMap::from([("x".to_owned(), 0)]),
        ..Part::default()
    };
    let mut report = sample::report(1, 1.0);
    report.parts = vec![part];
    sound(&page(&report));
}

#[test]
fn long_runs_make_no_long_pages() {
    let mut report = sample::report(1, 1.0);
    let tick = report.parts[0].ticks[0];
    let sample = report.parts[0].pool[0];
    for part in &mut report.parts[..3] {
        part.ticks = (0..20_000_u32).map(|at| Tick { at_s: f64::from(at), ..tick }).collect();
        part.pool =
            (0..20_000_u32).map(|at| PoolSample { at_s: f64::from(at), ..sample }).collect();
    }
    let page = page(&report);
    sound(&page);
    assert!(page.contains(">minutes<"));
    assert!(page.len() < 600_000, "{} bytes", page.len());
}
