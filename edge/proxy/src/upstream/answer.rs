//! The body of an agent's answer. Its link rides along: back to the pool at a clean end, else cut.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::pool::{Link, Pool};
use crate::body::{BodyHandle, BoxError, IdleTimer};

/// Streams an answer and gives its link back.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    body: Incoming,
    link: Option<Link>,
    pool: Arc<Pool>,
    request: BodyHandle,
    idle: IdleTimer,
}

impl AnswerBody {
    pub(crate) fn new(
        body: Incoming,
        link: Link,
        pool: &Arc<Pool>,
        request: BodyHandle,
        idle: Duration,
    ) -> Self {
        let idle = IdleTimer::new(idle);
        Self { body, link: Some(link), pool: Arc::clone(pool), request, idle }
    }

    /// The answer has ended; a half-sent request makes its connection useless.
    fn give_back(&mut self) {
        if let Some(link) = self.link.take()
            && self.request.is_finished()
        {
            self.pool.put(link);
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // Known lengths are not polled to their end. Anything unread closes the connection.
        if self.body.is_end_stream() {
            self.give_back();
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.idle.reset();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                drop(this.link.take());
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                this.give_back();
                Poll::Ready(None)
            }
            Poll::Pending => this.idle.poll_expired(cx).map(|error| Some(Err(error.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
