//! A request's body, read by whoever polls it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::shared::{Interim, Rest, Returned, Shared, Tunnel};
use crate::{
    decode::{BodyFault, Decoded, Decoder},
    io::Reader,
    timer::Deadline,
};

/// Why a request's body ended early.
#[derive(Debug, thiserror::Error)]
pub enum RecvError {
    /// Its bytes break a rule, or the client went away.
    #[error(transparent)]
    Fault(#[from] BodyFault),
    /// Nothing came for too long.
    #[error("the request's body came too slowly")]
    TooSlow,
    /// The connection broke.
    #[error("the connection broke in the middle of a body")]
    Io(#[from] std::io::Error),
}

/// The body of a request. Reads from the connection only when polled.
#[derive(Debug)]
pub struct RecvBody {
    kind: Kind,
    interim: Interim,
}

#[derive(Debug)]
enum Kind {
    Empty,
    Body(Box<Active>),
    Tunnel(Box<Raw>),
}

#[derive(Debug)]
struct Active {
    shared: Arc<Shared>,
    reader: Option<Reader>,
    decoder: Decoder,
    /// The client waits to be told to go on.
    wants_continue: bool,
    eof: bool,
    ended: bool,
    /// Longest silence while it is waited for.
    silence_max: Duration,
    silence: Deadline,
}

/// A tunnel's upload.
#[derive(Debug)]
struct Raw {
    shared: Arc<Shared>,
    reader: Option<Reader>,
    ended: bool,
}

impl RecvBody {
    pub(super) const fn empty(interim: Interim) -> Self {
        Self { kind: Kind::Empty, interim }
    }

    pub(super) fn new(
        interim: Interim,
        reader: Reader,
        decoder: Decoder,
        wants_continue: bool,
        silence_max: Duration,
    ) -> Self {
        let active = Active {
            shared: Arc::clone(&interim.shared),
            reader: Some(reader),
            decoder,
            wants_continue,
            eof: false,
            ended: false,
            silence_max,
            silence: Deadline::default(),
        };
        Self { kind: Kind::Body(Box::new(active)), interim }
    }

    pub(super) fn tunnel(interim: Interim) -> Self {
        let raw = Raw { shared: Arc::clone(&interim.shared), reader: None, ended: false };
        Self { kind: Kind::Tunnel(Box::new(raw)), interim }
    }

    /// Sends interim answers to the request that has this body.
    #[must_use]
    pub fn interim(&self) -> Interim {
        self.interim.clone()
    }
}

impl Active {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RecvError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.wants_continue {
            self.wants_continue = false;
            self.shared.ask_to_continue();
        }
        loop {
            let Some(reader) = &mut self.reader else { return Poll::Ready(None) };
            match self.decoder.decode(&mut reader.buf, self.eof) {
                Ok(Decoded::Data(data)) => {
                    self.silence.clear();
                    if self.decoder.exact() == Some(0) {
                        self.end(); // so that nobody has to ask once more
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Decoded::Trailers(trailers)) => {
                    self.end();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Decoded::End) => {
                    self.end();
                    return Poll::Ready(None);
                }
                Ok(Decoded::More) => {}
                Err(fault) => return Poll::Ready(Some(Err(self.fail(fault.into())))),
            }
            match reader.poll_fill(cx, true) {
                Poll::Ready(Ok(0)) => self.eof = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(self.fail(error.into())))),
                Poll::Pending => {
                    self.silence.set_once(self.silence_max);
                    return match self.silence.poll(cx) {
                        Poll::Ready(()) => Poll::Ready(Some(Err(self.fail(RecvError::TooSlow)))),
                        Poll::Pending => Poll::Pending,
                    };
                }
            }
        }
    }

    /// The body is whole: the connection may go on.
    fn end(&mut self) {
        self.ended = true;
        self.give_back(Rest::Some(Decoder::Length(0)));
    }

    fn fail(&mut self, error: RecvError) -> RecvError {
        self.ended = true;
        self.give_back(match &error {
            RecvError::TooSlow => Rest::TooSlow,
            RecvError::Fault(BodyFault::Malformed(_)) => Rest::Malformed,
            RecvError::Fault(BodyFault::Truncated) | RecvError::Io(_) => Rest::Gone,
        });
        error
    }

    fn give_back(&mut self, rest: Rest) {
        if let Some(reader) = self.reader.take() {
            self.shared.lock().returned = Some(Returned { reader, rest });
            self.shared.wake_connection();
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        // What was not read the connection may skip, if it is little.
        let decoder = std::mem::replace(&mut self.decoder, Decoder::Close);
        let skippable = !self.eof && !self.wants_continue;
        self.give_back(if skippable { Rest::Some(decoder) } else { Rest::Gone });
    }
}

impl Raw {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, RecvError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.reader.is_none() {
            let mut state = self.shared.lock();
            match std::mem::take(&mut state.tunnel) {
                Tunnel::Open(reader) => {
                    state.tunnel = Tunnel::Taken;
                    self.reader = Some(reader);
                }
                Tunnel::Pending => {
                    state.body_waits(cx);
                    return Poll::Pending;
                }
                Tunnel::Refused | Tunnel::Taken => {
                    state.tunnel = Tunnel::Refused;
                    self.ended = true;
                    return Poll::Ready(None);
                }
            }
        }
        let Some(reader) = &mut self.reader else { return Poll::Ready(None) };
        if reader.buf.is_empty() {
            match std::task::ready!(reader.poll_fill(cx, true)) {
                Ok(0) => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
                Ok(_) => {}
                Err(error) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
        }
        Poll::Ready(Some(Ok(Frame::data(reader.buf.split().freeze()))))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.shared.lock().returned = Some(Returned { reader, rest: Rest::Gone });
        }
        self.shared.wake_connection();
    }
}

impl Body for RecvBody {
    type Data = Bytes;
    type Error = RecvError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RecvError>>> {
        match &mut self.get_mut().kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Body(active) => active.poll(cx),
            Kind::Tunnel(raw) => raw.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Body(active) => active.ended,
            Kind::Tunnel(raw) => raw.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Body(active) if active.ended => SizeHint::with_exact(0),
            Kind::Body(active) => {
                active.decoder.exact().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Kind::Tunnel(_) => SizeHint::default(),
        }
    }
}
