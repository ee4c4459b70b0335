//! What goes wrong on purpose.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderName, Response, StatusCode};

use super::{Refusal, SERVER_TIMING, ok, text, value};
use crate::{
    body::{Cut, Outbound, full},
    clock::dur,
    query::Query,
    state::State,
};

/// How often the server has stalled.
const STALLS: HeaderName = HeaderName::from_static("x-stalls");
/// The most for "every so-manyth".
pub(super) const EVERY_MAX: u64 = 1_000_000_000;

/// `/stall?every=&ms=`: each so-manyth of these holds up every answer of the server for that long,
/// as a collection of garbage would. `Server-Timing` says how long this one was held (`stall`).
pub(super) async fn stall(
    query: Option<&str>,
    state: &Arc<State>,
    begun: Instant,
) -> Result<Response<Outbound>, Refusal> {
    let query = Query::parse(query, &["every", "ms"])?;
    let every = query.number("every", 1..=EVERY_MAX)?.unwrap_or(100);
    let length = query.milliseconds("ms")?.unwrap_or(Duration::from_millis(200));
    if state.turns.stall.is_every(every) {
        state.stall(length);
    }
    state.released().await;
    let mut response = ok();
    let timing = format!("stall;dur={}", dur(begun.elapsed()));
    response.headers_mut().insert(SERVER_TIMING, value(&timing));
    response.headers_mut().insert(STALLS, state.stalls().into());
    Ok(response)
}

/// `/status?code=`: that status.
pub(super) fn status(query: Option<&str>) -> Result<Response<Outbound>, Refusal> {
    let query = Query::parse(query, &["code"])?;
    let code = query.number("code", 200..=599)?.unwrap_or(200);
    let code = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    let code = code.expect("200 to 599 are status codes");
    if matches!(code, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        let mut bare = Response::new(full(""));
        *bare.status_mut() = code;
        return Ok(bare);
    }
    Ok(text(code, format!("{code}\n")))
}

/// `/error?every=`: each so-manyth is a 500.
pub(super) fn error(query: Option<&str>, state: &State) -> Result<Response<Outbound>, Refusal> {
    let query = Query::parse(query, &["every"])?;
    let every = query.number("every", 1..=EVERY_MAX)?.unwrap_or(10);
    if state.turns.error.is_every(every) {
        return Ok(text(StatusCode::INTERNAL_SERVER_ERROR, "an error on purpose\n".to_owned()));
    }
    Ok(ok())
}

/// `/reset?every=`: each so-manyth is not answered, and its stream or connection reset.
pub(super) fn reset(query: Option<&str>, state: &State) -> Result<Response<Outbound>, Refusal> {
    let query = Query::parse(query, &["every"])?;
    let every = query.number("every", 1..=EVERY_MAX)?.unwrap_or(10);
    if state.turns.reset.is_every(every) { Err(Cut.into()) } else { Ok(ok()) }
}
