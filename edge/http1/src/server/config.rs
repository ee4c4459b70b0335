//! What bounds a connection, and what counts the bounds that were met.

use std::{sync::atomic::AtomicU64, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use super::Refusal;

/// What is read ahead while a request is served, to see the client leave.
pub(super) const AHEAD_MAX_BYTES: usize = 16 * 1024;
/// How long a drained connection waits for a request that was on its way, to answer it and close.
pub(super) const LAST_REQUEST: Duration = Duration::from_millis(500);
/// How long a refused client may go on sending so that it gets to see why.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// Bounds of a connection.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bytes of a head, its request line included.
    pub max_head_bytes: usize,
    /// Bytes of a request target.
    pub max_target_bytes: usize,
    /// Header fields of a head, at most 256.
    pub max_headers: usize,
    /// Longest from a head's first byte to its last.
    pub head_timeout: Duration,
    /// Longest silence between requests, and before the first.
    pub keep_alive_timeout: Duration,
    /// Longest that a client may take no byte of its answer.
    pub write_timeout: Duration,
    /// Longest silence within a request's body while it is waited for.
    pub body_timeout: Duration,
    /// Requests of one connection; 0: any number.
    pub max_requests: u64,
    /// Makes the answer to a request that never reached the service.
    pub refuse: fn(Refusal) -> Response<Bytes>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_head_bytes: 32 * 1024,
            max_target_bytes: 16 * 1024,
            max_headers: 128,
            head_timeout: Duration::from_secs(15),
            keep_alive_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            max_requests: 0,
            refuse: plain,
        }
    }
}

/// A refusal in one line of text.
fn plain(refusal: Refusal) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{refusal}\n")));
    *response.status_mut() = refusal.status();
    let kind = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// How often each bound was met.
#[derive(Debug, Default)]
pub struct Counters {
    /// Heads that did not come in time.
    pub head_timeout: AtomicU64,
    /// Heads that were too large.
    pub head_bytes: AtomicU64,
    /// Heads and bodies that broke a rule.
    pub malformed: AtomicU64,
    /// Connections closed because nothing was asked for.
    pub idle: AtomicU64,
    /// Bodies of which nothing came for too long.
    pub body_rate: AtomicU64,
    /// Clients that took no bytes.
    pub write_stalled: AtomicU64,
}

impl Counters {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}
