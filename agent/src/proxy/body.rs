//! The body of a response, which holds what must outlive it.

use std::{
    any::Any,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

/// Errors of either side.
pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

pin_project_lite::pin_project! {
    /// A body and what is given back at its end: a lease, a connection.
    pub(super) struct Body {
        #[pin]
        inner: UnsyncBoxBody<Bytes, Error>,
        held: Option<Box<dyn Any + Send + Sync>>,
    }
}

impl Body {
    pub(super) fn new(inner: UnsyncBoxBody<Bytes, Error>) -> Self {
        Self { inner, held: None }
    }

    pub(super) fn holding(
        inner: UnsyncBoxBody<Bytes, Error>,
        held: impl Any + Send + Sync,
    ) -> Self {
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
        if !matches!(frame, Some(Ok(_))) {
            // End or error: the guest has nothing more to say, so its slot may be reaped now.
            drop(this.held.take());
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
