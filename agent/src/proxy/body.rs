//! The body of a response, which holds what must outlive it.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

/// Errors of either side.
pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

/// What must outlive a response: a lease, a connection. Dropped where the response broke off.
pub(super) trait Held: Send + Sync + 'static {
    /// The response came to its proper end.
    fn finish(self: Box<Self>);
}

impl Held for () {
    fn finish(self: Box<Self>) {}
}

pin_project_lite::pin_project! {
    /// A body and what is given back at its end.
    pub(super) struct Body {
        #[pin]
        inner: UnsyncBoxBody<Bytes, Error>,
        held: Option<Box<dyn Held>>,
    }
}

impl Body {
    pub(super) fn new(inner: UnsyncBoxBody<Bytes, Error>) -> Self {
        Self { inner, held: None }
    }

    pub(super) fn holding(inner: UnsyncBoxBody<Bytes, Error>, held: impl Held) -> Self {
        Self { inner, held: Some(Box::new(held)) }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("holds", &self.held.is_some()).finish_non_exhaustive()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        match &frame {
            Some(Ok(_)) => {}
            // The guest has nothing more to say, so its slot may be reaped or used again now.
            None => {
                if let Some(held) = this.held.take() {
                    held.finish();
                }
            }
            Some(Err(_)) => drop(this.held.take()),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // Not before the guard is gone: hyper does not poll a body that has ended.
        self.held.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
