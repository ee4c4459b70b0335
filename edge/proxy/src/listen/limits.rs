//! The listeners' settings, made of the edge's limits, and what counts those that were met.

use std::{sync::Arc, time::Duration};

use edge_quic::TransportLimits;
use edge_telemetry::Telemetry;

use super::serve;
use crate::config::Limits;

/// HTTP/2 flow control per stream.
const H2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// HTTP/2 flow control per connection: what a client can make us hold.
const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// HTTP/2 bytes per stream that wait to be sent.
const H2_SEND_BUFFER_BYTES: usize = 128 * 1024;
/// QUIC flow control per stream.
const QUIC_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// QUIC flow control per connection, each way.
const QUIC_CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// A limit that listeners meet themselves; the protocol layers count their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Connections,
    ConnectionsPerAddress,
    Handshake,
    QuicRetry,
}

/// Settings and counters of all listeners of the process.
#[derive(Debug)]
pub(super) struct ListenerConfigs {
    pub(super) h1: edge_http1::server::Config,
    pub(super) h1_counters: Arc<edge_http1::server::Counters>,
    pub(super) h2: Arc<edge_http2::Config>,
    pub(super) h2_counters: Arc<edge_http2::Counters>,
    pub(super) h3: Arc<edge_http3::Config>,
    pub(super) quic: TransportLimits,
    telemetry: Arc<Telemetry>,
}

impl ListenerConfigs {
    pub(super) fn new(limits: &Limits, telemetry: &Arc<Telemetry>) -> Self {
        Self {
            h1: h1(limits),
            h1_counters: Arc::default(),
            h2: Arc::new(h2(limits)),
            h2_counters: Arc::default(),
            h3: Arc::new(h3(limits)),
            quic: quic(limits),
            telemetry: Arc::clone(telemetry),
        }
    }

    pub(super) fn count(&self, limit: Limit) {
        self.telemetry.count_limit(match limit {
            Limit::Connections => edge_telemetry::Limit::Connections,
            Limit::ConnectionsPerAddress => edge_telemetry::Limit::ConnectionsPerAddress,
            Limit::Handshake => edge_telemetry::Limit::Handshake,
            Limit::QuicRetry => edge_telemetry::Limit::QuicRetry,
        });
    }

    pub(super) fn handshake(&self, kind: Option<rustls::HandshakeKind>) {
        self.telemetry.count_handshake(kind == Some(rustls::HandshakeKind::Resumed));
    }

    pub(super) fn handshake_failed(&self) {
        self.telemetry.count_failed_handshake();
    }
}

fn h1(limits: &Limits) -> edge_http1::server::Config {
    edge_http1::server::Config {
        max_head_bytes: limits.max_header_bytes as usize,
        max_headers: limits.max_headers,
        head_timeout: limits.header_read_timeout,
        keep_alive_timeout: limits.idle_timeout,
        write_timeout: limits.body_idle_timeout,
        body_timeout: limits.body_idle_timeout,
        refuse: serve::refusal,
        ..edge_http1::server::Config::default()
    }
}

fn h2(limits: &Limits) -> edge_http2::Config {
    edge_http2::Config {
        max_concurrent_streams: limits.max_streams,
        max_header_list_bytes: limits.max_header_bytes,
        stream_window_bytes: H2_STREAM_WINDOW_BYTES,
        connection_window_bytes: H2_CONNECTION_WINDOW_BYTES,
        send_buffer_bytes: H2_SEND_BUFFER_BYTES,
        handshake_timeout: limits.handshake_timeout,
        idle_timeout: limits.idle_timeout,
        body_timeout: limits.body_idle_timeout,
        write_timeout: limits.body_idle_timeout,
        max_resets_per_second: limits.max_resets_per_second,
        ..edge_http2::Config::default()
    }
}

fn h3(limits: &Limits) -> edge_http3::Config {
    edge_http3::Config {
        max_field_section_bytes: limits.max_header_bytes,
        max_fields: limits.max_headers,
        head_timeout: limits.header_read_timeout,
        body_idle_timeout: limits.body_idle_timeout,
        resets_per_second_max: limits.max_resets_per_second,
        ..edge_http3::Config::default()
    }
}

fn quic(limits: &Limits) -> TransportLimits {
    TransportLimits {
        max_bidi_streams: limits.max_streams,
        idle: limits.idle_timeout.max(Duration::from_secs(1)),
        stream_window: QUIC_STREAM_WINDOW_BYTES,
        connection_window: QUIC_CONNECTION_WINDOW_BYTES,
        send_window: u64::from(QUIC_CONNECTION_WINDOW_BYTES),
        ..TransportLimits::default()
    }
}
