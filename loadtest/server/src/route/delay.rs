//! Answers that take a known time.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Response, header};
use hyper::body::Frame;

use super::{Refusal, SERVER_TIMING, ok, value};
use crate::{
    body::{self, Outbound, PATTERN_BYTES, Piece, full, pattern_bytes},
    clock::{self, dur},
    query::{Query, bad},
    state::State,
};

/// `/delay?ms=&last_ms=&body=`: the head after `ms` (or `first_ms`) from the moment the request's
/// head was there; half of the body with it and the rest `last_ms` later.
///
/// `Server-Timing` says how long it really took (`delay`), and what comes (`last`); how long that
/// really took is in the trailer of the same name.
pub(super) async fn delay(
    query: Option<&str>,
    state: &Arc<State>,
    begun: Instant,
) -> Result<Response<Outbound>, Refusal> {
    let query = Query::parse(query, &["ms", "first_ms", "last_ms", "body"])?;
    let first = match (query.milliseconds("ms")?, query.milliseconds("first_ms")?) {
        (Some(_), Some(first)) => {
            let expected = "it without ms, which is the same".to_owned();
            return Err(bad("first_ms", first.as_secs_f64() * 1e3, expected).into());
        }
        (ms, first) => ms.or(first).unwrap_or_default(),
    };
    let last = query.milliseconds("last_ms")?;
    let least = if last.is_some() { 2 } else { 0 };
    let bytes = query.number("body", least..=PATTERN_BYTES as u64)?;
    let bytes = bytes.map(|bytes| usize::try_from(bytes).expect("it is at most a pattern"));

    clock::sleep_until(begun + first).await;
    state.released().await;
    let waited = format!("delay;dur={}", dur(begun.elapsed()));

    let Some(last) = last else {
        let mut response = bytes.map_or_else(ok, |bytes| Response::new(full(pattern_bytes(bytes))));
        response.headers_mut().insert(SERVER_TIMING, value(&waited));
        return Ok(response);
    };
    let body = bytes.map_or(Bytes::from_static(super::OK), pattern_bytes);
    let pieces = stream::unfold(Step::First(body), {
        let state = Arc::clone(state);
        move |step| next(step, last, Arc::clone(&state))
    });
    let mut response = Response::new(body::stream(pieces));
    let timing = value(&format!("{waited}, last;dur={}", dur(last)));
    response.headers_mut().insert(SERVER_TIMING, timing);
    response.headers_mut().insert(header::TRAILER, HeaderValue::from_static("server-timing"));
    Ok(response)
}

enum Step {
    First(Bytes),
    Last { rest: Bytes, first_at: Instant },
    Trailer { timing: String },
    Done,
}

async fn next(step: Step, last: std::time::Duration, state: Arc<State>) -> Option<(Piece, Step)> {
    match step {
        Step::First(mut body) => {
            let rest = body.split_off(body.len() / 2);
            Some((Ok(Frame::data(body)), Step::Last { rest, first_at: Instant::now() }))
        }
        Step::Last { rest, first_at } => {
            clock::sleep_until(first_at + last).await;
            state.released().await;
            let timing = format!("last;dur={}", dur(first_at.elapsed()));
            Some((Ok(Frame::data(rest)), Step::Trailer { timing }))
        }
        Step::Trailer { timing } => {
            let trailers = HeaderMap::from_iter([(SERVER_TIMING, value(&timing))]);
            Some((Ok(Frame::trailers(trailers)), Step::Done))
        }
        Step::Done => None,
    }
}
