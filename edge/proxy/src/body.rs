//! Bodies: what comes from clients, what goes to them, and the request body that can be taken back.
//!
//! A request body may have to go to a second agent, if the first one refused before it asked for any
//! byte (`Expect: 100-continue` between edge and agent). So it stays the edge's until it is read.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};

use crate::{
    error::EdgeError,
    finish::Finish,
    interim::Interim,
    pace::{Pace, Watch},
    upstream::UpstreamBody,
};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A streaming body, whatever protocol it came by.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A request's body as it comes from a listener. Most requests have none, and pay for none.
#[derive(Debug, Default)]
pub(crate) enum ClientBody {
    #[default]
    Empty,
    Any(Body),
}

impl ClientBody {
    /// Takes a listener's body; one that has ended already is none.
    pub(crate) fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        if body.is_end_stream() {
            Self::Empty
        } else {
            Self::Any(body.map_err(Into::into).boxed_unsync())
        }
    }

    /// For those who know only one type of body.
    pub(crate) fn boxed(self) -> Body {
        match self {
            Self::Empty => Empty::new().map_err(|never| match never {}).boxed_unsync(),
            Self::Any(body) => body,
        }
    }
}

/// An error of a body on its way through. A type of its own: what is generic over bodies can't be
/// proved to be `Send` with a boxed error in it.
#[derive(Debug, thiserror::Error)]
#[error("the body broke off")]
pub(crate) struct Broke(#[source] pub(crate) BoxError);

impl From<BodyError> for Broke {
    fn from(error: BodyError) -> Self {
        Self(error.into())
    }
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("no byte of the body moved for {0:?}")]
    Idle(Duration),
    #[error("the body came too slowly")]
    TooSlow,
    #[error("the body was taken back for another attempt")]
    TakenBack,
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
}

#[derive(Debug)]
struct Shared {
    body: Mutex<Option<Body>>,
    started: AtomicBool,
    bytes: AtomicU64,
    /// The function's limit; 0: none.
    bytes_max: u64,
    over: AtomicBool,
    /// Told to go on when its body is first read; a client that waits for that.
    waits: Mutex<Option<Interim>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Body>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The edge's end of a request body: counts it, and takes it back while it is unread.
#[derive(Debug, Clone, Default)]
pub(crate) struct BodyHandle(Option<Arc<Shared>>);

impl BodyHandle {
    /// # Errors
    ///
    /// [`EdgeError::PayloadTooLarge`] if it says that it is larger than `bytes_max` (0: any size).
    pub(crate) fn new(
        body: ClientBody,
        bytes_max: u64,
        waits: Option<Interim>,
    ) -> Result<Self, EdgeError> {
        let ClientBody::Any(body) = body else { return Ok(Self(None)) };
        if bytes_max > 0 && body.size_hint().lower() > bytes_max {
            return Err(EdgeError::PayloadTooLarge { limit_bytes: bytes_max });
        }
        Ok(Self(Some(Arc::new(Shared {
            body: Mutex::new(Some(body)),
            started: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            bytes_max,
            over: AtomicBool::new(false),
            waits: Mutex::new(waits),
        }))))
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// What goes into one attempt.
    pub(crate) fn attempt(&self, pace: &Pace) -> RequestBody {
        RequestBody(self.0.as_ref().map(|shared| (Arc::clone(shared), Watch::new(pace))))
    }

    /// Whether another attempt may be made: nothing was read from the client.
    pub(crate) fn is_untouched(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| !shared.started.load(Ordering::Acquire))
    }

    /// Takes the body out of a failed attempt into a new handle; `None` if it was read from.
    pub(crate) fn take_back(&self) -> Option<Self> {
        let Some(shared) = &self.0 else { return Some(Self(None)) };
        let body = {
            let mut body = shared.lock();
            if !self.is_untouched() {
                return None;
            }
            body.take()?
        };
        let waits = shared.waits.lock().unwrap_or_else(PoisonError::into_inner).take();
        Self::new(ClientBody::Any(body), shared.bytes_max, waits).ok()
    }

    /// Bytes that came from the client.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.bytes.load(Ordering::Relaxed))
    }

    /// The limit, if the body went over it.
    pub(crate) fn went_over(&self) -> Option<u64> {
        let shared = self.0.as_ref()?;
        shared.over.load(Ordering::Relaxed).then_some(shared.bytes_max)
    }
}

/// A request body on its way to an agent.
#[derive(Debug)]
pub(crate) struct RequestBody(Option<(Arc<Shared>, Watch)>);

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let Some((shared, watch)) = &mut self.get_mut().0 else { return Poll::Ready(None) };
        let mut guard = shared.lock();
        let Some(body) = guard.as_mut() else {
            return Poll::Ready(Some(Err(BodyError::TakenBack.into())));
        };
        if !shared.started.swap(true, Ordering::AcqRel)
            && let Some(client) = shared.waits.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            client.go_on();
        }
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => frame.map(|frame| frame.map_err(Broke)),
            Poll::Pending => return watch.poll_expired(cx).map(|error| Some(Err(error.into()))),
        };
        let more = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) | None => 0,
        };
        watch.got(more);
        if let Some(Ok(_)) = &frame {
            let bytes = shared.bytes.fetch_add(more, Ordering::Relaxed) + more;
            if shared.bytes_max > 0 && bytes > shared.bytes_max {
                shared.over.store(true, Ordering::Relaxed);
                let error = BodyError::TooLarge(shared.bytes_max);
                return Poll::Ready(Some(Err(error.into())));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|(shared, _)| shared.lock().as_ref().is_some_and(HttpBody::is_end_stream))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            None => SizeHint::with_exact(0),
            Some((shared, _)) => {
                shared.lock().as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
            }
        }
    }
}

#[derive(Debug)]
enum Source {
    Empty,
    Full(Option<Bytes>),
    Upstream(Box<UpstreamBody>),
    Any(Body),
}

/// An answer's body on its way to a client, with what has to be done at its end.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    source: Source,
    finish: Option<Box<Finish>>,
    bytes: u64,
    /// The function's limit; 0: none.
    bytes_max: u64,
}

impl AnswerBody {
    fn of(source: Source) -> Self {
        Self { source, finish: None, bytes: 0, bytes_max: 0 }
    }

    pub(crate) fn empty() -> Self {
        Self::of(Source::Empty)
    }

    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self::of(Source::Full(Some(bytes.into())))
    }

    pub(crate) fn upstream(body: UpstreamBody, bytes_max: u64) -> Self {
        let mut this = Self::of(Source::Upstream(Box::new(body)));
        this.bytes_max = bytes_max;
        this
    }

    pub(crate) fn any(body: Body) -> Self {
        Self::of(Source::Any(body))
    }

    /// What is told when the body has ended, broken off, or was dropped.
    pub(crate) fn on_end(mut self, finish: Box<Finish>) -> Self {
        self.finish = Some(finish);
        self
    }

    fn end(&mut self, complete: bool) {
        if let Some(finish) = self.finish.take() {
            finish.end(complete, self.bytes);
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // A body with nothing left (HEAD, 204, known length) is dropped without a last poll.
        let complete = self.is_end_stream();
        self.end(complete);
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let this = self.get_mut();
        let frame = match &mut this.source {
            Source::Empty => Poll::Ready(None),
            Source::Full(bytes) => {
                Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b))))
            }
            Source::Upstream(body) => Pin::new(&mut **body).poll_frame(cx).map_err(Broke),
            Source::Any(body) => Pin::new(body).poll_frame(cx).map_err(Broke),
        };
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if this.bytes_max > 0 && this.bytes > this.bytes_max {
                    this.end(false);
                    this.source = Source::Empty;
                    let error = BodyError::TooLarge(this.bytes_max);
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
            Poll::Ready(None) => this.end(true),
            Poll::Ready(Some(Err(_))) => this.end(false),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Source::Upstream(body) => body.is_end_stream(),
            Source::Any(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Source::Upstream(body) => body.size_hint(),
            Source::Any(body) => body.size_hint(),
        }
    }
}

/// A body of bytes that are there.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(body: Body, bytes_max: u64) -> BodyHandle {
        BodyHandle::new(ClientBody::Any(body), bytes_max, None).unwrap()
    }

    #[tokio::test]
    async fn body_can_be_taken_back_until_it_is_read() {
        let first = handle(full("hello"), 0);
        let mut attempt = first.attempt(&Pace::body(Duration::from_secs(60)));
        let again = first.take_back().expect("nothing was read");
        assert!(attempt.frame().await.unwrap().is_err(), "the first attempt has no body any more");
        let attempt = again.attempt(&Pace::body(Duration::from_secs(60)));
        assert_eq!(attempt.collect().await.unwrap().to_bytes(), "hello");
        assert!(again.take_back().is_none(), "it was read");
        assert_eq!(again.bytes(), 5);
    }

    #[tokio::test]
    async fn silent_body_ends_with_an_error() {
        let (_sender, channel) = http_body_util::channel::Channel::<Bytes, BoxError>::new(1);
        let silent = handle(channel.boxed_unsync(), 0);
        let mut attempt = silent.attempt(&Pace::body(Duration::from_millis(20)));
        assert!(attempt.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn bodies_over_the_limit_are_refused_whether_or_not_they_say_so() {
        let said = BodyHandle::new(ClientBody::Any(full("hello")), 4, None);
        assert!(matches!(said, Err(EdgeError::PayloadTooLarge { limit_bytes: 4 })));
        let (mut sender, channel) = http_body_util::channel::Channel::<Bytes, BoxError>::new(2);
        sender.send_data(Bytes::from_static(b"hello")).await.unwrap();
        let unsaid = handle(channel.boxed_unsync(), 4);
        let mut attempt = unsaid.attempt(&Pace::body(Duration::from_secs(9)));
        assert!(attempt.frame().await.unwrap().is_err());
        assert_eq!(unsaid.went_over(), Some(4));
    }

    #[test]
    fn an_empty_body_costs_no_handle() {
        let handle = BodyHandle::new(ClientBody::new(full("")), 0, None).unwrap();
        assert!(handle.is_empty() && handle.is_untouched());
        assert!(handle.attempt(&Pace::body(Duration::from_secs(1))).is_end_stream());
    }
}
