//! What bounds a connection, and what counts the bounds that were met.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Bounds of a connection.
#[derive(Debug, Clone)]
pub struct Config {
    /// Requests at a time.
    pub max_concurrent_streams: u32,
    /// Bytes of one request's header fields as RFC 9113 6.5.2 counts them: 32 more per field.
    pub max_header_list_bytes: u32,
    /// Flow control per stream.
    pub stream_window_bytes: u32,
    /// Flow control per connection.
    pub connection_window_bytes: u32,
    /// Bytes of all streams that wait to be sent.
    pub send_buffer_bytes: usize,
    /// Longest wait for the preface and the first settings.
    pub handshake_timeout: Duration,
    /// Longest silence; half of it is followed by a PING.
    pub idle_timeout: Duration,
    /// Longest silence within a request's body while it is waited for.
    pub body_timeout: Duration,
    /// Longest that a client may take no byte of an answer.
    pub write_timeout: Duration,
    /// Streams per second that the client resets, or that are reset for what it does in them.
    pub max_resets_per_second: u32,
    /// SETTINGS, PING, PRIORITY and unknown frames per second.
    pub max_control_frames_per_second: u32,
    /// WINDOW_UPDATE frames per second.
    pub max_window_updates_per_second: u32,
    /// DATA frames per second that bring no more than a few bytes.
    pub max_tiny_data_frames_per_second: u32,
    /// CONTINUATION frames of one head.
    pub max_continuations: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 128,
            max_header_list_bytes: 32 * 1024,
            stream_window_bytes: 256 * 1024,
            connection_window_bytes: 1024 * 1024,
            send_buffer_bytes: 64 * 1024,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            max_resets_per_second: 200,
            max_control_frames_per_second: 100,
            max_window_updates_per_second: 20_000,
            max_tiny_data_frames_per_second: 2000,
            max_continuations: 16,
        }
    }
}

/// How often each bound was met.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections whose preface or first settings did not come in time.
    pub handshake: AtomicU64,
    /// Connections closed because nothing was asked for.
    pub idle: AtomicU64,
    /// Too many streams that were reset.
    pub resets: AtomicU64,
    /// Too many CONTINUATION frames.
    pub continuations: AtomicU64,
    /// Too many SETTINGS frames.
    pub settings: AtomicU64,
    /// Too many PING frames.
    pub pings: AtomicU64,
    /// Too many PRIORITY, unknown or WINDOW_UPDATE frames.
    pub control: AtomicU64,
    /// Too many DATA frames with next to nothing in them.
    pub tiny_data: AtomicU64,
    /// Heads that are much larger than allowed once they are decoded.
    pub head_bytes: AtomicU64,
    /// Requests that broke a rule of RFC 9113 8, and connections that began without settings.
    pub malformed: AtomicU64,
    /// Clients that took no bytes of an answer.
    pub write_stalled: AtomicU64,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
