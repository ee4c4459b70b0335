//! What bounds a connection, and what counts the bounds that were met.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Bounds of a connection. How many streams a new client may open, and how many bytes it may have on
/// the way, are bounds of the transport: see `quinn::TransportConfig`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Most bytes of one request's head, or of its trailers, as RFC 9114 4.2.2 counts them: 32 more
    /// per field. It is what our SETTINGS announce.
    pub max_field_section_bytes: u32,
    /// Most fields of one head, pseudo-header fields included.
    pub max_fields: usize,
    /// How many requests a client may have open at once, after its first few. Until then, or for
    /// ever with `None`, what the transport allows: if it is [`FIRST_REQUESTS`](crate::FIRST_REQUESTS),
    /// a connection with few requests takes less memory.
    pub requests_open_max: Option<u32>,
    /// Longest wait for a request's head, counted from its first byte.
    pub head_timeout: Duration,
    /// Longest silence within a request's body while it is waited for (not within a tunnel), and
    /// longest that a client may take no byte of an answer.
    pub body_idle_timeout: Duration,
    /// Longest wait until a client has acknowledged the whole of an answer, once it is written; for
    /// small answers at the end of a drain at most five seconds.
    pub ack_timeout: Duration,
    /// About how many bytes of an answer are put together into one write, if they are there.
    pub write_batch_bytes: usize,
    /// Requests per second that the client gives up, answered or not.
    pub resets_per_second_max: u32,
    /// Requests per second that the client gives up before their final answer begins: work for
    /// nothing.
    pub unanswered_resets_per_second_max: u32,
    /// Requests per second that we have to reset because of what the client does in them: malformed
    /// heads and bodies, heads that do not come, answers that it does not take. It makes the same
    /// work for nothing as a reset of its own.
    pub provoked_resets_per_second_max: u32,
    /// Frames and pieces per second on the client's control and QPACK streams.
    pub control_frames_per_second_max: u32,
    /// Streams in one direction that the client opens per second; three are of use.
    pub uni_streams_per_second_max: u32,
    /// Frames in a row that bring nothing: unknown ones, and DATA without a byte. On the control
    /// stream, which lives as long as the connection, that is per second.
    pub frames_without_progress_max: u32,
    /// PRIORITY_UPDATE frames that are kept for requests still to come; the oldest go first.
    pub priority_updates_max: usize,
    /// How far ahead of the last request a PRIORITY_UPDATE may refer, in requests. Not less than
    /// the number of requests that the transport allows at a time.
    pub priority_ahead_max: u64,
    /// What counts the bounds that were met, for all connections that share it.
    pub counters: Arc<Counters>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_field_section_bytes: 32 * 1024,
            max_fields: 128,
            requests_open_max: None,
            head_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_secs(60),
            ack_timeout: Duration::from_secs(240),
            write_batch_bytes: 64 * 1024,
            resets_per_second_max: 200,
            unanswered_resets_per_second_max: 100,
            provoked_resets_per_second_max: 100,
            control_frames_per_second_max: 1000,
            uni_streams_per_second_max: 32,
            frames_without_progress_max: 64,
            priority_updates_max: 128,
            priority_ahead_max: 65_536,
            counters: Arc::default(),
        }
    }
}

/// How often each bound was met.
#[derive(Debug, Default)]
pub struct Counters {
    /// Heads beyond the limits, answered 431.
    pub head_too_large: AtomicU64,
    /// Heads, bodies and trailers that break a rule of HTTP.
    pub malformed: AtomicU64,
    /// Heads that did not come in time.
    pub head_late: AtomicU64,
    /// Bodies that did not come in time.
    pub body_late: AtomicU64,
    /// Clients that took no bytes of an answer.
    pub write_stalled: AtomicU64,
    /// Requests that the client gave up.
    pub resets: AtomicU64,
    /// Connections with too many of those.
    pub resets_excess: AtomicU64,
    /// Those of them that had no final answer yet.
    pub unanswered_resets: AtomicU64,
    /// Connections with too many of those.
    pub unanswered_resets_excess: AtomicU64,
    /// Requests that we reset because of what the client did in them.
    pub provoked_resets: AtomicU64,
    /// Connections with too many of those.
    pub provoked_resets_excess: AtomicU64,
    /// Connections with too much on the client's control or QPACK streams.
    pub control_excess: AtomicU64,
    /// Connections with too many streams in one direction.
    pub uni_excess: AtomicU64,
    /// Connections with too many frames that bring nothing.
    pub empty_frames: AtomicU64,
    /// Connections closed because the client broke another rule of the protocol.
    pub protocol: AtomicU64,
    /// Requests refused because the connection was about to close.
    pub rejected: AtomicU64,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
