//! Is there a place for this request, and if not, how long may it wait for one?

mod gate;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pool_model::{FunctionId, TeamId};
use tokio::time::{Instant, timeout_at};

use self::gate::{Entry, Ticket};
use crate::{keys::OurKeys, shards::Shards};

/// Whose places are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    Function(FunctionId),
    Team(TeamId),
    Host(FunctionId, SocketAddr),
}

/// What a request counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmitKey {
    /// The function.
    pub function: FunctionId,
    /// Whose it is.
    pub team: TeamId,
}

/// How many requests may run at a time, and how many may wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AdmitLimits {
    /// Running at a time for the function; 0: no limit.
    pub function_max: u32,
    /// Running at a time for the team; 0: no limit.
    pub team_max: u32,
    /// Waiting at a time, for each of the two.
    pub queue_max: u32,
}

/// Why a request got no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many wait as may wait.
    #[error("the queue is full, try again in {retry_after:?}")]
    QueueFull {
        /// When the queue should have moved on, 1 to 60 s.
        retry_after: Duration,
    },
    /// It waited to its deadline.
    #[error("no place became free in time, try again in {retry_after:?}")]
    QueueTimeout {
        /// When the queue should have moved on, 1 to 60 s.
        retry_after: Duration,
    },
}

/// Places and queues of all functions, teams and hosts. Cheap to clone. Only what has a request
/// running or waiting takes memory.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    gates: Gates,
}

/// The map behind [`Admission`].
#[derive(Debug, Clone)]
pub(crate) struct Gates(Arc<Shards<Scope, Entry, OurKeys>>);

impl Default for Gates {
    fn default() -> Self {
        Self(Arc::new(Shards::new()))
    }
}

/// A place; dropping it gives it to the next in the queue.
#[derive(Debug, Default)]
#[must_use = "the place is given up when this is dropped"]
pub struct Permit {
    team: Option<Place>,
    function: Option<Place>,
}

impl Permit {
    /// When the last of its places was taken; none if nothing was limited.
    #[must_use]
    pub fn taken_at(&self) -> Option<Instant> {
        let places = [&self.team, &self.function];
        places.into_iter().flatten().map(|place| place.since).max()
    }

    /// Says when its request ended, for whom has just read the clock: else the drop reads it.
    pub fn set_end(&mut self, now: Instant) {
        for place in [&mut self.team, &mut self.function].into_iter().flatten() {
            place.until = Some(now);
        }
    }
}

/// A place on one host.
#[derive(Debug, Default)]
#[must_use = "the place is given up when this is dropped"]
pub struct HostPermit {
    _place: Option<Place>,
}

/// One running request in one scope.
#[derive(Debug)]
struct Place {
    gates: Gates,
    scope: Scope,
    since: Instant,
    until: Option<Instant>,
}

impl Admission {
    /// None running, none waiting.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits for a place in the function and then in the team, first come first served, from `now` until
    /// `deadline`. Limits hold from this call on, also for those who wait already.
    ///
    /// Cancel-safe: a dropped future leaves its queue and gives back what it had.
    ///
    /// # Errors
    ///
    /// [`Refused`] if the queue is full or the deadline passes.
    pub async fn admit(
        &self,
        key: AdmitKey,
        limits: AdmitLimits,
        now: Instant,
        deadline: Instant,
    ) -> Result<Permit, Refused> {
        if limits.function_max == 0 && limits.team_max == 0 {
            return Ok(Permit::default());
        }
        let queue = limits.queue_max;
        let function = Scope::Function(key.function);
        // Always in this order: nobody who holds a team's place waits for a function's.
        let function =
            self.gates.enter(function, limits.function_max, queue, now, deadline).await?;
        let now = function.as_ref().map_or(now, |place| place.since);
        let team =
            self.gates.enter(Scope::Team(key.team), limits.team_max, queue, now, deadline).await?;
        Ok(Permit { team, function })
    }

    /// Takes a place of the function on `host` if one is free; `max` 0: no limit.
    #[must_use]
    pub fn try_host(&self, function: FunctionId, host: SocketAddr, max: u32) -> Option<HostPermit> {
        if max == 0 {
            return Some(HostPermit::default());
        }
        let place = self.gates.try_enter(Scope::Host(function, host), max)?;
        Some(HostPermit { _place: Some(place) })
    }

    /// Tells those who wait that limits changed. Needed when limits were raised or lifted and no
    /// request may come that would say so.
    pub fn limits_changed(&self, key: AdmitKey, limits: AdmitLimits) {
        self.gates.set_limit(Scope::Function(key.function), limits.function_max);
        self.gates.set_limit(Scope::Team(key.team), limits.team_max);
    }

    /// Requests running and waiting for the function; both 0 while it has no limit.
    #[must_use]
    pub fn load(&self, function: FunctionId) -> (u32, usize) {
        let scope = Scope::Function(function);
        self.gates.0.lock(&scope).get(&scope).map_or((0, 0), Entry::load)
    }

    /// How many functions, teams and hosts have a request running or waiting.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.gates.0.len()
    }
}

impl Gates {
    async fn enter(
        &self,
        scope: Scope,
        limit: u32,
        queue_max: u32,
        now: Instant,
        deadline: Instant,
    ) -> Result<Option<Place>, Refused> {
        if limit == 0 {
            return Ok(None);
        }
        let mut ticket = match self.join(scope, limit, queue_max, now)? {
            Joined::In(place) => return Ok(Some(place)),
            Joined::Waiting(ticket) => ticket,
        };
        if timeout_at(deadline, ticket.granted()).await.is_err() {
            let retry_after = ticket.retry_after();
            return Err(Refused::QueueTimeout { retry_after });
        }
        Ok(Some(ticket.into_place()))
    }

    fn join(
        &self,
        scope: Scope,
        limit: u32,
        queue_max: u32,
        now: Instant,
    ) -> Result<Joined, Refused> {
        let mut shard = self.0.lock(&scope);
        let entry = shard.entry(scope).or_default();
        entry.set_limit(limit);
        if entry.try_take() {
            drop(shard);
            return Ok(Joined::In(self.place(scope, now)));
        }
        match entry.queue(queue_max) {
            Some((number, signal)) => {
                drop(shard);
                Ok(Joined::Waiting(Ticket::new(self.clone(), scope, number, signal)))
            }
            None => Err(Refused::QueueFull { retry_after: entry.retry_after() }),
        }
    }

    fn try_enter(&self, scope: Scope, limit: u32) -> Option<Place> {
        let mut shard = self.0.lock(&scope);
        let entry = shard.entry(scope).or_default();
        entry.set_limit(limit);
        let taken = entry.try_take();
        drop(shard);
        taken.then(|| self.place(scope, Instant::now()))
    }

    fn set_limit(&self, scope: Scope, limit: u32) {
        if let Some(entry) = self.0.lock(&scope).get_mut(&scope) {
            entry.set_limit(limit);
        }
    }

    fn place(&self, scope: Scope, since: Instant) -> Place {
        Place { gates: self.clone(), scope, since, until: None }
    }

    /// Does something to an entry and forgets it if nobody runs or waits there any more.
    fn change<R>(&self, scope: Scope, act: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let mut shard = self.0.lock(&scope);
        let entry = shard.get_mut(&scope)?;
        let result = act(entry);
        if entry.is_idle() {
            shard.remove(&scope);
        }
        Some(result)
    }
}

enum Joined {
    In(Place),
    Waiting(Ticket),
}

impl Drop for Place {
    fn drop(&mut self) {
        let until = self.until.unwrap_or_else(Instant::now);
        let served = until.saturating_duration_since(self.since);
        self.gates.change(self.scope, |entry| entry.leave(Some(served)));
    }
}

#[cfg(test)]
mod tests;
