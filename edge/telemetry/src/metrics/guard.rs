//! What is open now: guards that count up when made and down when dropped.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
};

use super::Metrics;
use crate::record::Protocol;

/// How many there are, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) now: AtomicI64,
    pub(super) ever: AtomicU64,
}

impl Open {
    fn enter(&self) {
        self.now.fetch_add(1, Relaxed);
        self.ever.fetch_add(1, Relaxed);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, Relaxed);
    }
}

/// A client's connection, counted as open for as long as this lives.
#[derive(Debug)]
#[must_use = "the connection is counted as open only while this lives"]
pub struct ConnectionGuard {
    metrics: Arc<Metrics>,
    protocol: Protocol,
}

impl ConnectionGuard {
    pub(super) fn new(metrics: &Arc<Metrics>, protocol: Protocol) -> Self {
        metrics.connections[protocol as usize].enter();
        Self { metrics: Arc::clone(metrics), protocol }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.metrics.connections[self.protocol as usize].leave();
    }
}

/// An upgraded or CONNECT stream, counted as open for as long as this lives.
#[derive(Debug)]
#[must_use = "the tunnel is counted as open only while this lives"]
pub struct TunnelGuard {
    metrics: Arc<Metrics>,
}

impl TunnelGuard {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.tunnels.enter();
        Self { metrics: Arc::clone(metrics) }
    }
}

impl Drop for TunnelGuard {
    fn drop(&mut self) {
        self.metrics.tunnels.leave();
    }
}
