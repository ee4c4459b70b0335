//! The listeners' settings, made of the edge's limits, and what counts those that were met.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use edge_quic::TransportLimits;
use edge_telemetry::{ConnectionGuard, HandshakeFailure, Limit as Count, Telemetry};

use super::serve;
use crate::{config::Limits, gateway::Protocol};

/// HTTP/2 flow control per stream.
const H2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// HTTP/2 flow control per connection: what a client can make us hold.
const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// HTTP/2 bytes per connection that wait to be sent.
const H2_SEND_BUFFER_BYTES: usize = 64 * 1024;
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

    /// What the protocol layers counted.
    pub(super) fn limit_counts(&self) -> Vec<(Count, u64)> {
        let (h1, h2, h3) = (&*self.h1_counters, &*self.h2_counters, &*self.h3.counters);
        let of = |limit, counters: &[&AtomicU64]| {
            (limit, counters.iter().map(|counter| counter.load(Ordering::Relaxed)).sum())
        };
        vec![
            of(Count::HeaderTime, &[&h1.head_timeout, &h3.head_late]),
            of(Count::HeaderBytes, &[&h1.head_bytes, &h2.head_bytes, &h3.head_too_large]),
            of(Count::Malformed, &[&h1.malformed, &h2.malformed, &h3.malformed, &h3.protocol]),
            of(Count::Idle, &[&h1.idle, &h2.idle]),
            of(Count::BodyRate, &[&h1.body_rate, &h3.body_late]),
            of(Count::WriteStalled, &[&h1.write_stalled, &h2.write_stalled, &h3.write_stalled]),
            of(Count::Streams, &[&h3.uni_excess]),
            of(
                Count::Resets,
                &[
                    &h2.resets,
                    &h3.resets_excess,
                    &h3.unanswered_resets_excess,
                    &h3.provoked_resets_excess,
                ],
            ),
            of(Count::Continuations, &[&h2.continuations]),
            of(Count::Settings, &[&h2.settings]),
            of(Count::Pings, &[&h2.pings]),
            of(Count::Control, &[&h2.control, &h3.control_excess]),
            of(Count::TinyData, &[&h2.tiny_data, &h3.empty_frames]),
            of(Count::Handshake, &[&h2.handshake]),
        ]
    }

    /// Counts a connection as open.
    pub(super) fn open(&self, protocol: Protocol) -> ConnectionGuard {
        self.telemetry.connection(match protocol {
            Protocol::H1 => edge_telemetry::Protocol::H1,
            Protocol::H2 => edge_telemetry::Protocol::H2,
            Protocol::H3 => edge_telemetry::Protocol::H3,
        })
    }

    pub(super) fn handshake(&self, kind: Option<rustls::HandshakeKind>) {
        self.telemetry.count_handshake(kind == Some(rustls::HandshakeKind::Resumed));
    }

    /// `error` is the TLS error, if it was one.
    pub(super) fn handshake_failed(&self, error: Option<&rustls::Error>) {
        self.telemetry.count_handshake_failure(match error {
            None => HandshakeFailure::Closed,
            Some(rustls::Error::InvalidMessage(_)) => HandshakeFailure::NotTls,
            Some(rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol) => {
                HandshakeFailure::NothingInCommon
            }
            Some(rustls::Error::AlertReceived(_)) => HandshakeFailure::Alert,
            Some(_) => HandshakeFailure::Other,
        });
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
        requests_open_max: Some(limits.max_streams),
        head_timeout: limits.header_read_timeout,
        body_idle_timeout: limits.body_idle_timeout,
        resets_per_second_max: limits.max_resets_per_second,
        ..edge_http3::Config::default()
    }
}

fn quic(limits: &Limits) -> TransportLimits {
    TransportLimits {
        max_bidi_streams: limits.max_streams.min(edge_http3::FIRST_REQUESTS), // then as HTTP/3 says
        idle: limits.idle_timeout.max(Duration::from_secs(1)),
        stream_window: QUIC_STREAM_WINDOW_BYTES,
        connection_window: QUIC_CONNECTION_WINDOW_BYTES,
        send_window: u64::from(QUIC_CONNECTION_WINDOW_BYTES),
        ..TransportLimits::default()
    }
}
