//! A request's body: DATA as it is asked for, then trailers.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use quinn::{ReadError, RecvStream};
use tokio::time::{Instant, Sleep, sleep};

use crate::{
    BodyError, Counters, Interim,
    exchange::Exchange,
    link::{Link, varint},
    wire::{Code, Event, FrameError, FrameReader, decode_trailers},
};

/// Most bytes that are taken from QUIC at once.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

/// The body of a request, or what a client sends into a tunnel.
///
/// Bytes are taken from QUIC when they are asked for, and only then may the client send as many
/// again: what is held is one chunk (a packet's worth) beside the stream's receive window. Dropping
/// it unread lets the answer go out, then asks the client to stop; in a tunnel it asks at once. After
/// an error it gives that error again.
#[derive(Debug)]
pub struct RecvBody {
    recv: Option<RecvStream>,
    reader: FrameReader,
    link: Arc<Link>,
    exchange: Arc<Exchange>,
    /// Bytes of DATA still to come, if the head says so.
    left: Option<u64>,
    tunnel: bool,
    ready: Option<Frame<Bytes>>,
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    failed: Option<BodyError>,
}

impl RecvBody {
    pub(crate) fn new(
        recv: RecvStream,
        reader: FrameReader,
        link: Arc<Link>,
        exchange: Arc<Exchange>,
        content_length: Option<u64>,
        tunnel: bool,
    ) -> Self {
        Self {
            recv: Some(recv),
            reader,
            link,
            exchange,
            left: content_length,
            tunnel,
            ready: None,
            sleep: None,
            waiting: false,
            failed: None,
        }
    }

    /// Sends interim answers to the request that has this body.
    #[must_use]
    pub fn interim(&self) -> Interim {
        Interim::new(Arc::clone(&self.exchange))
    }

    /// Looks what is there already, so that an empty body is known to be empty.
    pub(crate) fn look_ahead(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        if let Poll::Ready(Some(frame)) = self.poll_next(cx) {
            self.ready = Some(frame?);
        }
        Ok(())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let Some(recv) = &mut self.recv else { return Poll::Ready(None) };
            match self.reader.next_event() {
                Ok(Some(Event::Data(data))) => return Poll::Ready(Some(self.data(data))),
                Ok(Some(Event::Headers(payload))) => {
                    return Poll::Ready(Some(self.trailers(payload)));
                }
                Ok(Some(_)) => continue,
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(self.frame_error(error)))),
            }
            let read = ready!(pin!(recv.read_chunk(CHUNK_BYTES, true)).poll(cx));
            match read {
                Ok(Some(chunk)) => self.reader.push(chunk.bytes),
                Ok(None) => return Poll::Ready(self.finish().err().map(Err)),
                Err(error) => return Poll::Ready(Some(Err(self.read_error(&error)))),
            }
        }
    }

    fn data(&mut self, data: Bytes) -> Result<Frame<Bytes>, BodyError> {
        if let Some(left) = &mut self.left {
            let Some(rest) = left.checked_sub(data.len() as u64) else {
                return Err(self.malformed("more bytes than content-length"));
            };
            *left = rest;
        }
        Ok(Frame::data(data))
    }

    fn trailers(&mut self, payload: Bytes) -> Result<Frame<Bytes>, BodyError> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(self.malformed("fewer bytes than content-length"));
        }
        match decode_trailers(payload, &self.link.limits) {
            Ok(trailers) => Ok(Frame::trailers(trailers)),
            Err(error) if error.is_connection_error() => {
                self.link.refuse(error.code(), error.to_string());
                self.recv = None;
                Err(BodyError::Malformed("the trailers can't be decoded"))
            }
            Err(error) if error.is_over_limit() => {
                Err(self.malformed("the trailers are too large"))
            }
            Err(_) => Err(self.malformed("the trailers break a rule")),
        }
    }

    /// The stream is at its end.
    fn finish(&mut self) -> Result<(), BodyError> {
        if let Err(error) = self.reader.finish() {
            return Err(self.frame_error(error));
        }
        if self.left.is_some_and(|left| left > 0) {
            return Err(self.malformed("fewer bytes than content-length"));
        }
        self.recv = None;
        self.exchange.end_request();
        Ok(())
    }

    /// A stream error (RFC 9114 4.1.2): both directions end.
    fn malformed(&mut self, reason: &'static str) -> BodyError {
        Counters::count(&self.link.counters().malformed);
        if let Some(mut recv) = self.recv.take() {
            let _ = recv.stop(varint(Code::H3_MESSAGE_ERROR)); // it may have ended
        }
        self.exchange.set_wrong(&self.link, Code::H3_MESSAGE_ERROR);
        BodyError::Malformed(reason)
    }

    fn frame_error(&mut self, error: FrameError) -> BodyError {
        if matches!(error, FrameError::TooLarge { .. }) {
            return self.malformed("the trailers are too large");
        }
        // Closed first: dropping the stream would stop it with a code that is not of HTTP/3.
        self.link.refuse_frame(error);
        self.recv = None;
        error.into()
    }

    fn read_error(&mut self, error: &ReadError) -> BodyError {
        self.recv = None;
        match error {
            ReadError::Reset(code) => {
                self.exchange.set_reset(&self.link);
                BodyError::Reset { code: code.into_inner() }
            }
            _ => BodyError::Lost,
        }
    }

    /// Ready once nothing has come for too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        if self.tunnel {
            return Poll::Pending;
        }
        let timeout = self.link.config.body_idle_timeout;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(timeout)));
        if !self.waiting {
            self.waiting = true;
            sleep.as_mut().reset(Instant::now() + timeout);
        }
        ready!(sleep.as_mut().poll(cx));
        Counters::count(&self.link.counters().body_late);
        if let Some(recv) = self.recv.take() {
            self.exchange.leave_unread(recv);
        }
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
        if let Some(frame) = this.ready.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = &this.failed {
            return Poll::Ready(Some(Err(error.clone())));
        }
        let next = match this.poll_next(cx) {
            Poll::Ready(next) => {
                this.waiting = false;
                next
            }
            Poll::Pending => Some(Err(ready!(this.poll_late(cx)))),
        };
        if let Some(Err(error)) = &next {
            this.failed = Some(error.clone());
            this.exchange.end_request();
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.recv.is_none() && self.ready.is_none() && self.failed.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.failed.is_some() {
            return SizeHint::default();
        }
        let ready = self.ready.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        match (&self.recv, self.left) {
            (None, _) => SizeHint::with_exact(ready),
            (Some(_), Some(left)) => SizeHint::with_exact(left + ready),
            (Some(_), None) => SizeHint::default(),
        }
    }
}

impl Drop for RecvBody {
    fn drop(&mut self) {
        if let Some(recv) = self.recv.take() {
            self.exchange.leave_unread(recv);
        }
        self.exchange.end_request();
    }
}
