//! What a request leaves behind: in the log, in the records that can be asked for, in the metrics.
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use edge_telemetry::{
    Background, LogConfig, LogTarget, OtlpConfig, Outcome, RecordId, RequestRecord, Telemetry,
    TelemetryConfig, TelemetryError, TraceContext, WorkerTelemetry,
};
use pool_model::{RequestId, TeamId};
use serde_json::Value;

/// Long enough for any machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn record(id: u128, team: u128, at_ns: u64) -> RequestRecord {
    RequestRecord {
        id: RecordId(RequestId::from_u128(id)),
        team: Some(TeamId::from_u128(team)),
        at_ns,
        status: 200,
        outcome: Outcome::Complete,
        ..RequestRecord::default()
    }
}

fn finish(worker: &WorkerTelemetry, record: RequestRecord) {
    worker.begin();
    worker.finish(record);
}

fn logging_to(path: &Path, workers: usize, sample: Option<f64>) -> (Arc<Telemetry>, Background) {
    let log = LogConfig { target: LogTarget::File(path.to_owned()), sample };
    Telemetry::start(TelemetryConfig { workers, log, ..TelemetryConfig::default() }).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn value(telemetry: &Telemetry, series: &str) -> u64 {
    let text = telemetry.metrics().encode();
    let series = format!("wrenn_edge_{series} ");
    let found = text.lines().find_map(|line| line.strip_prefix(&series));
    found.unwrap_or_else(|| panic!("no {series}in\n{text}")).parse().unwrap()
}

fn id(json: &str) -> String {
    let json: Value = serde_json::from_str(json).unwrap();
    json["request_id"].as_str().unwrap().to_owned()
}

#[test]
fn records_are_found_by_their_team_whichever_worker_served_them() {
    let config = TelemetryConfig { workers: 3, ..TelemetryConfig::default() };
    let (telemetry, _background) = Telemetry::start(config).unwrap();
    for number in 0..30_u64 {
        let worker = telemetry.worker(usize::try_from(number).unwrap());
        finish(&worker, record(number.into(), u128::from(number % 2), number));
    }
    let team = |number| Some(TeamId::from_u128(number));
    let seven = RequestId::from_u128(7);
    assert_eq!(id(&telemetry.find(seven, team(1)).unwrap()), seven.to_string());
    assert!(telemetry.find(seven, None).is_some());
    assert_eq!(telemetry.find(seven, team(0)), None, "another team's");
    assert_eq!(telemetry.find(RequestId::from_u128(99), None), None);

    let newest: Vec<String> = telemetry.recent(team(0), 3).iter().map(|json| id(json)).collect();
    let expected = [28, 26, 24].map(|number| RequestId::from_u128(number).to_string());
    assert_eq!(newest, expected);
    assert_eq!(telemetry.recent(None, 100).len(), 30);
    assert!(telemetry.recent(team(9), 100).is_empty());
    assert_eq!(value(&telemetry, "records_kept"), 30);
}

#[test]
fn of_two_workers_records_of_one_id_the_newest_wins() {
    let config = TelemetryConfig { workers: 2, ..TelemetryConfig::default() };
    let (telemetry, _background) = Telemetry::start(config).unwrap();
    for (worker, team, at, status) in [(0, 1, 10, 201), (1, 1, 30, 202), (0, 2, 40, 203)] {
        let record = RequestRecord { status, ..record(5, team, at) };
        finish(&telemetry.worker(worker), record);
    }
    let status = |team: Option<u128>| {
        let json = telemetry.find(RequestId::from_u128(5), team.map(TeamId::from_u128)).unwrap();
        serde_json::from_str::<Value>(&json).unwrap()["status"].as_u64().unwrap()
    };
    assert_eq!((status(Some(1)), status(Some(2)), status(None)), (202, 203, 203));
}

#[tokio::test]
async fn errors_are_logged_always_and_others_by_the_sample() {
    let dir = tempfile::tempdir().unwrap();
    let outcomes = [
        (200, Outcome::Complete, false),
        (304, Outcome::Complete, false),
        (404, Outcome::Complete, true),
        (502, Outcome::Complete, true),
        (200, Outcome::Aborted, true),
        (0, Outcome::Complete, true),
    ];
    for (name, sample, all) in
        [("none", Some(0.0), false), ("all", Some(1.0), true), ("unset", None, true)]
    {
        let path = dir.path().join(name);
        let (telemetry, background) = logging_to(&path, 1, sample);
        let worker = telemetry.worker(0);
        for (status, outcome, _) in outcomes {
            finish(&worker, RequestRecord { status, outcome, ..record(1, 1, 1) });
        }
        background.stop(PATIENCE).await;
        let expected: Vec<u64> = outcomes
            .iter()
            .filter(|(_, _, always)| all || *always)
            .map(|(status, ..)| u64::from(*status))
            .collect();
        let logged: Vec<u64> =
            lines(&path).iter().map(|line| line["status"].as_u64().unwrap()).collect();
        assert_eq!(logged, expected, "{name}");
    }
    let path = dir.path().join("half");
    let (telemetry, background) = logging_to(&path, 1, Some(0.5));
    let worker = telemetry.worker(0);
    for number in 0..10_000 {
        finish(&worker, record(number, 1, 1));
    }
    background.stop(PATIENCE).await;
    let share = lines(&path).len();
    assert!((4_500..5_500).contains(&share), "{share} of 10,000 is ten deviations off");
    assert_eq!(telemetry.recent(None, 20_000).len(), 10_000, "the sample is the log's alone");
}

#[tokio::test]
async fn a_log_goes_on_in_a_new_file_after_it_was_moved_away() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let (telemetry, background) = logging_to(&path, 1, None);
    let worker = telemetry.worker(0);
    let started = Instant::now();
    let wait = |what: &str, is: &dyn Fn() -> bool| {
        while !is() {
            assert!(started.elapsed() < PATIENCE, "{what}");
            thread::sleep(Duration::from_millis(10));
        }
    };
    finish(&worker, record(1, 1, 1));
    wait("written", &|| value(&telemetry, "log_lines_written_total") == 1);
    std::fs::rename(&path, &moved).unwrap();
    telemetry.reopen_log();
    wait("opened anew", &|| path.exists());
    finish(&worker, record(2, 1, 1));
    background.stop(PATIENCE).await;
    let ids = |path: &Path| -> Vec<String> {
        lines(path).iter().map(|line| line["request_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&moved), [RequestId::from_u128(1).to_string()]);
    assert_eq!(ids(&path), [RequestId::from_u128(2).to_string()]);
}

#[tokio::test]
async fn many_threads_lose_nothing_that_fits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let (telemetry, background) = logging_to(&path, 4, None);
    thread::scope(|scope| {
        for index in 0..8_u128 {
            let worker = telemetry.worker(usize::try_from(index).unwrap());
            scope.spawn(move || {
                for number in 0..2_000 {
                    // Two threads to a worker: 4,000 records, a quarter of what may wait.
                    finish(&worker, record(index * 10_000 + number, 1, 1));
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..50 {
                assert_eq!(telemetry.find(RequestId::from_u128(u128::MAX), None), None);
                assert!(telemetry.metrics().encode().ends_with("# EOF\n"));
            }
        });
    });
    background.stop(PATIENCE).await;
    let mut logged: HashMap<String, u32> = HashMap::new();
    for line in lines(&path) {
        *logged.entry(line["request_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(logged.len(), 16_000);
    assert!(logged.values().all(|count| *count == 1));
    assert_eq!(value(&telemetry, "log_lines_written_total"), 16_000);
    assert_eq!(value(&telemetry, "log_lines_dropped_total"), 0);
    assert_eq!(value(&telemetry, "requests_in_flight"), 0);
    let series = "requests_total{protocol=\"h1\",route=\"none\",status=\"2xx\"}";
    assert_eq!(value(&telemetry, series), 16_000);
}

#[tokio::test]
async fn what_a_full_disk_refuses_and_what_comes_too_late_is_counted() {
    let (telemetry, background) = logging_to(Path::new("/dev/full"), 1, None);
    let worker = telemetry.worker(0);
    for number in 0..100 {
        finish(&worker, record(number, 1, 1));
    }
    background.stop(PATIENCE).await;
    assert_eq!(value(&telemetry, "log_lines_lost_total"), 100);
    finish(&worker, record(1, 1, 1));
    assert_eq!(value(&telemetry, "log_lines_dropped_total"), 1);
    assert_eq!(value(&telemetry, "log_lines_written_total"), 0);
}

#[tokio::test]
async fn a_disk_that_hangs_and_a_silent_collector_share_one_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _open = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); // connects, says nothing
    let endpoint = format!("http://{}/v1/traces", silent.local_addr().unwrap());
    let otlp = Some(OtlpConfig { endpoint, ratio: 1.0, service: "edge".to_owned() });
    let log = LogConfig { target: LogTarget::File(path), sample: None };
    let config = TelemetryConfig { log, otlp, ..TelemetryConfig::default() };
    let (telemetry, background) = Telemetry::start(config).unwrap();
    let worker = telemetry.worker(0);
    for number in 0..4_000 {
        let trace = Some(TraceContext::of(&http::HeaderMap::new(), 1.0));
        finish(&worker, RequestRecord { trace, ..record(number, 1, 1) }); // more than a pipe holds
    }
    let (started, within) = (Instant::now(), Duration::from_secs(4));
    background.stop(within).await;
    let took = started.elapsed();
    assert!(took >= within, "nothing hung: {took:?}");
    assert!(took < within * 2, "one after the other: {took:?}");
    assert_eq!(value(&telemetry, "traces_dropped_total"), 4_000);
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_that_says_so() {
    let log = LogConfig { target: LogTarget::File("/nonexistent/log".into()), sample: None };
    let started = Telemetry::start(TelemetryConfig { log, ..TelemetryConfig::default() });
    assert!(matches!(started, Err(TelemetryError::Log(_))));
}

#[test]
fn a_host_set_past_its_setter_is_bounded_all_the_same() {
    let (telemetry, _background) = Telemetry::start(TelemetryConfig::default()).unwrap();
    let host = "x".repeat(5_000);
    finish(&telemetry.worker(0), RequestRecord { host, ..record(1, 1, 1) });
    let json = telemetry.find(RequestId::from_u128(1), None).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["host"].as_str().unwrap().len(), 256);
}
