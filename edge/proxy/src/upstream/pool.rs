//! Idle connections to agents, by address, newest first. Bounded per agent and in age.
//!
//! These end at an agent, never at a guest, so reuse can't reach another sandbox.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::client::conn::http1::SendRequest;
use tokio::{task::AbortHandle, time::Instant};

use crate::body::RequestBody;

/// One connection to an agent. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Link {
    agent: SocketAddr,
    sender: SendRequest<RequestBody>,
    task: AbortHandle,
}

impl Link {
    pub(super) fn new(
        agent: SocketAddr,
        sender: SendRequest<RequestBody>,
        task: AbortHandle,
    ) -> Self {
        Self { agent, sender, task }
    }

    pub(super) fn sender(&mut self) -> &mut SendRequest<RequestBody> {
        &mut self.sender
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
}

/// The idle connections.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
    per_agent: usize,
    idle_timeout: Duration,
}

impl Pool {
    pub(super) fn new(per_agent: usize, idle_timeout: Duration) -> Self {
        Self { idle: Mutex::new(HashMap::new()), per_agent, idle_timeout }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The most recently used connection that is still open and ready.
    pub(super) fn take(&self, agent: SocketAddr) -> Option<Link> {
        let mut idle = self.lock();
        let links = idle.get_mut(&agent)?;
        while let Some(Idle { link, since }) = links.pop() {
            if since.elapsed() < self.idle_timeout && link.sender.is_ready() {
                return Some(link);
            }
        }
        None
    }

    /// Keeps a connection whose answer has ended; closes it if there are enough.
    pub(super) fn put(&self, link: Link) {
        if link.sender.is_closed() {
            return;
        }
        let mut idle = self.lock();
        let links = idle.entry(link.agent).or_default();
        if links.len() < self.per_agent {
            links.push(Idle { link, since: Instant::now() });
        }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self) {
        self.lock().retain(|_, links| {
            links.retain(|idle| {
                idle.since.elapsed() < self.idle_timeout && !idle.link.sender.is_closed()
            });
            !links.is_empty()
        });
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }
}
