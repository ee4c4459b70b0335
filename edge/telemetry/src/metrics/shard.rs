//! What one worker counts, in memory that no other worker writes to.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::labels::{Refused, UpstreamError};
use crate::record::{Outcome, Protocol, RequestRecord, RouteKind};

/// Upper bounds of latency buckets, seconds: from the edge's own part (0.1 ms) to a long answer.
pub(super) const BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
/// Status classes: none sent, 1xx to 5xx.
pub(super) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
const ROUTES: usize = RouteKind::ALL.len();
const PROTOCOLS: usize = Protocol::ALL.len();

/// Counts by latency.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    counts: [AtomicU64; BUCKETS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    fn record(&self, ms: f32) {
        let seconds = f64::from(ms) / 1e3;
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        self.counts[bucket].fetch_add(1, Relaxed);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative")]
        let us = (f64::from(ms) * 1e3).max(0.0) as u64;
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// The count of each bucket (the last: above all bounds), and the sum in microseconds.
    pub(super) fn add_to(&self, counts: &mut [u64; BUCKETS.len() + 1], sum_us: &mut u64) {
        for (sum, count) in counts.iter_mut().zip(&self.counts) {
            *sum += count.load(Relaxed);
        }
        *sum_us = sum_us.saturating_add(self.sum_us.load(Relaxed));
    }
}

/// One worker's counts; aligned, so that its ends share no cache line with a neighbour.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Shard {
    pub(super) requests: [[[AtomicU64; CLASSES.len()]; ROUTES]; PROTOCOLS],
    pub(super) aborted: [AtomicU64; PROTOCOLS],
    pub(super) total: [Histogram; ROUTES],
    pub(super) route: [Histogram; ROUTES],
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) interims: AtomicU64,
    pub(super) upstream_opened: AtomicU64,
    pub(super) upstream_reused: AtomicU64,
    pub(super) upstream_errors: [AtomicU64; UpstreamError::ALL.len()],
    pub(super) refused: [AtomicU64; Refused::ALL.len()],
    /// Misses, hits.
    pub(super) routes: [AtomicU64; 2],
    pub(super) in_flight: AtomicI64,
}

impl Shard {
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(crate) fn finish(&self, record: &RequestRecord) {
        let (protocol, route) = (record.protocol as usize, record.route as usize);
        let class = usize::from(record.status / 100).min(CLASSES.len() - 1);
        self.in_flight.fetch_sub(1, Relaxed);
        self.requests[protocol][route][class].fetch_add(1, Relaxed);
        if record.outcome == Outcome::Aborted {
            self.aborted[protocol].fetch_add(1, Relaxed);
        }
        self.total[route].record(record.total_ms);
        self.route[route].record(record.route_ms);
        add(&self.bytes_in, record.bytes_in);
        add(&self.bytes_out, record.bytes_out);
        add(&self.retries, record.retries.into());
        add(&self.interims, record.interims.into());
        if record.upstream.is_some() {
            let counter = if record.reused { &self.upstream_reused } else { &self.upstream_opened };
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn count_refused(&self, by: Refused) {
        self.refused[by as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn count_upstream_error(&self, kind: UpstreamError) {
        self.upstream_errors[kind as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn count_route(&self, cached: bool) {
        self.routes[usize::from(cached)].fetch_add(1, Relaxed);
    }
}

/// Nothing is written if nothing changes, which is the rule for most of a request's numbers.
fn add(counter: &AtomicU64, value: u64) {
    if value > 0 {
        counter.fetch_add(value, Relaxed);
    }
}
