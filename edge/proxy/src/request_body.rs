//! The request body that can be taken back.
//!
//! It may have to go to a second agent, if the first one has no sandbox. Over HTTP/1.1 an agent says so
//! before it asks for any byte (`Expect: 100-continue` between edge and agent), so the body stays the
//! edge's until it is read. Over HTTP/2 it goes with the head, so what was read is kept for a while.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::{
    body::{Body, BodyError, Broke, ClientBody},
    error::EdgeError,
    interim::Interim,
    pace::{Pace, Watch},
    replay::{Kept, Replayed},
};

/// What of a body is still the edge's.
#[derive(Debug)]
struct Ours {
    /// What was not read; `None`: taken back.
    body: Option<Body>,
    /// What was read, while another attempt may want it.
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Shared {
    ours: Mutex<Ours>,
    started: AtomicBool,
    bytes: AtomicU64,
    /// The function's limit; 0: none.
    bytes_max: u64,
    over: AtomicBool,
    /// Told to go on when its body is first read; a client that waits for that.
    waits: Mutex<Option<Interim>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ours> {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The edge's end of a request body: counts it, and takes it back while it is unread or kept.
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
            ours: Mutex::new(Ours { body: Some(body), kept: None }),
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
        RequestBody(self.0.as_ref().map(|shared| Box::new((Arc::clone(shared), Watch::new(pace)))))
    }

    /// Whether another attempt may be made: nothing was read from the client.
    pub(crate) fn is_untouched(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| !shared.started.load(Ordering::Acquire))
    }

    /// From now on what is read is kept, up to a limit, so that it can be taken back.
    pub(crate) fn keep(&self) {
        if let Some(shared) = &self.0 {
            shared.lock().kept = Some(Kept::default());
        }
    }

    /// What was kept is not wanted any more: this attempt is the last one.
    pub(crate) fn settle(&self) {
        if let Some(shared) = &self.0 {
            shared.lock().kept = None;
        }
    }

    /// Takes the body out of a failed attempt into a new handle; `None` if it was read from, and that
    /// was not kept.
    pub(crate) fn take_back(&self) -> Option<Self> {
        let Some(shared) = &self.0 else { return Some(Self(None)) };
        let body = {
            let mut ours = shared.lock();
            match (self.is_untouched(), ours.kept.take()) {
                (true, _) => ours.body.take()?,
                (false, Some(kept)) => Replayed::new(kept, ours.body.take()?).boxed_unsync(),
                (false, None) => return None,
            }
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

/// A request body on its way to an agent; on the heap, as most requests have none.
#[derive(Debug)]
pub(crate) struct RequestBody(Option<Box<(Arc<Shared>, Watch)>>);

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let Some((shared, watch)) = self.get_mut().0.as_deref_mut() else {
            return Poll::Ready(None);
        };
        let mut ours = shared.lock();
        let Some(body) = ours.body.as_mut() else {
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
        if let Some(Ok(frame)) = &frame {
            // What can't be kept whole is not kept at all.
            ours.kept = ours.kept.take().and_then(|mut kept| kept.push(frame).then_some(kept));
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
        self.0.as_deref().is_none_or(|(shared, _)| {
            shared.lock().body.as_ref().is_some_and(HttpBody::is_end_stream)
        })
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.as_deref() {
            None => SizeHint::with_exact(0),
            Some((shared, _)) => {
                shared.lock().body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::body::{BoxError, full};

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
    async fn what_was_read_and_kept_can_be_taken_back_until_it_is_settled() {
        let pace = Pace::body(Duration::from_secs(60));
        let first = handle(full("hello"), 0);
        first.keep();
        let mut attempt = first.attempt(&pace);
        assert_eq!(attempt.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
        let second = first.take_back().expect("it was kept");
        assert!(attempt.frame().await.unwrap().is_err(), "the first attempt has no body any more");
        second.keep();
        assert_eq!(second.attempt(&pace).collect().await.unwrap().to_bytes(), "hello");
        second.settle();
        assert!(second.take_back().is_none(), "nobody else is to have it");
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
