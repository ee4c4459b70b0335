//! What a connection writes in one turn, put together.
//!
//! The `h2` crate flushes after each DATA frame that it has not copied: the answers of eight streams
//! that are ready at once would be eight writes, with TLS eight records. Here they wait until the
//! connection's turn is over, which [`Batched::poll_send`] says.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that wait: two TLS records.
const WAITING_MAX_BYTES: usize = 32 * 1024;
/// What is larger is not copied, but written at once.
const COPY_MAX_BYTES: usize = 8 * 1024;

#[derive(Debug)]
struct State<I> {
    io: I,
    waiting: BytesMut,
}

impl<I: AsyncWrite + Unpin> State<I> {
    /// Hands what waits to the connection below.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
        }
        self.waiting.clear();
        Poll::Ready(Ok(()))
    }

    /// Whether `more` bytes are to wait; else nothing waits any more.
    fn poll_room(&mut self, cx: &mut Context<'_>, more: usize) -> Poll<io::Result<bool>> {
        if more <= COPY_MAX_BYTES && self.waiting.len() + more <= WAITING_MAX_BYTES {
            return Poll::Ready(Ok(true));
        }
        ready!(self.poll_empty(cx))?;
        Poll::Ready(Ok(more <= COPY_MAX_BYTES))
    }
}

/// A connection whose small writes wait for the turn's end. Clones share it.
#[derive(Debug)]
pub(crate) struct Batched<I>(Arc<Mutex<State<I>>>);

impl<I> Clone for Batched<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<I> Batched<I> {
    pub(crate) fn new(io: I) -> Self {
        Self(Arc::new(Mutex::new(State { io, waiting: BytesMut::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, State<I>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the memory back while little is expected.
    pub(crate) fn shrink(&self) {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            state.waiting = BytesMut::new();
        }
    }
}

impl<I: AsyncWrite + Unpin> Batched<I> {
    /// The turn is over: sends what waits. Ready once all is on its way.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        ready!(state.poll_empty(cx))?;
        Pin::new(&mut state.io).poll_flush(cx)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Batched<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Batched<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if !ready!(state.poll_room(cx, length))? {
            return Pin::new(&mut state.io).poll_write_vectored(cx, bufs);
        }
        for buf in bufs {
            state.waiting.extend_from_slice(buf);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What waits goes on waiting: see [`Batched::poll_send`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        ready!(state.poll_empty(cx))?;
        Pin::new(&mut state.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn small_writes_are_sent_together_at_the_turns_end() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut batched = Batched::new(near);
        for part in [&b"one "[..], b"two ", b"three"] {
            batched.write_all(part).await.unwrap();
            batched.flush().await.unwrap();
        }
        let mut buffer = [0; 64];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut early = ReadBuf::new(&mut buffer);
        assert!(Pin::new(&mut far).poll_read(&mut cx, &mut early).is_pending(), "nothing is sent");
        poll_fn(|cx| batched.poll_send(cx)).await.unwrap();
        let read = far.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..read], b"one two three");
    }

    #[tokio::test]
    async fn order_is_kept_whatever_the_sizes_and_what_waits_is_bounded() {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut batched = Batched::new(near);
        let handle = batched.clone();
        let sent: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            assert!(got == expected);
        });
        let mut rest = &sent[..];
        for length in [1, 9, 20_000, 100, 8192, 8193].into_iter().cycle() {
            let (part, after) = rest.split_at(length.min(rest.len()));
            batched.write_all(part).await.unwrap();
            assert!(handle.lock().waiting.len() <= WAITING_MAX_BYTES);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        batched.shutdown().await.unwrap();
        drop((batched, handle));
        reading.await.unwrap();
    }
}
