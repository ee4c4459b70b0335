//! The stream from an edge: which HTTP it speaks, and 1xx answers put between hyper's own.
//!
//! # Invariants
//!
//! - A 1xx head goes out only while nothing of another answer waits to be written, whole, and ahead
//!   of everything that comes later: no answer is torn.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// What a client with prior knowledge of HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Most bytes of 1xx heads that wait for a slow edge.
const WAITING_MAX: usize = 64 << 10;

/// A stream from an edge.
pub(super) struct Inward<S = TcpStream> {
    stream: S,
    /// Read before it was known which protocol it is.
    replay: Bytes,
    out: Arc<Mutex<Out>>,
}

/// Writes 1xx answers to the request that is being answered. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Interims(Arc<Mutex<Out>>);

#[derive(Debug)]
struct Out {
    waiting: BytesMut,
    /// Everything the HTTP server had to write was written.
    clean: bool,
}

impl<S: AsyncRead + Unpin> Inward<S> {
    /// Reads enough to tell HTTP/2 from HTTP/1.1; `true` is HTTP/2.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: what was read is lost with the stream.
    pub(super) async fn open(mut stream: S) -> io::Result<(Self, bool)> {
        let mut read = BytesMut::with_capacity(PREFACE.len());
        while read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
            let mut part = [0; PREFACE.len()];
            let room = PREFACE.len() - read.len();
            let count = stream.read(&mut part[..room]).await?;
            if count == 0 {
                break;
            }
            read.extend_from_slice(&part[..count]);
        }
        let is_h2 = read == PREFACE;
        let out = Out { waiting: BytesMut::new(), clean: true };
        Ok((Self { stream, replay: read.freeze(), out: Arc::new(Mutex::new(out)) }, is_h2))
    }
}

impl<S> Inward<S> {
    pub(super) fn interims(&self) -> Interims {
        Interims(Arc::clone(&self.out))
    }
}

impl Interims {
    /// Puts a 1xx head before the answer that is still to come. To be called from the service that
    /// makes that answer, which is polled by the task that writes. It is left out where an earlier
    /// answer is not written yet: the edge is slow, and nobody needs a 1xx.
    pub(super) fn send(&self, status: StatusCode, headers: &HeaderMap) {
        let mut out = lock(&self.0);
        if !out.clean {
            return;
        }
        let mut head = BytesMut::new();
        let reason = status.canonical_reason().unwrap_or_default();
        head.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).as_bytes());
        for (name, value) in headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                head.extend_from_slice(part);
            }
        }
        head.extend_from_slice(b"\r\n");
        if out.waiting.len() + head.len() <= WAITING_MAX {
            out.waiting.extend_from_slice(&head);
        }
    }
}

fn lock(out: &Mutex<Out>) -> MutexGuard<'_, Out> {
    out.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: AsyncRead + Unpin> AsyncRead for Inward<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.replay.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.replay.len().min(buf.remaining());
        buf.put_slice(&self.replay.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Inward<S> {
    /// Writes the 1xx heads that wait.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut out = lock(&self.out);
        while !out.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &out.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            out.waiting.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Inward<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        lock(&self.out).clean = false;
        ready!(self.poll_waiting(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.out).clean = false;
        ready!(self.poll_waiting(cx))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// The HTTP server flushes when it has written all it had.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_waiting(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        lock(&self.out).clean = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_waiting(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
