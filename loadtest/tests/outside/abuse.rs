//! Do connections that are slow on purpose end within the limits?

use std::{
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    edge::{Edge, HOST},
    python::client,
    tools::{Program, run, run_within, script, until},
};

/// Most bytes that they may cost the edge.
const GROWTH_MAX: u64 = 64 << 20;

fn slow_client(edge: &Edge, mode: &str) -> Command {
    let mut client = script("slow.py");
    client.args([mode, &edge.http.port().to_string(), HOST]).arg(edge.ca_file());
    client
}

/// A hundred connections that are slow in one way are all closed within `within` (and some time for
/// a busy machine), and that is counted as `limit`.
#[track_caller]
fn slow(mode: &str, limit: &str, within: u64) {
    let edge = Edge::start();
    let before = edge.resident();
    let begin = Instant::now();
    let said = run_within(&mut slow_client(&edge, mode), Duration::from_secs(within + 30)).ok();
    assert!(begin.elapsed() > Duration::from_secs(2), "some patience there must be: {said}");
    let grown = edge.resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more: {said}");
    let counted = edge.metric("wrenn_edge_limit_total", &format!("\"{limit}\""));
    assert!(counted >= 100.0, "{limit} {counted}: {said}\n{}", edge.admin("/metrics"));
}

#[test]
fn slow_heads_are_cut_off() {
    slow("head", "header_time", 15);
}

#[test]
fn slow_bodies_are_cut_off() {
    slow("body", "body_rate", 30);
}

#[test]
fn silent_connections_are_cut_off() {
    slow("nothing", "idle", 60);
}

/// They are cut off after minutes, which the tests of the protocol have a shorter limit for. Until
/// then they must not cost much, nor keep others from being served.
#[test]
fn slow_readers_cost_little_and_hinder_nobody() {
    let edge = Edge::start();
    let before = edge.resident();
    let mut readers = Program::spawn(&mut slow_client(&edge, "read"));
    readers.until("ready");
    until("they are answered", || {
        let open = edge.metric("wrenn_edge_requests_in_flight", "");
        (open >= 100.0).then_some(())
    });
    sleep(Duration::from_secs(3));
    let grown = edge.resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more for 100 answers of 8 MiB");
    run(&mut client(&edge, "floods.py", "plain")).ok();
    drop(readers);
    until("they are gone", || {
        (edge.metric("wrenn_edge_requests_in_flight", "") < 1.0).then_some(())
    });
}
