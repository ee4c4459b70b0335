//! Event streams as they go out: `text/event-stream` (the HTML standard's server-sent events).

use std::time::Duration;

use axum::{
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use edge_api::{FunctionName, POOL_EVENTS_INTERVAL_MS, PoolEvent};
use futures::stream;
use pool_model::TeamId;
use serde::Deserialize;

use super::{
    input::{Caller, Params, Which},
    routes::Shared,
};
use crate::{
    ApiError,
    events::{PoolFollower, Told},
    validate,
};

/// How often to tell.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pace {
    #[serde(default = "default_interval_ms")]
    interval_ms: u64,
}

const fn default_interval_ms() -> u64 {
    POOL_EVENTS_INTERVAL_MS
}

/// `GET /v1/pools/events`.
pub(super) async fn of_all(
    state: Shared,
    Caller(team): Caller,
    Params(pace): Params<Pace>,
) -> Result<Response, ApiError> {
    follow(state, team, None, &pace).await
}

/// `GET /v1/pools/{function}/events`.
pub(super) async fn of_one(
    state: Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
    Params(pace): Params<Pace>,
) -> Result<Response, ApiError> {
    follow(state, team, Some(name), &pace).await
}

async fn follow(
    State(control): Shared,
    team: TeamId,
    function: Option<FunctionName>,
    pace: &Pace,
) -> Result<Response, ApiError> {
    validate::interval_ms(pace.interval_ms)?;
    let interval = Duration::from_millis(pace.interval_ms);
    let follower = control.follow_pools(team, function, interval).await?;
    Ok(Sse::new(stream::unfold(follower, next)).into_response())
}

/// The next event on the wire. One that can't be written ends the stream: none of ours is like that.
async fn next(mut follower: PoolFollower) -> Option<(Result<Event, axum::Error>, PoolFollower)> {
    let event = match follower.next().await? {
        Told::Event(event) => written(&event),
        Told::Nothing => Ok(Event::default().comment("nothing to tell")),
    };
    Some((event, follower))
}

fn written(event: &PoolEvent) -> Result<Event, axum::Error> {
    let named = Event::default().event(event.name());
    match event {
        PoolEvent::Stats(pool) => named.json_data(pool),
        PoolEvent::End(end) => named.json_data(end),
        PoolEvent::Error(trouble) => named.json_data(trouble),
    }
}
