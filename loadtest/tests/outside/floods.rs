//! Does a client that floods a connection lose it, and the edge neither memory nor others' requests?

use crate::{
    edge::Edge,
    python::client,
    tools::{Program, run},
};

/// Most bytes that a flood may cost the edge.
const GROWTH_MAX: u64 = 64 << 20;

/// Runs a flood; checks that it was ended, counted as `limit` and cost nothing.
#[track_caller]
fn flood(mode: &str, limit: &str) {
    let edge = Edge::start();
    let before = edge.resident();
    let said = run(&mut client(&edge, "floods.py", mode)).ok();
    assert!(said.contains("GOAWAY") || said.contains("closed"), "{said}");
    let grown = edge.resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more: {said}");
    if !limit.is_empty() {
        let counted = edge.metric("wrenn_edge_limit_total", &format!("\"{limit}\""));
        assert!(counted >= 1.0, "{limit}: {said}\n{}", edge.admin("/metrics"));
    }
    // Others are served all the while.
    run(&mut client(&edge, "floods.py", "plain")).ok();
}

#[test]
fn rapid_resets_end_the_connection() {
    flood("rapid_reset", "resets");
}

#[test]
fn endless_continuations_end_the_connection() {
    flood("continuation", "continuations");
}

#[test]
fn empty_continuations_end_the_connection() {
    flood("empty_continuation", "continuations");
}

#[test]
fn floods_of_settings_end_the_connection() {
    flood("settings", "settings");
}

#[test]
fn floods_of_pings_end_the_connection() {
    flood("ping", "pings");
}

#[test]
fn floods_of_tiny_data_end_the_connection() {
    flood("tiny_data", "tiny_data");
}

#[test]
fn floods_of_priorities_end_the_connection() {
    flood("priority", "control");
}

#[test]
fn windows_beyond_the_limit_end_the_connection() {
    flood("window", "");
}

#[test]
fn answers_that_nobody_reads_stay_small() {
    let edge = Edge::start();
    let before = edge.resident();
    let mut reader = Program::spawn(&mut client(&edge, "floods.py", "unread"));
    reader.until("ready");
    let grown = edge.resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more for 60 answers of 8 MiB");
    run(&mut client(&edge, "floods.py", "plain")).ok();
}
