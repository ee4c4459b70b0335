//! Connections kept into one guest: which may be used again?
//!
//! ```text
//! closed ──admit──► open ──take/put──► ... ──drain──► closed (idle ones reset, epoch + 1)
//!                                            cut ───► every connection breaks, for ever
//! ```
//!
//! # Invariants
//!
//! - A guest owns its links: another sandbox, or a later generation, has links of its own.
//! - What was opened in one epoch is not kept in another: nothing that was open when a guest stood
//!   still is used after it.
//! - At most 8 idle ones per port, 32 per guest, `guest_idle_max` in all, each for 10 s.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use pool_model::Port;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::conn::{Conn, Stream2};

/// Idle connections per port.
const PER_PORT_MAX: usize = 8;
/// Idle connections per guest.
const PER_GUEST_MAX: usize = 32;
/// Longest that one is kept.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One guest's kept connections.
#[derive(Debug, Default)]
pub(crate) struct Links {
    state: Arc<Mutex<State>>,
    cut: CancellationToken,
    /// Held while a connection for many streams is opened: there is one.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    open: bool,
    epoch: u64,
    idle: HashMap<Port, Vec<Idle<Conn>>>,
    shared: HashMap<Port, Idle<Arc<Stream2>>>,
    sweeper: Option<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct Idle<C> {
    conn: C,
    since: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Links {
    /// Keeps connections from now on.
    pub(crate) fn admit(&self) {
        let mut state = self.lock();
        state.open = true;
        state.epoch += 1;
    }

    /// Resets idle connections and keeps none from now on. Requests under way go on.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        state.open = false;
        state.epoch += 1;
        state.sweeper = None;
        let (idle, shared) = (std::mem::take(&mut state.idle), std::mem::take(&mut state.shared));
        drop(state);
        for idle in idle.into_values().flatten() {
            idle.conn.line.end_by_reset();
        }
        for shared in shared.into_values().filter(|shared| Arc::strong_count(&shared.conn) == 1) {
            shared.conn.line.end_by_reset();
        }
    }

    /// Breaks every connection: the guest has ended, or ends now.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
        self.drain();
    }

    pub(super) fn cutting(&self) -> &CancellationToken {
        &self.cut
    }

    /// Which connections may be kept together.
    pub(super) fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// An idle connection that is alive, by what is known now.
    pub(super) fn take(&self, port: Port) -> Option<Conn> {
        let mut state = self.lock();
        if !state.open {
            return None;
        }
        let idle = state.idle.get_mut(&port)?;
        idle.retain(|idle| idle.conn.is_alive());
        let at = idle.iter().rposition(|idle| idle.conn.sender.is_ready())?;
        Some(idle.swap_remove(at).conn)
    }

    /// Keeps a connection whose answer came to its end, if there is room.
    pub(super) fn put(&self, port: Port, conn: Conn, places: &Arc<Semaphore>) {
        let mut state = self.lock();
        let of_port = state.idle.get(&port).map_or(0, Vec::len);
        let fits = of_port < PER_PORT_MAX && state.count() < PER_GUEST_MAX;
        if !state.open || conn.epoch != state.epoch || conn.sender.is_closed() || !fits {
            return;
        }
        let Ok(permit) = Arc::clone(places).try_acquire_owned() else { return };
        let kept = Idle { conn, since: Instant::now(), _permit: permit };
        state.idle.entry(port).or_default().push(kept);
        self.sweep_from_now_on(&mut state);
    }

    /// The connection that the port's streams share.
    pub(super) fn shared(&self, port: Port) -> Option<Arc<Stream2>> {
        let mut state = self.lock();
        if !state.open {
            return None;
        }
        let shared = state.shared.get_mut(&port)?;
        if !shared.conn.is_alive() {
            state.shared.remove(&port);
            return None;
        }
        shared.since = Instant::now();
        Some(Arc::clone(&shared.conn))
    }

    /// Lets other requests share a connection, if there is room.
    pub(super) fn share(&self, port: Port, conn: &Arc<Stream2>, places: &Arc<Semaphore>) {
        let mut state = self.lock();
        if !state.open || conn.epoch != state.epoch || state.count() >= PER_GUEST_MAX {
            return;
        }
        let Ok(permit) = Arc::clone(places).try_acquire_owned() else { return };
        let kept = Idle { conn: Arc::clone(conn), since: Instant::now(), _permit: permit };
        state.shared.insert(port, kept);
        self.sweep_from_now_on(&mut state);
    }

    /// The right to open a connection for many streams.
    pub(super) async fn opening(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.opening.lock().await
    }

    /// Idle connections that are kept now.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.lock().count()
    }

    fn sweep_from_now_on(&self, state: &mut State) {
        if state.sweeper.as_ref().is_some_and(|sweeper| !sweeper.is_finished()) {
            return;
        }
        let sweeper = tokio::spawn(sweep(Arc::downgrade(&self.state)));
        state.sweeper = Some(AbortOnDropHandle::new(sweeper));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&self) -> usize {
        self.idle.values().map(Vec::len).sum::<usize>() + self.shared.len()
    }

    fn forget_old(&mut self, now: Instant) {
        for idle in self.idle.values_mut() {
            idle.retain(|idle| idle.since + IDLE_MAX > now && !idle.conn.sender.is_closed());
        }
        self.idle.retain(|_, idle| !idle.is_empty());
        self.shared.retain(|_, shared| {
            if Arc::strong_count(&shared.conn) > 1 {
                shared.since = now;
            }
            shared.since + IDLE_MAX > now && !shared.conn.sender.is_closed()
        });
    }
}

/// Drops what was idle for too long; ends with the last one.
async fn sweep(state: Weak<Mutex<State>>) {
    loop {
        sleep(LOOK_EVERY).await;
        let Some(state) = state.upgrade() else { return };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.forget_old(Instant::now());
        if state.count() == 0 {
            state.sweeper = None;
            return;
        }
    }
}
