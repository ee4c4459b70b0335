//! Is an edge replaced, or killed, without more harm to clients than has to be?
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{
    fs,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;

use crate::{
    edge::Edge,
    python::client,
    tools::{Program, run, until},
};

/// How often the edge is replaced.
const RESTARTS: usize = 5;
/// How long each edge serves under load.
const SERVES: Duration = Duration::from_millis(1500);
/// How long an edge without requests takes to end once it has handed over.
const LETS_GO: Duration = Duration::from_millis(300);

/// What a client under load saw.
#[derive(Debug, Deserialize)]
struct Counts {
    done: u64,
    failed: u64,
    /// Sent again: their connection ended before the edge saw them.
    unsent: u64,
    connections: u64,
    reasons: Vec<String>,
}

/// Clients of all protocols that send without pause.
struct Load(Vec<(&'static str, Program)>);

impl Load {
    fn start(edge: &Edge) -> Self {
        let clients = ["h1", "h2", "h3"].map(|protocol| {
            let mut program = Program::spawn(&mut client(edge, "load.py", protocol));
            program.until("ready");
            (protocol, program)
        });
        Self(clients.into())
    }

    /// Tells them to stop; what they saw.
    fn stop(self) -> Vec<(&'static str, Counts)> {
        let stopped = self.0.into_iter().map(|(protocol, program)| {
            program.signal(Signal::SIGTERM);
            let said = program.end().ok();
            let line = said.lines().last().unwrap_or_default();
            (protocol, serde_json::from_str(line).unwrap_or_else(|_| panic!("{protocol}: {said}")))
        });
        stopped.collect()
    }
}

#[test]
fn five_restarts_under_load_lose_no_request() {
    let mut edge = Edge::start();
    let load = Load::start(&edge);
    sleep(SERVES);
    let mut replaced = vec![edge.pid()];
    for _ in 0..RESTARTS {
        edge.signal(Signal::SIGUSR2);
        let old = replaced[replaced.len() - 1];
        replaced.push(until("another edge", || Some(edge.pid()).filter(|pid| *pid != old)));
        sleep(SERVES);
    }
    let now = replaced.pop().unwrap();
    for (protocol, counts) in load.stop() {
        println!("{protocol}: {counts:?}");
        assert_eq!((counts.failed, &counts.reasons), (0, &Vec::new()), "{protocol}: {counts:?}");
        assert!(counts.done > 100 && counts.connections > 5, "{protocol}: {counts:?}");
        // HTTP/1.1 has no word for "send it elsewhere": what reaches a connection is answered.
        let resent_max = if protocol == "h1" { 0 } else { counts.done / 10 };
        assert!(counts.unsent <= resent_max, "{protocol}: {counts:?}");
    }
    assert!(edge.ended().success(), "the first one drained");
    for pid in replaced {
        until("an old edge's end", || gone(pid).then_some(()));
    }
    assert!(!gone(now), "the last one serves");
    run(&mut client(&edge, "http3.py", "requests")).ok();
}

#[test]
fn successor_that_cannot_start_leaves_the_old_one_serving() {
    let mut edge = Edge::start();
    let load = Load::start(&edge);
    let old = edge.pid();
    // Settings that are wrong at once, and once it holds the sockets.
    let nowhere = edge.path("nowhere").to_str().unwrap().to_owned();
    for wrong in
        [["--drain-ms", "soon"], ["--tls-cert-file", &nowhere], ["--agent-token-file", &nowhere]]
    {
        let mut successor = edge.command();
        successor.args(["--takeover", "true", "--agent-token-wait-ms", "200"]).args(wrong);
        let said = run(&mut successor);
        assert!(!said.status.success(), "{wrong:?}");
        assert_eq!(edge.pid(), old, "{wrong:?}");
    }
    for (protocol, counts) in load.stop() {
        assert_eq!((counts.failed, &counts.reasons), (0, &Vec::new()), "{protocol}: {counts:?}");
        assert!(counts.done > 0, "{protocol}: {counts:?}"); // how many is the machine's affair
    }
    // One that is killed in the middle of it takes with it what it had accepted, and no more.
    for after_ms in [0, 5, 10, 15, 20, 30, 40, 60] {
        let mut successor = edge.command().args(["--takeover", "true"]).spawn().unwrap();
        sleep(Duration::from_millis(after_ms));
        successor.kill().unwrap();
        successor.wait().unwrap();
        sleep(LETS_GO);
        if edge.child().try_wait().unwrap().is_some() {
            // It served already, alone: that was an edge killed like any other.
            assert!(after_ms > 0, "nobody starts at once");
            edge.launch();
        }
        run(&mut client(&edge, "floods.py", "plain")).ok();
    }
    run(&mut client(&edge, "floods.py", "plain")).ok();
    run(&mut client(&edge, "http3.py", "requests")).ok();
}

#[test]
fn killed_edge_is_noticed_and_started_again_at_once() {
    let mut edge = Edge::start();
    let mut client_h3 = Program::spawn(&mut client(&edge, "http3.py", "killed"));
    client_h3.until("ready");
    edge.child().kill().unwrap();
    edge.ended();
    let begin = Instant::now();
    edge.launch();
    assert!(begin.elapsed() < Duration::from_secs(10), "its sockets are free at once");
    let said = client_h3.end().ok();
    assert!(said.contains("noticed"), "{said}");
    run(&mut client(&edge, "http3.py", "requests")).ok();
    let url = edge.url("/hello");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]).arg(edge.ca_file());
    let resolve = format!("{}:{}:127.0.0.1", crate::edge::HOST, edge.https.port());
    assert!(run(curl.args(["--resolve", &resolve, &url])).ok().contains("hello"));
}

/// Whether a process ended, though nobody may have asked for its status.
fn gone(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    kill(pid, None).is_err() || status.contains("State:\tZ")
}
