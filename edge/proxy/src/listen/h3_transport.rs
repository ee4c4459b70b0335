//! QUIC as the `h3` crate wants it, over quinn. Ours, because the published adapter
//!
//! - panics when a stream is stopped while a read is pending,
//! - reads without bound: one announced frame of a GiB is buffered whole,
//! - ends a stream that was given up on cleanly, so that a cut answer looks complete,
//! - and doesn't say when a client stops an answer.
//!
//! # Invariants
//!
//! - A request stream dropped before its end is reset (answer) or stopped (request), never finished.
//! - Until a request's head is complete, at most [`StreamControl`]'s budget is read from its stream.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt as _, future::BoxFuture, stream};
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf},
};
use quinn::VarInt;

use super::h3_error::{connection_error, lost, read_error, write_error};

/// Bytes read from QUIC at a time.
const READ_BYTES: usize = 32 * 1024;

type Accepting<T> = Pin<Box<dyn Stream<Item = Result<T, quinn::ConnectionError>> + Send + Sync>>;

/// What the edge holds of a request stream besides `h3`'s own handles.
pub(super) struct StreamControl {
    budget: Arc<AtomicU64>,
    /// Ready when the client stops the answer or the connection is lost.
    pub(super) stopped: BoxFuture<'static, ()>,
}

impl StreamControl {
    /// The head is complete: from here on bodies flow.
    pub(super) fn lift_budget(&self) {
        self.budget.store(u64::MAX, Ordering::Relaxed);
    }
}

/// A QUIC connection for `h3`.
pub(super) struct Connection {
    conn: quinn::Connection,
    bidi: Accepting<(quinn::SendStream, quinn::RecvStream)>,
    uni: Accepting<quinn::RecvStream>,
    opener: Opener,
    head_budget: u64,
    accepted_tx: tokio::sync::mpsc::Sender<StreamControl>,
}

impl Connection {
    /// Wraps a connection. Each accepted request stream's control comes by the receiver, in order.
    pub(super) fn new(
        conn: quinn::Connection,
        head_budget: u64,
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
        (Self { conn, bidi, uni, opener, head_budget, accepted_tx }, accepted_rx)
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
            Some(Ok(stream)) => Poll::Ready(Ok(RecvStream::new(stream, u64::MAX))),
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
        let recv = RecvStream::new(recv, self.head_budget);
        let control = StreamControl {
            budget: Arc::clone(&recv.budget),
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
    budget: Arc<AtomicU64>,
    ended: bool,
}

impl RecvStream {
    fn new(stream: quinn::RecvStream, budget: u64) -> Self {
        let budget = Arc::new(AtomicU64::new(budget));
        Self { stream, buffer: BytesMut::new(), budget, ended: false }
    }

    /// Takes `bytes` from the budget; `false` if there is less left.
    fn spend(&self, bytes: u64) -> bool {
        let left = self.budget.load(Ordering::Relaxed);
        if left == u64::MAX {
            return true;
        }
        // Only this task spends; the other writer only lifts the budget, and may win.
        let rest = left.checked_sub(bytes);
        let next = rest.unwrap_or(0);
        let _ = self.budget.compare_exchange(left, next, Ordering::Relaxed, Ordering::Relaxed);
        rest.is_some()
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.buffer.reserve(READ_BYTES);
        let stream = Pin::new(&mut self.stream);
        let read = ready!(tokio_util::io::poll_read_buf(stream, cx, &mut self.buffer));
        match read {
            Ok(0) => {
                self.ended = true;
                Poll::Ready(Ok(None))
            }
            Ok(bytes) if self.spend(bytes as u64) => {
                Poll::Ready(Ok(Some(self.buffer.split().freeze())))
            }
            Ok(_) => {
                let code = Code::H3_EXCESSIVE_LOAD.value();
                self.stop_sending(code);
                Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code: code }))
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
