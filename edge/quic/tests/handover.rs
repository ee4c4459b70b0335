//! Does a request run on while edge after edge takes over from the one before, each a process of its own?
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod edge;
mod support;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use support::{Identity, Keys, PATIENCE, Request, generation, move_client};
use tokio::task::JoinHandle;

fn main() {
    if let Some(directory) = std::env::var_os(edge::DIRECTORY) {
        return edge::main(Path::new(&directory));
    }
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let trials = vec![
        trial("a_request_runs_on_over_five_hand_overs", five_hand_overs),
        trial("a_successor_that_dies_leaves_the_running_edge_serving", dying_successor),
        trial("a_killed_edge_that_is_started_again_resets_its_connections", reset_after_kill),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A directory with the certificate, and the edges that run in it.
struct Place {
    directory: tempfile::TempDir,
    keys: Keys,
    address: SocketAddr,
}

/// One edge process.
struct Edge {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::new();
        std::fs::write(directory.path().join("certificate"), &keys.certificate).unwrap();
        std::fs::write(directory.path().join("key"), &keys.key).unwrap();
        Self { directory, keys, address: "127.0.0.1:0".parse().unwrap() }
    }

    /// Starts an edge that behaves as `manner` says, and waits for its first line.
    fn start(&mut self, manner: &str) -> (Edge, String) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(edge::DIRECTORY, self.directory.path())
            .env(edge::ADDRESS, self.address.to_string())
            .env(edge::MANNER, manner)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::sync_channel(100);
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        let edge = Edge { child, lines };
        let line = edge.line();
        if let Some((_, address)) = line.split_once(" at ") {
            self.address = address.parse().unwrap();
        }
        (edge, line)
    }

    /// A new connection of a new client.
    async fn connect(&self) -> (quinn::Endpoint, Request) {
        let client = self.keys.client();
        let request = Request::open(&client, self.address).await;
        (client, request)
    }

    fn sockets(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().contains("quic-"))
            .collect()
    }
}

impl Edge {
    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the edge says nothing")
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the edge does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap().block_on(test);
}

/// Traffic that does not stop: one request that runs all the time, and clients that come and go.
struct Traffic {
    stop: Arc<AtomicBool>,
    running: JoinHandle<(u32, usize)>,
    coming: JoinHandle<usize>,
}

impl Traffic {
    /// Starts it. Every failure is a panic in its task.
    fn start(place: &Place, mut request: Request) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (keys, address) = (place.keys.clone(), place.address);
        let stopped = Arc::clone(&stop);
        let running = tokio::spawn(async move {
            let (home, mut rounds) = (pid(request.ping(10).await), 0);
            while !stopped.load(Ordering::Relaxed) {
                assert_eq!(pid(request.ping(30_000).await), home);
                rounds += 1;
            }
            (home, rounds)
        });
        let stopped = Arc::clone(&stop);
        let coming = tokio::spawn(async move {
            let (client, mut rounds) = (keys.client(), 0);
            while !stopped.load(Ordering::Relaxed) {
                Request::open(&client, address).await.ping(10).await;
                rounds += 1;
            }
            rounds
        });
        Self { stop, running, coming }
    }

    /// Stops it: who answered the running request, how often, and how many came and went.
    async fn stop(self) -> (u32, usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        let (home, rounds) = self.running.await.unwrap();
        (home, rounds, self.coming.await.unwrap())
    }
}

fn pid(identity: Identity) -> u32 {
    u32::from_be_bytes(identity[4..].try_into().unwrap())
}

fn five_hand_overs() {
    let mut place = Place::new();
    let (first, line) = place.start("serve");
    assert!(line.starts_with("serving 1 "), "{line}");
    run(async {
        let (client, request) = place.connect().await;
        let busy = Request::open(&client, place.address).await;
        let traffic = Traffic::start(&place, busy);
        let mut edges = vec![first];
        let mut running = vec![(client, request)];
        for round in 2..=6_u16 {
            let next = tokio::task::block_in_place(|| place.start("serve"));
            assert!(next.1.starts_with(&format!("serving {round} ")), "{}", next.1);
            edges.push(next.0);
            let mut fresh = place.connect().await;
            assert_eq!(generation(fresh.1.ping(10).await), round, "a new connection went astray");
            running.push(fresh);
            for (edge, (client, request)) in edges.iter().zip(&mut running) {
                assert_eq!(pid(request.ping(20_000).await), edge.pid());
                move_client(client);
                assert_eq!(pid(request.ping(200_000).await), edge.pid());
            }
        }
        let (home, answers, visitors) = traffic.stop().await;
        assert_eq!(home, edges[0].pid());
        assert!(answers > 5 && visitors > 5, "{answers} {visitors}");
        // Each old edge ends once its last connection does; the others do not notice.
        for mut edge in edges.drain(..5) {
            let (client, request) = running.remove(0);
            request.connection.close(0_u8.into(), b"done");
            client.wait_idle().await;
            assert!(edge.end().success());
            for (_, request) in &mut running {
                request.ping(1000).await;
            }
        }
        assert_eq!(place.sockets().len(), usize::from(edge::WORKERS), "only the last one's");
    });
}

fn dying_successor() {
    let mut place = Place::new();
    let (edge, _) = place.start("serve");
    run(async {
        let (_client, mut request) = place.connect().await;
        let home = request.ping(10).await;
        let mut refused = Vec::new();
        for manner in ["die with the parcel", "fail to get ready", "die with the parcel"] {
            let (mut successor, line) = place.start(manner);
            assert_eq!(line, manner);
            assert!(!successor.end().success());
            refused.push(edge.line());
            assert_eq!(request.ping(50_000).await, home);
            let (_client, mut fresh) = place.connect().await;
            assert_eq!(pid(fresh.ping(10).await), edge.pid());
        }
        assert_eq!(refused, ["goes on"; 3]);
        let (successor, line) = place.start("serve");
        assert!(line.starts_with("serving 2 "), "{line}");
        let (_client, mut fresh) = place.connect().await;
        assert_eq!(pid(fresh.ping(10).await), successor.pid());
        assert_eq!(request.ping(50_000).await, home);
    });
}

fn reset_after_kill() {
    let mut place = Place::new();
    let (mut edge, _) = place.start("serve");
    run(async {
        let (_client, mut request) = place.connect().await;
        request.ping(10).await;
        edge.child.kill().unwrap();
        edge.end();
        let (_again, line) = place.start("serve");
        assert!(line.starts_with("serving 1 "), "{line}");
        let error = tokio::time::timeout(PATIENCE / 2, request.try_ping(10)).await;
        let error = error.expect("the client was left waiting").unwrap_err();
        let reason = request.connection.close_reason();
        assert!(matches!(reason, Some(quinn::ConnectionError::Reset)), "{error}, {reason:?}");
        let (_client, mut fresh) = place.connect().await;
        fresh.ping(10).await;
    });
}
