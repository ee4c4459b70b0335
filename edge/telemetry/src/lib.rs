//! Metrics, access log, request records and traces of the edge.
//!
//! ```text
//! worker --finish(record)--> metrics (own shard)
//!                       \--> ring (own, for GET /v1/requests/{id})
//!                        \-> batch --> writer thread --> JSON lines
//!                         \-> span --> exporter --> OTLP/HTTP
//! ```
//!
//! # Invariants
//!
//! - A worker never formats, never writes and never waits: a full hand-over drops and counts.
//! - No query string, header value, body or token is ever recorded.
//! - What was handed over before a shutdown is written by it.
//!
//! # Limits
//!
//! 65,536 records in all are kept, each below 1.5 KiB, what a client chose (host, path, user agent) cut
//! to 968 bytes; 16,384 records per worker wait to be written; 4096 requests' spans wait to be exported. What
//! did not fit, was refused by the target or could not be sent in time is counted.

mod access_log;
pub mod digits;
mod line;
mod metrics;
mod otlp;
mod process;
mod record;
mod ring;
mod sink;
mod telemetry;
mod trace;

pub use access_log::{LogConfig, LogTarget};
pub use metrics::{
    ConnectionGuard, Counters, Gauges, HandshakeFailure, Limit, Limits, Metrics, Refused,
    TunnelGuard, UpstreamError,
};
pub use otlp::{OtlpConfig, OtlpError};
pub use record::{ErrorSource, Outcome, Protocol, RecordId, RequestRecord, RouteKind};
pub use telemetry::{Background, Telemetry, TelemetryConfig, TelemetryError, WorkerTelemetry};
pub use trace::{TraceContext, TraceParent};
