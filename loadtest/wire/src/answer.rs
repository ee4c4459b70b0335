//! An answer: whole, or still coming.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, Version};
use tokio::time::{Instant, timeout_at};

use crate::{CallError, ServerTiming, h1, http2, quic};

/// When the parts of a call happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallTimes {
    /// It was sent.
    pub sent: Instant,
    /// The answer's first byte came.
    pub first_byte: Instant,
    /// Its last byte came.
    pub last_byte: Instant,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// The protocol it came by.
    pub version: Version,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, unless that went elsewhere.
    pub body: Bytes,
    /// Bytes of its body, wherever that went.
    pub bytes: u64,
    /// When it came.
    pub times: CallTimes,
}

impl Answer {
    /// A header as text, if it is there and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Where the time went, as the answer says.
    #[must_use]
    pub fn timing(&self) -> ServerTiming {
        ServerTiming::of(&self.headers)
    }

    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// [`CallError`] if it isn't.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body).map_err(CallError::at("understand the answer's JSON"))
    }
}

/// The head of an answer, however it came.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
}

/// An answer whose body is still coming.
#[derive(Debug)]
pub struct Incoming {
    /// Its status.
    pub status: StatusCode,
    /// The protocol it came by.
    pub version: Version,
    /// Its headers.
    pub headers: HeaderMap,
    body: Body,
    sent: Instant,
    first_byte: Instant,
    deadline: Instant,
    allowed: Duration,
}

/// Where the rest of a body comes from.
#[derive(Debug)]
pub(crate) enum Body {
    H1(Lent),
    H2(Box<http2::Body>),
    H3(Box<quic::Body>),
}

/// A connection that one answer has for itself until it has ended.
#[derive(Debug)]
pub(crate) struct Lent {
    wire: Option<Box<h1::Wire>>,
    back: Slot,
}

/// Where a lent connection comes back to.
pub(crate) type Slot = Arc<Mutex<Option<Box<h1::Wire>>>>;

impl Lent {
    pub(crate) fn new(wire: Box<h1::Wire>, back: Slot) -> Self {
        let mut lent = Self { wire: Some(wire), back };
        lent.give_back_if_over();
        lent
    }

    fn give_back_if_over(&mut self) {
        if self.wire.as_ref().is_some_and(|wire| wire.is_over()) {
            *self.back.lock().unwrap_or_else(PoisonError::into_inner) = self.wire.take();
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        let Some(wire) = &mut self.wire else { return Ok(None) };
        let piece = wire.next(|input: &mut BytesMut, bytes| input.split_to(bytes).freeze()).await;
        self.give_back_if_over();
        piece
    }
}

impl Incoming {
    pub(crate) fn new(
        head: Head,
        body: Body,
        (sent, first_byte): (Instant, Instant),
        allowed: Duration,
    ) -> Self {
        let Head { status, version, headers } = head;
        let deadline = sent + allowed;
        Self { status, version, headers, body, sent, first_byte, deadline, allowed }
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    ///
    /// [`CallError`] if it breaks off or the request's time is up.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if it is dropped.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        let (deadline, allowed) = (self.deadline, self.allowed);
        within("the answer's body", deadline, allowed, async {
            match &mut self.body {
                Body::H1(lent) => lent.next().await,
                Body::H2(body) => body.next().await,
                Body::H3(body) => body.next().await,
            }
        })
        .await
    }

    /// When the request was sent.
    #[must_use]
    pub fn sent(&self) -> Instant {
        self.sent
    }

    /// When the answer's head was there.
    #[must_use]
    pub fn first_byte(&self) -> Instant {
        self.first_byte
    }
}

/// Bounds a wait.
pub(crate) async fn within<T>(
    step: &'static str,
    deadline: Instant,
    after: Duration,
    work: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    timeout_at(deadline, work).await.unwrap_or(Err(CallError::Deadline { step, after }))
}
