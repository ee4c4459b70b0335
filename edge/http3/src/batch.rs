//! What an answer's body has at the moment, as one write.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use smallvec::SmallVec;

use crate::{
    BoxError,
    wire::{frame, trailers_frame, write_frame_header},
};

/// Most pieces of a body that are put together.
const PIECES_MAX: usize = 16;

/// Pieces of a body, and what comes after them.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    data: SmallVec<[Bytes; 4]>,
    /// How many bytes of the body it holds.
    pub(crate) bytes: usize,
    trailers: Option<HeaderMap>,
    /// Why the body goes no further.
    pub(crate) error: Option<BoxError>,
    /// Whether nothing comes after it.
    pub(crate) last: bool,
}

impl Batch {
    /// Takes what the body has, up to about `limit` bytes. Says whether anything came.
    pub(crate) fn fill<B>(
        &mut self,
        mut body: Pin<&mut B>,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> bool
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        while self.bytes < limit.max(1) && self.data.len() < PIECES_MAX {
            if body.is_end_stream() {
                self.last = true;
                break;
            }
            match body.as_mut().poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.last = true,
                Poll::Ready(Some(Err(error))) => self.error = Some(error.into()),
                Poll::Ready(Some(Ok(frame))) => self.take(frame),
            }
            if self.last || self.error.is_some() {
                break;
            }
        }
        self.bytes > 0 || self.last || self.error.is_some()
    }

    fn take(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                self.bytes += data.len();
                self.data.push(data);
            }
            Err(frame) => {
                self.trailers = frame.into_trailers().ok();
                self.last = self.trailers.is_some();
            }
        }
    }

    /// `out`, one DATA frame around all pieces (none is copied), and the trailers.
    pub(crate) fn into_frames(self, out: &mut BytesMut) -> SmallVec<[Bytes; 4]> {
        let mut pieces = self.data;
        if self.bytes > 0 {
            write_frame_header(frame::DATA, self.bytes as u64, out);
        }
        if !out.is_empty() {
            pieces.insert(0, out.split().freeze());
        }
        if let Some(trailers) = self.trailers {
            trailers_frame(&trailers, out);
            pieces.push(out.split().freeze());
        }
        pieces
    }
}
