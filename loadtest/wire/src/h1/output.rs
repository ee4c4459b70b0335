//! What is still to be sent of a request.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use crate::{
    CallError, Request,
    request::{Prepared, push_field},
};

/// Bodies up to this size are sent with their head, in one call.
const TOGETHER_MAX_BYTES: usize = 16 * 1024;

/// What is still to be sent; its memory is used again.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// The head, and a small body.
    first: Vec<u8>,
    sent: usize,
    /// The rest of a larger body.
    rest: VecDeque<Bytes>,
    flushed: bool,
    failed: bool,
}

impl Output {
    /// Takes a request; `host` is the line that says where it goes.
    pub(super) fn put(&mut self, request: &Request, host: &[u8]) -> Result<(), CallError> {
        let prepared = request.prepared()?;
        self.clear();
        (self.flushed, self.failed) = (false, false);
        self.first.extend_from_slice(&prepared.line);
        if !prepared.has_host {
            self.first.extend_from_slice(host);
        }
        self.first.extend_from_slice(&prepared.fields);
        if let Some((name, value)) = request.nonce() {
            push_field(&mut self.first, name, value);
        }
        self.first.extend_from_slice(b"\r\n");
        self.put_body(request, prepared);
        Ok(())
    }

    fn put_body(&mut self, request: &Request, prepared: &Prepared) {
        let together = request.body_bytes() <= TOGETHER_MAX_BYTES;
        let mut put = |bytes: &Bytes| {
            if together {
                self.first.extend_from_slice(bytes);
            } else {
                self.rest.push_back(bytes.clone());
            }
        };
        // An empty chunk would end the body.
        for piece in request.pieces().iter().filter(|piece| !piece.is_empty()) {
            if prepared.chunked {
                put(&format!("{:x}\r\n", piece.len()).into());
                put(piece);
                put(&Bytes::from_static(b"\r\n"));
            } else {
                put(piece);
            }
        }
        if prepared.chunked {
            put(&Bytes::from_static(b"0\r\n\r\n"));
        }
    }

    /// Whether there is something to send, and a way to.
    pub(super) fn is_pending(&self) -> bool {
        !self.flushed && !self.failed
    }

    /// Whether all of it was sent.
    pub(super) fn is_done(&self) -> bool {
        self.flushed && !self.failed
    }

    /// Sending failed: nothing more is tried.
    pub(super) fn give_up(&mut self) {
        self.clear();
        self.failed = true;
    }

    /// Forgets whatever was not sent.
    fn clear(&mut self) {
        self.first.clear();
        self.rest.clear();
        self.sent = 0;
        self.flushed = true;
    }

    pub(super) fn poll_send<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.first.len() {
            let bytes = &self.first[self.sent..];
            self.sent += some(ready!(Pin::new(&mut *stream).poll_write(context, bytes)))?;
        }
        while let Some(piece) = self.rest.front_mut() {
            let sent = some(ready!(Pin::new(&mut *stream).poll_write(context, piece)))?;
            piece.advance(sent);
            if piece.is_empty() {
                self.rest.pop_front();
            }
        }
        ready!(Pin::new(stream).poll_flush(context))?;
        self.clear();
        Poll::Ready(Ok(()))
    }
}

fn some(written: io::Result<usize>) -> io::Result<usize> {
    written
        .and_then(|bytes| if bytes == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(bytes) })
}
