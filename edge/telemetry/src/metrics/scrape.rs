//! How the counts are told when Prometheus asks: names, help, labels, sums over the workers.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use super::{
    Metrics,
    labels::{HandshakeFailure, Refused, UpstreamError},
    shard::{BUCKETS, CLASSES, Histogram, Shard},
};
use crate::{
    process,
    record::{Protocol, RouteKind},
};

/// One reading of all counts.
#[derive(Debug)]
pub(super) struct Scrape(pub(super) std::sync::Arc<Metrics>);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut text = Text { encoder, names: HashSet::new() };
        let metrics = &*self.0;
        requests(metrics, &mut text)?;
        let help = "From a request's head to the end of its answer.";
        histogram(metrics, &mut text, "request_duration", help, |shard| &shard.total)?;
        let help = "The edge's own part: from a request's head until it was sent on.";
        histogram(metrics, &mut text, "route_duration", help, |shard| &shard.route)?;
        connections(metrics, &mut text)?;
        upstream(metrics, &mut text)?;
        refusals(metrics, &mut text)?;
        the_process(&mut text)?;
        others(metrics, &mut text)
    }
}

/// The text under way, and the names that are in it.
struct Text<'a> {
    encoder: DescriptorEncoder<'a>,
    names: HashSet<String>,
}

impl Text<'_> {
    /// A counter without labels.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.plain(name, help, None, &ConstCounter::new(value))
    }

    /// A gauge without labels.
    fn gauge(&mut self, name: &str, help: &str, value: i64) -> fmt::Result {
        self.plain(name, help, None, &ConstGauge::new(value))
    }

    fn plain(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        metric: &impl EncodeMetric,
    ) -> fmt::Result {
        if !self.names.insert(name.to_owned()) {
            return Ok(()); // a family must not come twice
        }
        let sample = self.encoder.encode_descriptor(name, help, unit, metric.metric_type())?;
        metric.encode(sample)
    }

    /// A family of counters with one label.
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        let values = values.into_iter().map(|(word, value)| (word, ConstCounter::new(value)));
        self.family(name, help, label, MetricType::Counter, values)
    }

    fn family<M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        kind: MetricType,
        values: impl IntoIterator<Item = (&'static str, M)>,
    ) -> fmt::Result {
        self.names.insert(name.to_owned());
        let mut family = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (word, metric) in values {
            metric.encode(family.encode_family(&[(label, word)])?)?;
        }
        Ok(())
    }
}

fn requests(metrics: &Metrics, text: &mut Text<'_>) -> fmt::Result {
    let help = "Requests by protocol, route and class of the status.";
    text.names.insert("requests".to_owned());
    let mut family = text.encoder.encode_descriptor("requests", help, None, MetricType::Counter)?;
    for (p, protocol) in Protocol::ALL.iter().enumerate() {
        for (r, route) in RouteKind::ALL.iter().enumerate() {
            for (c, class) in CLASSES.iter().enumerate() {
                let count = metrics.sum(|shard| &shard.requests[p][r][c]);
                if count > 0 {
                    let labels = [
                        ("protocol", protocol.as_str()),
                        ("route", route.as_str()),
                        ("status", *class),
                    ];
                    let sample = family.encode_family(&labels)?;
                    ConstCounter::new(count).encode(sample)?;
                }
            }
        }
    }
    let aborted = Protocol::ALL.iter().enumerate();
    let aborted =
        aborted.map(|(p, protocol)| (protocol.as_str(), metrics.sum(|shard| &shard.aborted[p])));
    let help = "Requests whose answer was not sent to its end.";
    text.counters("requests_aborted", help, "protocol", aborted)?;
    let in_flight = metrics.shards.iter().map(|shard| shard.in_flight.load(Relaxed)).sum();
    text.gauge("requests_in_flight", "Requests under way.", in_flight)?;
    let bytes = metrics.sum(|shard| &shard.bytes_in);
    text.counter("request_bytes", "Bytes of requests' bodies.", bytes)?;
    let bytes = metrics.sum(|shard| &shard.bytes_out);
    text.counter("response_bytes", "Bytes of answers' bodies.", bytes)?;
    let interims = metrics.sum(|shard| &shard.interims);
    text.counter("interim_answers", "Interim answers passed on.", interims)
}

fn histogram(
    metrics: &Metrics,
    text: &mut Text<'_>,
    name: &str,
    help: &str,
    of: impl Fn(&Shard) -> &[Histogram; RouteKind::ALL.len()],
) -> fmt::Result {
    text.names.insert(name.to_owned());
    let kind = MetricType::Histogram;
    let mut family = text.encoder.encode_descriptor(name, help, Some(&Unit::Seconds), kind)?;
    for (r, route) in RouteKind::ALL.iter().enumerate() {
        let (mut counts, mut sum_us) = ([0; BUCKETS.len() + 1], 0);
        for shard in &metrics.shards {
            of(shard)[r].add_to(&mut counts, &mut sum_us);
        }
        let total: u64 = counts.iter().sum();
        if total == 0 {
            continue;
        }
        let bounds = BUCKETS.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let labels = [("route", route.as_str())];
        let mut sample = family.encode_family(&labels)?;
        #[expect(clippy::cast_precision_loss, reason = "a sum of times needs no 64 bits")]
        let seconds = sum_us as f64 / 1e6;
        sample.encode_histogram::<NoLabelSet>(seconds, total, &buckets, None)?;
    }
    Ok(())
}

fn connections(metrics: &Metrics, text: &mut Text<'_>) -> fmt::Result {
    let open = Protocol::ALL.iter().zip(&metrics.connections);
    let now = open
        .clone()
        .map(|(protocol, open)| (protocol.as_str(), ConstGauge::new(open.now.load(Relaxed))));
    let help = "Open connections by protocol.";
    text.family("connections_open", help, "protocol", MetricType::Gauge, now)?;
    let ever = open.map(|(protocol, open)| (protocol.as_str(), open.ever.load(Relaxed)));
    text.counters("connections_accepted", "Connections that came.", "protocol", ever)?;
    text.gauge("tunnels_open", "Open tunnels.", metrics.tunnels.now.load(Relaxed))?;
    text.counter(
        "tunnels_opened",
        "Tunnels that were opened.",
        metrics.tunnels.ever.load(Relaxed),
    )?;
    let [full, resumed] = &metrics.handshakes;
    let failures =
        words(&HandshakeFailure::ALL, HandshakeFailure::as_str, &metrics.handshake_failures);
    let failed: u64 = failures.iter().map(|(_, count)| count).sum();
    let ends =
        [("full", full.load(Relaxed)), ("resumed", resumed.load(Relaxed)), ("failed", failed)];
    text.counters("tls_handshakes", "TLS handshakes by outcome.", "outcome", ends)?;
    let help = "TLS handshakes that failed, by reason.";
    text.counters("tls_handshake_failures", help, "reason", failures)
}

fn upstream(metrics: &Metrics, text: &mut Text<'_>) -> fmt::Result {
    let opened = metrics.sum(|shard| &shard.upstream_opened);
    let help = "Requests for which a connection to an agent was made.";
    text.counter("upstream_connections_opened", help, opened)?;
    let reused = metrics.sum(|shard| &shard.upstream_reused);
    let help = "Requests for which a connection to an agent was there.";
    text.counter("upstream_connections_reused", help, reused)?;
    let retries = metrics.sum(|shard| &shard.retries);
    text.counter("retries", "Attempts at a second agent.", retries)?;
    let errors = UpstreamError::ALL
        .map(|kind| (kind.as_str(), metrics.sum(|shard| &shard.upstream_errors[kind as usize])));
    text.counters("upstream_errors", "Failed attempts at an agent.", "kind", errors)?;
    let routes = ["miss", "hit"].into_iter().enumerate();
    let routes = routes.map(|(i, word)| (word, metrics.sum(|shard| &shard.routes[i])));
    let help = "Routes that were looked up, by whether they were cached.";
    text.counters("route_lookups", help, "cache", routes)
}

fn refusals(metrics: &Metrics, text: &mut Text<'_>) -> fmt::Result {
    let refused =
        Refused::ALL.map(|by| (by.as_str(), metrics.sum(|shard| &shard.refused[by as usize])));
    text.counters("refused", "Requests that were refused, by what.", "by", refused)?;
    text.counters("limit", "How often a limit was met.", "limit", metrics.limit_counts())
}

fn words<T: Copy>(
    all: &[T],
    word: impl Fn(T) -> &'static str,
    counts: &[AtomicU64],
) -> Vec<(&'static str, u64)> {
    all.iter().zip(counts).map(|(each, count)| (word(*each), count.load(Relaxed))).collect()
}

fn the_process(text: &mut Text<'_>) -> fmt::Result {
    for (name, help, value) in process::gauges() {
        text.gauge(name, help, value)?;
    }
    if let Some(seconds) = process::cpu_seconds() {
        let help = "CPU time, user and system.";
        text.plain("process_cpu", help, Some(&Unit::Seconds), &ConstCounter::new(seconds))?;
    }
    if let Some(seconds) = process::start_seconds() {
        let help = "When the process began, Unix time.";
        text.plain("process_start_time", help, Some(&Unit::Seconds), &ConstGauge::new(seconds))?;
    }
    Ok(())
}

fn others(metrics: &Metrics, text: &mut Text<'_>) -> fmt::Result {
    let counters = metrics.counters.lock().unwrap_or_else(PoisonError::into_inner);
    let counts: Vec<_> = counters.iter().flat_map(|counters| counters()).collect();
    drop(counters);
    for (name, help, value) in counts {
        text.counter(name, help, value)?;
    }
    let gauges = metrics.gauges.lock().unwrap_or_else(PoisonError::into_inner);
    let numbers: Vec<_> = gauges.iter().flat_map(|gauges| gauges()).collect();
    drop(gauges);
    for (name, help, value) in numbers {
        text.gauge(name, help, value)?;
    }
    Ok(())
}
