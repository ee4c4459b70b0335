//! Follows pools: what `GET /v1/pools/events` and `GET /v1/pools/{function}/events` send.
//!
//! Pulled by the client: nobody is asked anything while a slow reader has not taken the events
//! before, and a stream that is dropped ends there.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use edge_api::{FunctionName, PoolEnd, PoolEvent, PoolTrouble};
use edge_store::FunctionRecord;
use pool_model::{ErrorCode, FunctionId, TeamId};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{ApiError, Control, pool_wire::Detail};

/// Streams at a time: each asks the agent up to five times a second.
const STREAMS_MAX: usize = 64;

/// The places for streams, and the end of all of them.
#[derive(Debug)]
pub(crate) struct Streams {
    places: Arc<Semaphore>,
    closing: CancellationToken,
}

impl Default for Streams {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(STREAMS_MAX)), closing: CancellationToken::new() }
    }
}

/// The events of one function's pool, or of all of a team's.
pub(crate) struct PoolFollower {
    control: Arc<Control>,
    team: TeamId,
    /// What is followed; none is everything of the team.
    function: Option<(FunctionId, FunctionName)>,
    ticks: Interval,
    closing: CancellationToken,
    /// Events of this tick that were not taken yet.
    pending: VecDeque<PoolEvent>,
    /// Whose pools were told of last: what is missing then was deleted.
    known: BTreeSet<FunctionName>,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

/// What a follower has to say next.
#[derive(Debug)]
pub(crate) enum Told {
    /// An event.
    Event(PoolEvent),
    /// That there is nothing to tell: a sign of life for whoever is between here and the client.
    Nothing,
}

impl Control {
    /// Ends every event stream, now and from now on. For the beginning of a shutdown, which would
    /// wait for them otherwise: by themselves they go on as long as their clients like.
    pub fn close_streams(&self) {
        self.streams.closing.cancel();
    }

    /// Follows a team's function's pool, or all of the team's.
    pub(crate) async fn follow_pools(
        self: &Arc<Self>,
        team: TeamId,
        function: Option<FunctionName>,
        interval: Duration,
    ) -> Result<PoolFollower, ApiError> {
        let place = Arc::clone(&self.streams.places).try_acquire_owned().map_err(|_| {
            let why = format!("{STREAMS_MAX} event streams are open already; try again later");
            ApiError::new(ErrorCode::NoCapacity, why)
        })?;
        let function = match function {
            Some(name) => Some((self.owned_function(team, name.as_str()).await?.id, name)),
            None => None,
        };
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(PoolFollower {
            control: Arc::clone(self),
            team,
            function,
            ticks,
            closing: self.streams.closing.clone(),
            pending: VecDeque::new(),
            known: BTreeSet::new(),
            ended: false,
            _place: place,
        })
    }
}

impl PoolFollower {
    /// What to tell next, `None` at the end. The first tick is at once.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        if let Some(event) = self.pending.pop_front() {
            return Some(Told::Event(event));
        }
        if self.ended {
            return None;
        }
        let closing = self.closing.clone();
        let events = closing
            .run_until_cancelled(async {
                self.ticks.tick().await;
                self.look().await.unwrap_or_else(|error| vec![trouble(&error)])
            })
            .await?;
        self.pending.extend(events);
        Some(self.pending.pop_front().map_or(Told::Nothing, Told::Event))
    }

    /// The events of one tick.
    async fn look(&mut self) -> Result<Vec<PoolEvent>, ApiError> {
        match self.function.clone() {
            Some((id, name)) => Ok(vec![self.look_at(id, name).await?]),
            None => self.look_at_all().await,
        }
    }

    async fn look_at(&mut self, id: FunctionId, name: FunctionName) -> Result<PoolEvent, ApiError> {
        let found = self.control.store().function(self.team, name.as_str()).await?;
        // One of the same name and another id was deployed after ours was deleted.
        let Some(function) = found.filter(|found| found.id == id) else {
            self.ended = true;
            return Ok(PoolEvent::End(PoolEnd { function: name }));
        };
        let pool = self.control.pool_of(&function, Detail::NoSeries).await?;
        Ok(PoolEvent::Stats(Box::new(pool)))
    }

    async fn look_at_all(&mut self) -> Result<Vec<PoolEvent>, ApiError> {
        let functions = self.control.store().functions(self.team).await?;
        let now = names(&functions)?;
        let gone = std::mem::replace(&mut self.known, now.clone());
        let gone = gone.difference(&now).cloned();
        let mut events: Vec<_> =
            gone.map(|function| PoolEvent::End(PoolEnd { function })).collect();
        match self.control.pools_of(&functions, Detail::NoSeries).await {
            Ok(pools) => events.extend(pools.into_iter().map(Box::new).map(PoolEvent::Stats)),
            Err(error) => events.push(trouble(&error)), // who is gone is told all the same
        }
        Ok(events)
    }
}

fn names(functions: &[FunctionRecord]) -> Result<BTreeSet<FunctionName>, ApiError> {
    functions.iter().map(|f| f.name.parse().map_err(ApiError::internal)).collect()
}

fn trouble(error: &ApiError) -> PoolEvent {
    if error.code() == ErrorCode::Internal {
        let source = std::error::Error::source(error);
        tracing::error!(error = source, "a pool's event could not be made");
    }
    let (code, message) = (error.code().as_str().to_owned(), error.to_string());
    PoolEvent::Error(PoolTrouble { code, message })
}
