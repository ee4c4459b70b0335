//! A request body that comes over HTTP/3, held to its Content-Length.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use h3::{error::StreamError, server::RequestStream};
use http::{Request, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::{h3_budget::Budget, h3_transport::RecvStream};
use crate::{
    body::{self, Body, BoxError},
    gateway::is_bodyless,
};

/// How long the end of a request without a body may come after its head.
const END_WAIT: Duration = Duration::from_millis(20);

type Recv = RequestStream<RecvStream, Bytes>;

/// Why a body is wrong.
#[derive(Debug, thiserror::Error)]
#[error("the body is not as long as its Content-Length says")]
struct WrongLength;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Data,
    Trailers,
    Done,
}

struct H3Body {
    recv: Recv,
    budget: Budget,
    /// Came while looking for the end of the request.
    first: Option<Bytes>,
    stage: Stage,
    /// Bytes still due, if the length is known.
    due: Option<u64>,
}

/// Puts the body to a head. A request that ends with its head gets none, so that the agent needn't
/// be sent an empty chunked one.
pub(super) async fn attach(request: Request<()>, mut recv: Recv, budget: Budget) -> Request<Body> {
    let due = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    let mut first = None;
    let mut stage = Stage::Data;
    if due.is_none() {
        // Quick for anyone who says what they send; the wait is for a FIN in its own packet.
        let wait = if is_bodyless(request.method()) { END_WAIT } else { Duration::ZERO };
        match timeout(wait, poll_fn(|cx| poll_data(&mut recv, cx))).await {
            Ok(Ok(Some(data))) => first = Some(data),
            Ok(Ok(None)) => return request.map(|()| body::empty()),
            Ok(Err(_)) => stage = Stage::Data, // the next poll reports it
            Err(_) => {}
        }
    } else if due == Some(0) {
        stage = Stage::Trailers;
    }
    let body = H3Body { recv, budget, first, stage, due };
    request.map(|()| if due == Some(0) { body::empty() } else { body.boxed_unsync() })
}

fn poll_data(recv: &mut Recv, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
    Poll::Ready(Ok(ready!(recv.poll_recv_data(cx))?.map(|mut data| {
        let bytes = data.remaining();
        data.copy_to_bytes(bytes)
    })))
}

impl H3Body {
    fn count(&mut self, bytes: usize) -> Result<(), WrongLength> {
        self.budget.give_back(bytes);
        match self.due {
            Some(due) => {
                let rest = due.checked_sub(bytes as u64);
                self.due = Some(rest.ok_or(WrongLength)?);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl HttpBody for H3Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.stage == Stage::Data {
            let data = match this.first.take() {
                Some(data) => Some(data),
                None => ready!(poll_data(&mut this.recv, cx))?,
            };
            if let Some(data) = data {
                this.count(data.len())?;
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if this.due.is_some_and(|due| due > 0) {
                this.stage = Stage::Done;
                return Poll::Ready(Some(Err(WrongLength.into())));
            }
            this.stage = Stage::Trailers;
        }
        if this.stage == Stage::Trailers {
            let trailers = ready!(this.recv.poll_recv_trailers(cx))?;
            this.stage = Stage::Done;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.stage == Stage::Done
    }

    fn size_hint(&self) -> SizeHint {
        self.due.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
