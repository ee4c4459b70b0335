//! Writes an answer: head and first bytes at once, then as its body goes.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::Body;

use super::{
    Counters, ServeError,
    connection::{Asked, Connection, Next},
    shared::Tunnel,
};
use crate::{
    BoxError,
    encode::{self, Framing},
};

/// An answer's body under way.
struct Sending<'b, B> {
    body: Pin<&'b mut B>,
    framing: Framing,
    /// Bytes that are being written without having been copied.
    data: Bytes,
    /// A chunk's data needs its CRLF.
    chunk_open: bool,
    sent: u64,
    ended: bool,
    /// Why there is no more: told once what came before it is written.
    failed: Option<BoxError>,
    /// Every piece goes out at once, and the client's side is not ours to watch.
    is_tunnel: bool,
}

impl Connection<'_> {
    /// Writes an answer to its end.
    pub(super) async fn respond<B>(
        &mut self,
        response: Response<B>,
        asked: Asked,
    ) -> Result<Next, ServeError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let (parts, body) = response.into_parts();
        self.write_interims();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS && asked.upgrade {
            encode::response(&mut self.writer.buf, &parts, Framing::None, Some("upgrade"));
            return self.tunnel(body).await;
        }
        if parts.status.is_informational() {
            // The client would go on to wait for a final one.
            return Err(ServeError::Answer("an interim status is no final answer".into()));
        }
        self.refuse_tunnel(asked);
        let exact = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
        let framing = encode::answer_framing(exact, asked.version, parts.status, asked.is_head);
        let last = self.is_last(&asked) || framing == Framing::Close;
        let connection = if last {
            Some("close")
        } else {
            (asked.version == http::Version::HTTP_10).then_some("keep-alive")
        };
        encode::response(&mut self.writer.buf, &parts, framing, connection);
        if framing == Framing::None {
            drop(body);
            self.flush().await?;
        } else {
            self.send(pin!(body), framing, false).await?;
        }
        Ok(if last { Next::Close } else { Next::Request })
    }

    /// Interim answers that were queued before the service returned come first.
    fn write_interims(&mut self) {
        for (status, headers) in self.shared.close_interims() {
            encode::interim(&mut self.writer.buf, status, &headers);
        }
    }

    fn refuse_tunnel(&self, asked: Asked) {
        if asked.upgrade {
            self.shared.lock().tunnel = Tunnel::Refused;
            self.shared.wake_body();
        }
    }

    /// Both directions flow, each at its own pace, until both have ended.
    async fn tunnel<B>(&mut self, body: B) -> Result<Next, ServeError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        if let Some(reader) = self.reader.take() {
            self.shared.lock().tunnel = Tunnel::Open(reader);
            self.shared.wake_body();
        }
        self.send(pin!(body), Framing::Close, true).await?;
        let writer = &mut self.writer;
        poll_fn(|cx| writer.poll_shutdown(cx)).await?;
        // The client's direction may go on; its body wakes us when it is dropped.
        let shared = &self.shared;
        poll_fn(|cx| {
            let mut state = shared.lock();
            if state.returned.is_some() || matches!(state.tunnel, Tunnel::Open(_)) {
                return Poll::Ready(());
            }
            state.connection_waits(cx);
            Poll::Pending
        })
        .await;
        Ok(Next::Close)
    }

    async fn flush(&mut self) -> Result<(), ServeError> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ServeError>> {
        match self.writer.poll_flush(cx) {
            Poll::Ready(flushed) => {
                self.write_deadline.clear();
                Poll::Ready(flushed.map_err(Into::into))
            }
            Poll::Pending => self.poll_stalled(cx),
        }
    }

    /// Nothing can be written: pending until that has lasted too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ServeError>> {
        if std::mem::take(&mut self.writer.progress) {
            self.write_deadline.clear(); // it took something since
        }
        self.write_deadline.set_once(self.config.write_timeout);
        ready!(self.write_deadline.poll(cx));
        Counters::count(&self.counters.write_stalled);
        Poll::Ready(Err(ServeError::Stalled))
    }

    async fn send<B>(
        &mut self,
        body: Pin<&mut B>,
        framing: Framing,
        is_tunnel: bool,
    ) -> Result<(), ServeError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let mut sending = Sending {
            body,
            framing,
            data: Bytes::new(),
            chunk_open: false,
            sent: 0,
            ended: false,
            failed: None,
            is_tunnel,
        };
        poll_fn(|cx| self.poll_send(cx, &mut sending)).await
    }

    fn poll_send<B>(
        &mut self,
        cx: &mut Context<'_>,
        sending: &mut Sending<'_, B>,
    ) -> Poll<Result<(), ServeError>>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        loop {
            if !sending.data.is_empty() {
                match self.writer.poll_write(cx, &mut sending.data) {
                    Poll::Ready(written) => {
                        self.write_deadline.clear();
                        written?;
                    }
                    Poll::Pending => return self.poll_stalled(cx),
                }
                if std::mem::take(&mut sending.chunk_open) {
                    self.writer.buf.extend_from_slice(b"\r\n");
                }
            }
            if sending.ended {
                ready!(self.poll_flush(cx))?;
                let failed = sending.failed.take();
                return Poll::Ready(failed.map_or(Ok(()), |error| Err(ServeError::Answer(error))));
            }
            match sending.body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.take_frame(sending, frame)?,
                Poll::Ready(None) => self.end_body(sending, None)?,
                Poll::Ready(Some(Err(error))) => {
                    sending.failed = Some(error.into());
                    sending.ended = true;
                }
                Poll::Pending => return self.poll_between(cx, sending.is_tunnel),
            }
        }
    }

    /// The body has nothing at the moment: what is there goes out, and the client is watched.
    fn poll_between(
        &mut self,
        cx: &mut Context<'_>,
        is_tunnel: bool,
    ) -> Poll<Result<(), ServeError>> {
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        if is_tunnel {
            return Poll::Pending;
        }
        match self.poll_meanwhile(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    fn take_frame<B>(
        &mut self,
        sending: &mut Sending<'_, B>,
        frame: http_body::Frame<Bytes>,
    ) -> Result<(), ServeError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => return self.end_body(sending, Some(&trailers)),
                Err(_) => return Ok(()),
            },
        };
        if data.is_empty() {
            return Ok(());
        }
        sending.sent += data.len() as u64;
        if let Framing::Length(length) = sending.framing
            && sending.sent > length
        {
            return Err(ServeError::Answer("the body is longer than it said".into()));
        }
        let chunked = sending.framing == Framing::Chunked;
        let buf = &mut self.writer.buf;
        if chunked {
            encode::chunk_size(buf, data.len());
        }
        if self.writer.should_copy(&data) {
            let buf = &mut self.writer.buf;
            buf.extend_from_slice(&data);
            if chunked {
                buf.extend_from_slice(b"\r\n");
            }
        } else {
            sending.data = data;
            sending.chunk_open = chunked;
        }
        // The service need not be asked for an end that is known.
        if sending.body.is_end_stream() {
            self.end_body(sending, None)?;
        }
        Ok(())
    }

    fn end_body<B>(
        &mut self,
        sending: &mut Sending<'_, B>,
        trailers: Option<&http::HeaderMap>,
    ) -> Result<(), ServeError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        match sending.framing {
            Framing::Length(length) if sending.sent < length => {
                return Err(ServeError::Answer("the body is shorter than it said".into()));
            }
            Framing::Chunked if !sending.ended => {
                if std::mem::take(&mut sending.chunk_open) {
                    // The data is still being written: its CRLF and the end come behind it.
                    sending.chunk_open = false;
                    self.write_behind(sending, trailers);
                } else {
                    encode::last_chunk(&mut self.writer.buf, trailers);
                }
            }
            _ => {}
        }
        sending.ended = true;
        Ok(())
    }

    /// Makes the rest of a chunk and the body's end one more piece of data.
    fn write_behind<B>(
        &mut self,
        sending: &mut Sending<'_, B>,
        trailers: Option<&http::HeaderMap>,
    ) {
        let mut rest = bytes::BytesMut::with_capacity(sending.data.len() + 64);
        rest.extend_from_slice(&sending.data);
        rest.extend_from_slice(b"\r\n");
        encode::last_chunk(&mut rest, trailers);
        sending.data = rest.freeze();
    }
}
