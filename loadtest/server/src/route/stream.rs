//! Answers of many pieces.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::Frame;

use super::{Refusal, typed};
use crate::{
    body::{self, Cut, Outbound, PATTERN_BYTES, Piece, full, pattern_bytes},
    clock,
    query::{Query, bad},
    state::State,
};

const OCTETS: &str = "application/octet-stream";
/// The most that can be asked for: a TiB.
const BYTES_MAX: u64 = 1 << 40;
/// The most events.
const EVENTS_MAX: u64 = 1_000_000;
/// Before a cut, so that what came before it has left: a reset takes back what hasn't.
const CUT_WAIT: Duration = Duration::from_millis(50);

/// `/bytes?n=&cut=`: so many bytes, byte `i` being `i` modulo 251; or only the first `cut` of them.
pub(super) fn bytes(
    query: Option<&str>,
    state: &Arc<State>,
) -> Result<Response<Outbound>, Refusal> {
    let query = Query::parse(query, &["n", "cut"])?;
    let all = query.number("n", 0..=BYTES_MAX)?.unwrap_or(1 << 20);
    let cut = query.number("cut", 0..=BYTES_MAX)?;
    if let Some(cut) = cut.filter(|cut| *cut >= all) {
        return Err(bad("cut", cut, format!("less than n, which is {all}")).into());
    }
    let body = if cut.is_none() && all <= PATTERN_BYTES as u64 {
        full(piece_of(all))
    } else {
        let left = Left { bytes: cut.unwrap_or(all), cut: cut.is_some(), state: Arc::clone(state) };
        body::stream(stream::unfold(left, Left::next))
    };
    let mut response = typed(StatusCode::OK, OCTETS, body);
    response.headers_mut().insert(header::CONTENT_LENGTH, all.into());
    Ok(response)
}

struct Left {
    bytes: u64,
    cut: bool,
    state: Arc<State>,
}

impl Left {
    async fn next(mut self) -> Option<(Piece, Self)> {
        self.state.released().await;
        if self.bytes > 0 {
            let piece = piece_of(self.bytes);
            self.bytes -= piece.len() as u64;
            return Some((Ok(Frame::data(piece)), self));
        }
        if self.cut {
            tokio::time::sleep(CUT_WAIT).await;
            return Some((Err(Cut), self));
        }
        None
    }
}

fn piece_of(left: u64) -> Bytes {
    pattern_bytes(usize::try_from(left).map_or(PATTERN_BYTES, |left| left.min(PATTERN_BYTES)))
}

/// `/sse?n=&delay_ms=`: so many events, each that long after the one before.
pub(super) fn events(
    query: Option<&str>,
    state: &Arc<State>,
) -> Result<Response<Outbound>, Refusal> {
    let query = Query::parse(query, &["n", "delay_ms"])?;
    let count = query.number("n", 0..=EVENTS_MAX)?.unwrap_or(5);
    let delay = query.milliseconds("delay_ms")?.unwrap_or(Duration::from_millis(100));
    let state = Arc::clone(state);
    let pieces = stream::unfold(0, move |index| {
        let state = Arc::clone(&state);
        async move {
            if index == count {
                return None;
            }
            if index > 0 && !delay.is_zero() {
                clock::sleep_until(std::time::Instant::now() + delay).await;
            }
            state.released().await;
            Some((Ok(Frame::data(event(index).into())), index + 1))
        }
    });
    let mut response = typed(StatusCode::OK, "text/event-stream", body::stream(pieces));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// As the `echo` function writes them.
fn event(index: u64) -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = since.as_secs_f64();
    format!("id: {index}\nevent: tick\ndata: {{\"index\": {index}, \"time\": {time:.6}}}\n\n")
}
