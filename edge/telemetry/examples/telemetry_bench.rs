//! What a request's record costs its worker: CPU time to begin, fill and finish one, its share of the
//! oldest record's end included.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints and may panic")]

use std::{
    hint::black_box,
    net::SocketAddr,
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use edge_telemetry::{
    LogConfig, LogTarget, Outcome, RecordId, RequestRecord, RouteKind, Telemetry, TelemetryConfig,
    WorkerTelemetry,
};
use nix::time::{ClockId, clock_gettime};
use pool_model::{RequestId, SandboxId, TeamId};

/// Requests per thread and measurement; the first measurement fills the rings.
const REQUESTS: u32 = 100_000;
/// Requests after which a thread pauses, so that the log's writer keeps up as it would at an edge.
const BURST: u32 = 1_000;

/// About 100,000 requests per second and thread: more than an edge serves.
const PAUSE: Duration = Duration::from_millis(10);

fn record(function: &Arc<str>, number: u128) -> RequestRecord {
    let mut record = RequestRecord {
        id: RecordId(RequestId::from_u128(number)),
        at_ns: 1_700_000_000_000_000_000,
        client: Some(SocketAddr::from(([192, 0, 2, 1], 40_000))),
        tls: true,
        route: RouteKind::Function,
        function: Some(Arc::clone(function)),
        version: 3,
        team: Some(TeamId::from_u128(5)),
        sandbox: Some(SandboxId::from_u128(6)),
        upstream: Some(SocketAddr::from(([127, 0, 0, 1], 7000))),
        status: 200,
        outcome: Outcome::Complete,
        bytes_out: 1024,
        route_ms: 0.05,
        upstream_ms: Some(0.8),
        head_ms: 0.9,
        total_ms: 1.0,
        reused: true,
        ..RequestRecord::default()
    };
    record.set_host("hello.fn.example.com");
    record.set_path("/api/v1/things/42");
    record.set_user_agent("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0");
    record
}

/// The calling thread's CPU time, so that whatever else runs on the machine is left out.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// Mean nanoseconds per request, pauses left out.
fn work(worker: &WorkerTelemetry, function: &Arc<str>, pause: bool) -> f64 {
    let mut spent = Duration::ZERO;
    for burst in 0..REQUESTS / BURST {
        let started = cpu_time();
        for number in 0..BURST {
            worker.begin();
            worker.finish(black_box(record(function, u128::from(burst * BURST + number))));
        }
        spent += cpu_time() - started;
        if pause {
            thread::sleep(PAUSE);
        }
    }
    spent.as_secs_f64() * 1e9 / f64::from(REQUESTS)
}

fn only_fill(function: &Arc<str>) -> f64 {
    let started = cpu_time();
    for number in 0..REQUESTS {
        drop(black_box(record(function, u128::from(number))));
    }
    (cpu_time() - started).as_secs_f64() * 1e9 / f64::from(REQUESTS)
}

fn measure(name: &str, target: &LogTarget, threads: usize, records_kept: usize) {
    let pause = *target != LogTarget::Off;
    let log = LogConfig { target: target.clone(), sample: None };
    let config = TelemetryConfig { workers: threads, log, records_kept, otlp: None };
    let (telemetry, background) = Telemetry::start(config).unwrap();
    let barrier = Arc::new(Barrier::new(threads));
    let runs: Vec<_> = (0..threads)
        .map(|index| {
            let (worker, barrier) = (telemetry.worker(index), Arc::clone(&barrier));
            thread::spawn(move || {
                let function: Arc<str> = "hello".into();
                work(&worker, &function, pause); // fills the ring
                barrier.wait();
                (0..3).map(|_| work(&worker, &function, pause)).fold(f64::INFINITY, f64::min)
            })
        })
        .collect();
    let means: Vec<f64> = runs.into_iter().map(|run| run.join().unwrap()).collect();
    let mean = means.iter().sum::<f64>() / means.len() as f64;
    let text = telemetry.metrics().encode();
    let dropped = text.lines().find(|line| line.starts_with("wrenn_edge_log_lines_dropped_total"));
    println!(
        "{name}, {threads} threads: {mean:.0} ns per request; {}",
        dropped.unwrap_or_default()
    );
    drop(background);
}

fn main() {
    let function: Arc<str> = "hello".into();
    println!("to fill and free a record alone: {:.0} ns", only_fill(&function));
    let file = LogTarget::File("/dev/null".into());
    for threads in [1, 2] {
        measure("metrics", &LogTarget::Off, threads, threads);
        measure("metrics and ring", &LogTarget::Off, threads, 65_536);
        measure("metrics, ring and log", &file, threads, 65_536);
    }
}
