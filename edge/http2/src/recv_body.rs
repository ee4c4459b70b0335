//! A request's body, and the way back for interim answers.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::{BodyError, InterimError, answer::put_head, inbox::Inbox, link::Link, streams::Answer};

/// Most interim answers of one request.
const INTERIM_MAX: u8 = 64;

/// The body of a request, or what a client sends into a tunnel.
///
/// A client may send as much again when bytes are read: what is held is the stream's window. Dropping
/// it unread lets the answer go out, then tells the client to stop. After an error it gives that error
/// again.
#[derive(Debug)]
pub struct RecvBody {
    link: Arc<Link>,
    id: u32,
    /// None: there is no body.
    inbox: Option<Arc<Inbox>>,
    /// Bytes still to come, if the head says so.
    left: Option<u64>,
    tunnel: bool,
    waiting: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl RecvBody {
    pub(crate) const fn new(
        link: Arc<Link>,
        id: u32,
        inbox: Option<Arc<Inbox>>,
        left: Option<u64>,
        tunnel: bool,
    ) -> Self {
        Self { link, id, inbox, left, tunnel, waiting: false, sleep: None }
    }

    /// Sends interim answers to the request that has this body.
    #[must_use]
    pub fn interim(&self) -> Interim {
        Interim { link: Arc::clone(&self.link), id: self.id }
    }

    /// Ready once nothing has come for too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        if self.tunnel {
            return Poll::Pending;
        }
        let timeout = self.link.config.body_timeout;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(timeout)));
        if !self.waiting {
            self.waiting = true;
            sleep.as_mut().reset(Instant::now() + timeout);
        }
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(BodyError::Late)
    }
}

impl Body for RecvBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(inbox) = &this.inbox else { return Poll::Ready(None) };
        let Poll::Ready(frame) = inbox.poll_frame(cx) else {
            return this.poll_late(cx).map(|error| Some(Err(error)));
        };
        this.waiting = false;
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            // It is read now: the client may send as much again.
            this.link.read(this.id, data.len());
            if let Some(left) = &mut this.left {
                *left = left.saturating_sub(data.len() as u64);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inbox.as_ref().is_none_or(|inbox| inbox.is_over())
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            return SizeHint::with_exact(0);
        }
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for RecvBody {
    fn drop(&mut self) {
        if self.inbox.is_some() {
            self.link.abandon(self.id);
        }
    }
}

/// Sends 1xx answers before a request's final one. Cheap to clone; useless after it.
#[derive(Debug, Clone)]
pub struct Interim {
    link: Arc<Link>,
    id: u32,
}

impl Interim {
    /// Sends an interim answer.
    ///
    /// # Errors
    ///
    /// [`InterimError`].
    pub fn send(&self, answer: Response<()>) -> Result<(), InterimError> {
        let status = answer.status();
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(InterimError);
        }
        {
            let mut core = self.link.lock();
            let core = &mut *core;
            let stream = core.streams.get(self.id).ok_or(InterimError)?;
            if stream.answer != Answer::Waiting || stream.interims == INTERIM_MAX {
                return Err(InterimError);
            }
            stream.interims += 1;
            put_head(core, self.id, &answer.into_parts().0, None, false);
        }
        self.link.bell.nudge();
        Ok(())
    }
}
