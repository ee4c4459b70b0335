//! Idle connections to agents, by address, newest first. Bounded per agent and in age.
//!
//! These end at an agent, never at a guest, so reuse can't reach another sandbox.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use edge_http1::client::Connection;
use edge_policy::OurKeys;
use tokio::time::Instant;

#[derive(Debug)]
struct Idle {
    connection: Connection,
    /// When that was first seen: the clock is read for all, not for each.
    since: Option<Instant>,
}

type ByAgent = HashMap<SocketAddr, Vec<Idle>, OurKeys>;

/// The idle connections.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Mutex<ByAgent>,
    per_agent: usize,
    idle_timeout: Duration,
}

impl Pool {
    pub(super) fn new(per_agent: usize, idle_timeout: Duration) -> Self {
        Self { idle: Mutex::default(), per_agent, idle_timeout }
    }

    fn lock(&self) -> MutexGuard<'_, ByAgent> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most recently used connection that still seems to be open.
    pub(super) fn take(&self, agent: SocketAddr, now: Instant) -> Option<Connection> {
        let mut idle = self.lock();
        let connections = idle.get_mut(&agent)?;
        while let Some(Idle { mut connection, since }) = connections.pop() {
            let idle = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            if idle < self.idle_timeout && connection.is_reusable() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose answer has ended; closes it if there are enough.
    pub(super) fn put(&self, agent: SocketAddr, connection: Connection) {
        let mut idle = self.lock();
        let connections = idle.entry(agent).or_default();
        if connections.len() < self.per_agent {
            connections.push(Idle { connection, since: None });
        }
    }

    /// Closes what has been idle for too long, or was closed by its agent.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.lock().retain(|_, connections| {
            connections.retain_mut(|idle| {
                let since = *idle.since.get_or_insert(now);
                let keep = now.saturating_duration_since(since) < self.idle_timeout
                    && idle.connection.is_reusable();
                if keep {
                    idle.connection.shrink();
                }
                keep
            });
            !connections.is_empty()
        });
    }
}
