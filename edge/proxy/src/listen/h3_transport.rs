//! QUIC as the `h3` crate wants it, over quinn. Ours, because the published adapter
//!
//! - panics when a stream is stopped while a read is pending,
//! - reads without bound: one announced frame of a GiB is buffered whole, small frames pile up,
//! - ends a stream that was given up on cleanly, so that a cut answer looks complete,
//! - and doesn't say when a client stops an answer.
//!
//! # Invariants
//!
//! - A request stream dropped before its end is reset (answer) or stopped (request), never finished.
//! - What `h3` holds of a stream and hasn't handed out is bounded by the stream's [`Budget`].

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use futures::{Stream, StreamExt as _, future::BoxFuture, stream};
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf},
};
use quinn::VarInt;

use super::{
    h3_budget::Budget,
    h3_error::{connection_error, lost, read_error, write_error},
};

/// Bytes read from QUIC at a time.
const READ_BYTES: usize = 32 * 1024;
/// Read from one control or QPACK stream in its life; settings and priorities are small.
const UNI_BUDGET_BYTES: usize = 4 * 1024 * 1024;

type Accepting<T> = Pin<Box<dyn Stream<Item = Result<T, quinn::ConnectionError>> + Send + Sync>>;

/// What the edge holds of a request stream besides `h3`'s own handles.
pub(super) struct StreamControl {
    /// How much may be read.
    pub(super) budget: Budget,
    /// Ready when the client stops the answer or the connection is lost.
    pub(super) stopped: BoxFuture<'static, ()>,
}

/// A QUIC connection for `h3`.
pub(super) struct Connection {
    conn: quinn::Connection,
    bidi: Accepting<(quinn::SendStream, quinn::RecvStream)>,
    uni: Accepting<quinn::RecvStream>,
    opener: Opener,
    stream_budget: usize,
    accepted_tx: tokio::sync::mpsc::Sender<StreamControl>,
}

impl Connection {
    /// Wraps a connection. Each accepted request stream's control comes by the receiver, in order.
    pub(super) fn new(
        conn: quinn::Connection,
        stream_budget: usize,
    ) -> (Self, tokio::sync::mpsc::Receiver<StreamControl>) {
        // One is enough: `h3` hands a stream out before it accepts the next.
        let (accepted_tx, accepted_rx) = tokio::sync::mpsc::channel(4);
        let bidi = Box::pin(stream::unfold(conn.clone(), async |conn| {
            Some((conn.accept_bi().await, conn))
        }));
        let uni = Box::pin(stream::unfold(conn.clone(), async |conn| {
            Some((conn.accept_uni().await, conn))
        }));
        let opener = Opener { conn: conn.clone(), opening: None };
        (Self { conn, bidi, uni, opener, stream_budget, accepted_tx }, accepted_rx)
    }
}

impl<B: Buf> quic::Connection<B> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = Opener;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        match ready!(self.uni.poll_next_unpin(cx)) {
            Some(Ok(stream)) => Poll::Ready(Ok(RecvStream::new(stream, UNI_BUDGET_BYTES))),
            Some(Err(error)) => Poll::Ready(Err(connection_error(error))),
            None => Poll::Pending, // the source never ends
        }
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BidiStream<B>, ConnectionErrorIncoming>> {
        let (send, recv) = match ready!(self.bidi.poll_next_unpin(cx)) {
            Some(Ok(streams)) => streams,
            Some(Err(error)) => return Poll::Ready(Err(connection_error(error))),
            None => return Poll::Pending, // the source never ends
        };
        let stopped = send.stopped();
        let recv = RecvStream::new(recv, self.stream_budget);
        let control = StreamControl {
            budget: recv.budget.clone(),
            stopped: Box::pin(async move {
                let _ = stopped.await; // stopped or lost: the answer has no reader either way
            }),
        };
        if self.accepted_tx.try_send(control).is_err() {
            let error = "a request stream was accepted out of turn".to_owned();
            return Poll::Ready(Err(ConnectionErrorIncoming::InternalError(error)));
        }
        let send = SendStream { stream: send, writing: None, reset_on_drop: true };
        Poll::Ready(Ok(BidiStream { send, recv }))
    }

    fn opener(&self) -> Opener {
        Opener { conn: self.conn.clone(), opening: None }
    }
}

impl<B: Buf> quic::OpenStreams<B> for Connection {
    type BidiStream = BidiStream<B>;
    type SendStream = SendStream<B>;

    fn poll_open_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BidiStream<B>, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<SendStream<B>, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        quic::OpenStreams::<B>::close(&mut self.opener, code, reason);
    }
}

/// Opens the server's own streams (control, QPACK).
pub(super) struct Opener {
    conn: quinn::Connection,
    opening: Option<BoxFuture<'static, Result<quinn::SendStream, quinn::ConnectionError>>>,
}

impl<B: Buf> quic::OpenStreams<B> for Opener {
    type BidiStream = BidiStream<B>;
    type SendStream = SendStream<B>;

    fn poll_open_bidi(
        &mut self,
        _cx: &mut Context<'_>,
    ) -> Poll<Result<BidiStream<B>, StreamErrorIncoming>> {
        Poll::Ready(Err(StreamErrorIncoming::Unknown("a server opens no request streams".into())))
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<SendStream<B>, StreamErrorIncoming>> {
        let conn = &self.conn;
        let opening = self.opening.get_or_insert_with(|| {
            let conn = conn.clone();
            Box::pin(async move { conn.open_uni().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening = None;
        Poll::Ready(opened.map_err(lost).map(|stream| SendStream {
            stream,
            writing: None,
            reset_on_drop: false, // resetting a control stream would be a protocol error
        }))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.conn.close(varint(code.value()), reason);
    }
}

/// Both directions of a request.
pub(super) struct BidiStream<B> {
    send: SendStream<B>,
    recv: RecvStream,
}

impl<B: Buf> quic::BidiStream<B> for BidiStream<B> {
    type SendStream = SendStream<B>;
    type RecvStream = RecvStream;

    fn split(self) -> (SendStream<B>, RecvStream) {
        (self.send, self.recv)
    }
}

impl<B: Buf> quic::RecvStream for BidiStream<B> {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.recv.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

impl<B: Buf> quic::SendStream<B> for BidiStream<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.send.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

/// The client's bytes.
pub(super) struct RecvStream {
    stream: quinn::RecvStream,
    buffer: BytesMut,
    budget: Budget,
    ended: bool,
}

impl RecvStream {
    fn new(stream: quinn::RecvStream, budget: usize) -> Self {
        let budget = Budget::new(budget);
        Self { stream, buffer: BytesMut::new(), budget, ended: false }
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let room = self.budget.left().min(READ_BYTES);
        if room == 0 {
            if self.budget.pauses() {
                return Poll::Pending; // polled again after the next chunk was handed out
            }
            let error_code = Code::H3_EXCESSIVE_LOAD.value();
            self.stop_sending(error_code);
            return Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code }));
        }
        self.buffer.reserve(room);
        let stream = Pin::new(&mut self.stream);
        let mut limited = (&mut self.buffer).limit(room);
        match ready!(tokio_util::io::poll_read_buf(stream, cx, &mut limited)) {
            Ok(0) => {
                self.ended = true;
                Poll::Ready(Ok(None))
            }
            Ok(bytes) => {
                self.budget.spend(bytes);
                Poll::Ready(Ok(Some(self.buffer.split().freeze())))
            }
            Err(error) => {
                self.ended = true;
                Poll::Ready(Err(read_error(error)))
            }
        }
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.ended = true;
        let _ = self.stream.stop(varint(error_code)); // already stopped or ended
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.stream.stop(varint(Code::H3_NO_ERROR.value())); // already ended
        }
    }
}

/// The edge's bytes.
pub(super) struct SendStream<B> {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<B>>,
    reset_on_drop: bool,
}

impl<B: Buf> quic::SendStream<B> for SendStream<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if let Some(data) = &mut self.writing {
            while data.has_remaining() {
                let stream = Pin::new(&mut self.stream);
                let written = ready!(stream.poll_write(cx, data.chunk())).map_err(write_error)?;
                data.advance(written);
            }
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            return Err(StreamErrorIncoming::Unknown("written to before it was ready".into()));
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.reset_on_drop = false;
        let finished = self.stream.finish();
        Poll::Ready(finished.map_err(|error| StreamErrorIncoming::Unknown(error.into())))
    }

    fn reset(&mut self, reset_code: u64) {
        self.reset_on_drop = false;
        let _ = self.stream.reset(varint(reset_code)); // already finished or reset
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl<B> Drop for SendStream<B> {
    fn drop(&mut self) {
        if self.reset_on_drop {
            let code = varint(Code::H3_INTERNAL_ERROR.value());
            let _ = self.stream.reset(code); // already reset by its reader
        }
    }
}

fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn stream_id(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(u64::from(VarInt::from(id))).expect("quinn's ids are 62 bits as h3's are")
}
