//! Bodies: what comes from clients, what goes to them.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};

use crate::{finish::Finish, upstream::UpstreamBody};

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
