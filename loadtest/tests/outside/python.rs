//! Do the clients that Python programs use get along with the edge, HTTP/3 above all?
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::process::Command;

use nix::sys::signal::Signal;

use crate::{
    edge::{Edge, HOST},
    tools::{Program, run, script},
};

/// A script, told where the edge is.
pub(crate) fn client(edge: &Edge, name: &str, mode: &str) -> Command {
    let mut command = script(name);
    command.args([mode, &edge.https.port().to_string(), HOST]).arg(edge.ca_file());
    command
}

#[test]
fn curl_cffi_speaks_http2_and_http3() {
    let edge = Edge::start();
    run(&mut client(&edge, "libraries.py", "curl_cffi")).ok();
    assert!(edge.metric("wrenn_edge_requests_total", "h3") >= 4.0, "{}", edge.admin("/metrics"));
}

#[test]
fn niquests_speaks_http3() {
    let edge = Edge::start();
    run(&mut client(&edge, "libraries.py", "niquests")).ok();
}

#[test]
fn websockets_echoes_over_tls() {
    let edge = Edge::start();
    run(&mut client(&edge, "libraries.py", "websockets")).ok();
}

#[test]
fn grpcio_gets_answers_streams_and_statuses() {
    let edge = Edge::start();
    run(&mut client(&edge, "libraries.py", "grpc")).ok();
}

#[test]
fn aioquic_gets_bodies_and_trailers() {
    let edge = Edge::start();
    run(&mut client(&edge, "http3.py", "requests")).ok();
}

#[test]
fn aioquic_echoes_a_websocket_in_a_stream() {
    let edge = Edge::start();
    run(&mut client(&edge, "http3.py", "websocket")).ok();
}

#[test]
fn aioquic_is_refused_what_is_malformed() {
    let edge = Edge::start();
    let said = run(&mut client(&edge, "http3.py", "malformed")).ok();
    assert_eq!(said.matches("refused").count(), 16, "{said}");
}

#[test]
fn frames_that_announce_a_gigabyte_take_no_memory() {
    let edge = Edge::start();
    let before = edge.resident();
    let said = run(&mut client(&edge, "http3.py", "giants")).ok();
    let grown = edge.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more\n{said}");
}

#[test]
fn aioquic_is_told_of_the_end_by_goaway_and_its_request_is_answered() {
    let mut edge = Edge::start();
    let mut client = Program::spawn(&mut client(&edge, "http3.py", "goaway"));
    client.until("ready");
    edge.signal(Signal::SIGTERM);
    client.end().ok();
    assert!(edge.ended().success());
}
