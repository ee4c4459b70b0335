//! The body of an answer, which gives its connection back at its end.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    Connection,
    upload::{Fault, Uploading},
};
use crate::{
    BoxError,
    decode::{BodyFault, Decoded, Decoder},
    io::Reader,
    timer::Deadline,
};

/// Why an answer's body ended early.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Its bytes break a rule, or the server went away.
    #[error(transparent)]
    Fault(#[from] BodyFault),
    /// The connection broke.
    #[error("the connection broke in the middle of an answer")]
    Io(#[from] std::io::Error),
    /// The request's body broke off, so the answer is to nobody's question.
    #[error("the request's body broke off")]
    Request(#[source] BoxError),
}

/// The body of an answer. Dropping it before its end closes the connection.
#[derive(Debug)]
pub struct Answer {
    reader: Option<Box<Reader>>,
    uploading: Uploading,
    decoder: Option<Decoder>,
    keep_alive: bool,
    eof: bool,
    ended: bool,
    /// The connection's: with its timer, so that each request need not make one.
    deadline: Deadline,
}

impl Answer {
    pub(super) fn new(
        reader: Box<Reader>,
        uploading: Uploading,
        decoder: Option<Decoder>,
        keep_alive: bool,
        deadline: Deadline,
    ) -> Self {
        let ended = decoder.as_ref().is_none_or(|decoder| decoder.exact() == Some(0));
        let reader = Some(reader);
        Self { reader, uploading, decoder, keep_alive, eof: false, ended, deadline }
    }

    /// The connection, if the answer has ended and another request may be sent.
    pub fn take_connection(&mut self) -> Option<Connection> {
        if !self.ended || !self.keep_alive || matches!(self.decoder, Some(Decoder::Close)) {
            return None;
        }
        let mut cx = Context::from_waker(Waker::noop());
        if !matches!(self.uploading.poll(&mut cx), Poll::Ready(Ok(()))) {
            return None;
        }
        let (reader, writer) = (self.reader.take()?, self.uploading.take_writer()?);
        // Whether the server has left meanwhile is asked when the connection is used again.
        let deadline = std::mem::take(&mut self.deadline);
        reader.is_drained().then(|| Connection::rejoin(reader, writer, deadline))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(Err(Fault::Body(error))) = self.uploading.poll(cx) {
            self.ended = true;
            self.keep_alive = false;
            return Poll::Ready(Some(Err(AnswerError::Request(error))));
        }
        loop {
            let (Some(reader), Some(decoder)) = (&mut self.reader, &mut self.decoder) else {
                return Poll::Ready(None);
            };
            match decoder.decode(&mut reader.buf, self.eof) {
                Ok(Decoded::Data(data)) => {
                    self.ended = decoder.exact() == Some(0);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Decoded::Trailers(trailers)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Decoded::End) => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
                Ok(Decoded::More) => {}
                Err(fault) => return Poll::Ready(Some(Err(self.fail(fault.into())))),
            }
            match reader.poll_fill(cx, true) {
                Poll::Ready(Ok(0)) => self.eof = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(self.fail(error.into())))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn fail(&mut self, error: AnswerError) -> AnswerError {
        self.ended = true;
        self.keep_alive = false;
        error
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        self.get_mut().poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        if self.ended {
            return SizeHint::with_exact(0);
        }
        let exact = self.decoder.as_ref().and_then(Decoder::exact);
        exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
