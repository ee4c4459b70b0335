//! Whether the metrics' text is what a scraper can read, and holds what was counted.
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use edge_telemetry::{
    HandshakeFailure, Limit, Outcome, Protocol, Refused, RequestRecord, RouteKind, Telemetry,
    TelemetryConfig, UpstreamError,
};

/// A family: its type, and its samples by name and sorted labels.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    samples: BTreeMap<String, f64>,
}

/// Reads text as the OpenMetrics 1.0 specification has it: families in one piece, HELP and TYPE before
/// samples, suffixes that fit the type, no series twice, `# EOF` last.
fn parse(text: &str) -> HashMap<String, Family> {
    let mut families: HashMap<String, Family> = HashMap::new();
    let mut current = String::new();
    let body = text.strip_suffix("# EOF\n").expect("the end is marked");
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name, rest) =
                (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            if name != current {
                assert!(!families.contains_key(name), "{name} comes in two pieces");
                name.clone_into(&mut current);
            }
            let family = families.entry(name.to_owned()).or_default();
            assert!(family.samples.is_empty(), "{line} comes after samples");
            match what {
                "HELP" => rest.clone_into(&mut family.help),
                "TYPE" => rest.clone_into(&mut family.kind),
                "UNIT" => assert!(name.ends_with(&format!("_{rest}")), "{line}"),
                other => panic!("{other} is no comment of OpenMetrics"),
            }
            continue;
        }
        let family = families.get_mut(&current).unwrap_or_else(|| panic!("{line} has no family"));
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
            None => (series, ""),
        };
        check_labels(labels);
        let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} in {current}"));
        let fits = match family.kind.as_str() {
            "counter" => suffix == "_total",
            "gauge" => suffix.is_empty(),
            "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
            other => panic!("{other} is no type of ours"),
        };
        assert!(fits, "{line} is no {}", family.kind);
        let value: f64 = value.parse().unwrap();
        assert!(value.is_finite() && (value >= 0.0 || family.kind == "gauge"), "{line}");
        let twice = family.samples.insert(series.to_owned(), value);
        assert!(twice.is_none(), "{line} comes twice");
    }
    for (name, family) in families.iter().filter(|(_, family)| family.kind == "histogram") {
        check_histograms(name, family);
    }
    families
}

/// Buckets add up, the last has no bound, and it is the count.
fn check_histograms(name: &str, family: &Family) {
    let count = format!("{name}_count{{");
    for (series, count) in family.samples.iter().filter(|(series, _)| series.starts_with(&count)) {
        let route = series.split_once('{').unwrap().1;
        let bucket = |series: &str| {
            let rest = series.strip_prefix(&format!("{name}_bucket{{le=\""))?;
            let (bound, rest) = rest.split_once("\",")?;
            (rest == route).then(|| bound.replace('+', "").parse::<f64>().unwrap())
        };
        let buckets = family.samples.iter().filter_map(|(s, value)| Some((bucket(s)?, *value)));
        let mut buckets: Vec<(f64, f64)> = buckets.collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(buckets.windows(2).all(|two| two[0].1 <= two[1].1), "{buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, *count)), "{series}");
    }
}

fn check_labels(labels: &str) {
    let mut names = HashSet::new();
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once('=').unwrap();
        assert!(names.insert(name) && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
        assert!(!value.is_empty() && !value.contains(['"', '\\', ' ']), "{label}");
    }
}

fn telemetry() -> Arc<Telemetry> {
    let config = TelemetryConfig { workers: 2, ..TelemetryConfig::default() };
    Telemetry::start(config).unwrap().0
}

fn count_everything(telemetry: &Arc<Telemetry>) {
    for worker in [telemetry.worker(0), telemetry.worker(1)] {
        worker.begin();
        worker.finish(RequestRecord {
            route: RouteKind::Function,
            status: 200,
            route_ms: 0.2,
            total_ms: 3.0,
            outcome: Outcome::Complete,
            bytes_in: 4,
            bytes_out: 10,
            retries: 1,
            interims: 2,
            upstream: Some(([127, 0, 0, 1], 1).into()),
            reused: worker.trace_ratio().is_some(),
            ..RequestRecord::default()
        });
        worker.begin();
        worker.finish(RequestRecord { total_ms: 99_999.0, ..RequestRecord::default() });
        worker.count_route(true);
        worker.count_refused(Refused::Circuit);
        worker.count_upstream_error(UpstreamError::Reset);
    }
    telemetry.count_route(false);
    telemetry.count_refused(Refused::QueueTimeout);
    telemetry.count_upstream_error(UpstreamError::Timeout);
    telemetry.count_limit(Limit::QuicRetry);
    telemetry.count_handshake(true);
    telemetry.count_handshake(false);
    telemetry.count_failed_handshake();
    telemetry.count_handshake_failure(HandshakeFailure::Alert);
}

#[test]
fn every_line_can_be_read_and_every_family_is_explained() {
    let telemetry = telemetry();
    for counted in [false, true] {
        if counted {
            count_everything(&telemetry);
        }
        let families = parse(&telemetry.metrics().encode());
        assert!(families.len() > 25, "{}", families.len());
        for (name, family) in &families {
            assert!(name.starts_with("wrenn_edge_"), "{name}");
            assert!(!family.help.is_empty() && !family.kind.is_empty(), "{name}: {family:?}");
            let bare = ["requests", "request_duration_seconds", "route_duration_seconds"];
            let may_be_empty = !counted && bare.contains(&&name["wrenn_edge_".len()..]);
            assert!(may_be_empty || !family.samples.is_empty(), "{name} says nothing");
        }
    }
}

#[test]
fn what_was_counted_by_all_workers_is_told() {
    let telemetry = telemetry();
    count_everything(&telemetry);
    let families = parse(&telemetry.metrics().encode());
    let value = |series: &str| -> f64 {
        let mut all = families.values().flat_map(|family| &family.samples);
        let series = format!("wrenn_edge_{series}");
        let found = all.find(|(name, _)| **name == series);
        *found.unwrap_or_else(|| panic!("no {series}")).1
    };
    for (series, expected) in [
        ("requests_total{protocol=\"h1\",route=\"function\",status=\"2xx\"}", 2.0),
        ("requests_total{protocol=\"h1\",route=\"none\",status=\"none\"}", 2.0),
        ("requests_aborted_total{protocol=\"h1\"}", 2.0),
        ("requests_in_flight", 0.0),
        ("request_bytes_total", 8.0),
        ("response_bytes_total", 20.0),
        ("retries_total", 2.0),
        ("interim_answers_total", 4.0),
        ("upstream_connections_opened_total", 2.0),
        ("upstream_connections_reused_total", 0.0),
        ("upstream_errors_total{kind=\"reset\"}", 2.0),
        ("upstream_errors_total{kind=\"timeout\"}", 1.0),
        ("upstream_errors_total{kind=\"connect\"}", 0.0),
        ("refused_total{by=\"circuit\"}", 2.0),
        ("refused_total{by=\"queue_timeout\"}", 1.0),
        ("route_lookups_total{cache=\"hit\"}", 2.0),
        ("route_lookups_total{cache=\"miss\"}", 1.0),
        ("limit_total{limit=\"quic_retry\"}", 1.0),
        ("tls_handshakes_total{outcome=\"full\"}", 1.0),
        ("tls_handshakes_total{outcome=\"resumed\"}", 1.0),
        ("tls_handshakes_total{outcome=\"failed\"}", 2.0),
        ("tls_handshake_failures_total{reason=\"alert\"}", 1.0),
        ("tls_handshake_failures_total{reason=\"other\"}", 1.0),
        ("request_duration_seconds_bucket{le=\"0.0025\",route=\"function\"}", 0.0),
        ("request_duration_seconds_bucket{le=\"0.005\",route=\"function\"}", 2.0),
        ("request_duration_seconds_bucket{le=\"+Inf\",route=\"function\"}", 2.0),
        ("request_duration_seconds_count{route=\"function\"}", 2.0),
        ("request_duration_seconds_sum{route=\"function\"}", 0.006),
        ("request_duration_seconds_bucket{le=\"30.0\",route=\"none\"}", 0.0),
        ("request_duration_seconds_bucket{le=\"+Inf\",route=\"none\"}", 2.0),
        ("log_lines_dropped_total", 0.0),
        ("traces_dropped_total", 0.0),
        ("records_kept", 4.0),
    ] {
        assert!((value(series) - expected).abs() < 1e-9, "{series} is {}", value(series));
    }
    assert!(value("process_cpu_seconds_total") > 0.0);
    assert!(value("process_start_time_seconds") > 1.7e9);
}

#[test]
fn open_connections_and_tunnels_go_when_their_guards_do() {
    let telemetry = telemetry();
    let read = |series: &str| {
        let families = parse(&telemetry.metrics().encode());
        let (family, _) = series.split_once(['{', ' ']).unwrap_or((series, ""));
        let family = &families[family.strip_suffix("_total").unwrap_or(family)];
        family.samples[series]
    };
    let (first, second) = (telemetry.connection(Protocol::H2), telemetry.connection(Protocol::H2));
    let (tunnel, _third) = (telemetry.tunnel(), telemetry.connection(Protocol::H3));
    let (open, ever) = (
        "wrenn_edge_connections_open{protocol=\"h2\"}",
        "wrenn_edge_connections_accepted_total{protocol=\"h2\"}",
    );
    assert!((read(open) - 2.0).abs() < 1e-9);
    assert!((read("wrenn_edge_tunnels_open") - 1.0).abs() < 1e-9);
    drop((first, second, tunnel));
    assert!(read(open).abs() < 1e-9 && (read(ever) - 2.0).abs() < 1e-9);
    assert!((read("wrenn_edge_connections_open{protocol=\"h3\"}") - 1.0).abs() < 1e-9);
    assert!(read("wrenn_edge_tunnels_open").abs() < 1e-9);
    assert!((read("wrenn_edge_tunnels_opened_total") - 1.0).abs() < 1e-9);
}

#[test]
fn numbers_of_others_are_added_but_no_name_twice() {
    let telemetry = telemetry();
    let metrics = telemetry.metrics();
    for value in [7, 8] {
        metrics.add_gauges(Box::new(move || {
            vec![
                ("connections", "Open connections.", value),
                ("requests", "A name that is taken.", 1),
                ("request_duration", "Another.", 1),
            ]
        }));
    }
    metrics.add_counters(Box::new(|| vec![("quic_datagrams", "Datagrams.", 9)]));
    let families = parse(&metrics.encode());
    assert!(
        (families["wrenn_edge_connections"].samples["wrenn_edge_connections"] - 7.0).abs() < 1e-9
    );
    let quic = &families["wrenn_edge_quic_datagrams"];
    assert_eq!(quic.kind, "counter");
    assert!((quic.samples["wrenn_edge_quic_datagrams_total"] - 9.0).abs() < 1e-9);
}
