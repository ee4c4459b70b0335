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

    /// Whether the guest is gone, so that no end of its body can be a proper one.
    fn is_cut(&self) -> bool {
        false
    }
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
        let mut held: Option<Box<dyn Held>> = Some(Box::new(held));
        if inner.is_end_stream() {
            finish(&mut held); // whoever writes the response polls no empty body
        }
        Self { inner, held }
    }
}

/// Takes our fields out of trailers: neither side may forge them.
pub(super) fn scrub(frame: &mut Frame<Bytes>) {
    if let Some(trailers) = frame.trailers_mut() {
        super::head::strip_ours(trailers);
    }
}

fn finish(held: &mut Option<Box<dyn Held>>) {
    if let Some(held) = held.take() {
        held.finish();
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
        let mut this = self.project();
        let mut frame = ready!(this.inner.as_mut().poll_frame(cx));
        if frame.is_none() && this.held.as_ref().is_some_and(|held| held.is_cut()) {
            frame = Some(Err("the guest ended before its answer did".into()));
        }
        if let Some(Ok(frame)) = &mut frame {
            scrub(frame);
        }
        match &frame {
            Some(Ok(_)) if !this.inner.is_end_stream() => {}
            // The guest has nothing more to say, so its slot may be reaped or used again now. A body
            // of known length is not polled again after its last byte.
            Some(Ok(_)) | None => finish(this.held),
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

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use http_body_util::{BodyExt as _, Full, StreamBody};

    use super::*;

    /// Counts ends: 1 for a proper one, 100 for a break.
    struct Ends(Arc<AtomicU32>, bool);

    impl Held for Ends {
        fn finish(mut self: Box<Self>) {
            self.1 = true;
        }
    }

    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.fetch_add(if self.1 { 1 } else { 100 }, Ordering::SeqCst);
        }
    }

    fn sized(content: &'static [u8]) -> UnsyncBoxBody<Bytes, Error> {
        Full::new(Bytes::from_static(content)).map_err(Into::into).boxed_unsync()
    }

    #[tokio::test]
    async fn body_of_known_length_ends_with_its_last_byte() {
        let ends = Arc::new(AtomicU32::new(0));
        let mut body = Body::holding(sized(b"all"), Ends(Arc::clone(&ends), false));
        assert_eq!(ends.load(Ordering::SeqCst), 0);
        assert!(body.frame().await.unwrap().is_ok());
        // Not polled for its end, as a server does not after the last byte.
        assert_eq!(ends.load(Ordering::SeqCst), 1);
        drop(body);
        drop(Body::holding(sized(b""), Ends(Arc::clone(&ends), false)));
        assert_eq!(ends.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn body_that_is_not_read_to_its_end_has_broken_off() {
        let ends = Arc::new(AtomicU32::new(0));
        drop(Body::holding(sized(b"all"), Ends(Arc::clone(&ends), false)));
        assert_eq!(ends.load(Ordering::SeqCst), 100);
        let frames = ["one", "two"].map(|text| Ok::<_, Error>(Frame::data(Bytes::from(text))));
        let stream = StreamBody::new(futures::stream::iter(frames));
        let mut body = Body::holding(stream.boxed_unsync(), Ends(Arc::clone(&ends), false));
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.unwrap().is_ok());
        assert_eq!(ends.load(Ordering::SeqCst), 100);
        assert!(body.frame().await.is_none());
        assert_eq!(ends.load(Ordering::SeqCst), 101);
    }
}
