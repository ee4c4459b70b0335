//! The two halves of a connection and their buffers.

use std::{
    fmt,
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes asked for at once while little is expected: most heads fit.
const READ_SMALL_BYTES: usize = 2 * 1024;
/// Bytes asked for at once while a body flows.
const READ_LARGE_BYTES: usize = 64 * 1024;
/// What is smaller is copied behind what waits already, to be written at once.
const COPY_MAX_BYTES: usize = 16 * 1024;

/// The half that is read.
pub(crate) struct Reader {
    io: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) buf: BytesMut,
    eof: bool,
    /// The last read brought little, so the next may be far away.
    little: bool,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("buffered", &self.buf.len()).finish_non_exhaustive()
    }
}

impl Reader {
    pub(crate) fn new(io: Box<dyn AsyncRead + Send + Unpin>, read_ahead: &[u8]) -> Self {
        Self { io, buf: BytesMut::from(read_ahead), eof: false, little: true }
    }

    /// Reads more behind what is there. 0: the peer sends no more. While nothing comes after little,
    /// no buffer is held: a tunnel may be silent for hours.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        large: bool,
    ) -> Poll<io::Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        if self.buf.capacity() == 0 && (!large || self.little) {
            return self.poll_first(cx);
        }
        let room = if large { READ_LARGE_BYTES } else { READ_SMALL_BYTES };
        if self.buf.capacity() - self.buf.len() < room / 2 {
            self.buf.reserve(room);
        }
        let read = tokio_util::io::poll_read_buf(Pin::new(&mut *self.io), cx, &mut self.buf);
        if read.is_pending() && self.little {
            self.shrink();
        }
        let read = ready!(read)?;
        self.eof = read == 0;
        self.little = read <= READ_SMALL_BYTES;
        Poll::Ready(Ok(read))
    }

    /// Reads by way of the stack, so that a connection that waits holds no buffer.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); READ_SMALL_BYTES];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *self.io).poll_read(cx, &mut read))?;
        let read = read.filled();
        self.buf = BytesMut::from(read);
        self.eof = read.is_empty();
        // There may be more, and then it is not by way of the stack.
        self.little = read.len() < READ_SMALL_BYTES;
        Poll::Ready(Ok(read.len()))
    }

    /// Whether nothing that was read is left, and the peer has not said that it sends no more.
    pub(crate) fn is_drained(&self) -> bool {
        self.buf.is_empty() && !self.eof
    }

    /// Whether nothing is there to be read and the peer is still there. Asks without waiting.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.is_drained() && self.poll_fill(&mut cx, false).is_pending()
    }

    /// Gives the buffer's memory back while nothing is expected soon.
    pub(crate) fn shrink(&mut self) {
        if self.buf.is_empty() {
            self.buf = BytesMut::new();
        }
    }
}

/// The half that is written.
pub(crate) struct Writer {
    io: Box<dyn AsyncWrite + Send + Unpin>,
    pub(crate) buf: BytesMut,
    /// Something was written since this was last taken.
    pub(crate) progress: bool,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("buffered", &self.buf.len()).finish_non_exhaustive()
    }
}

impl Writer {
    pub(crate) fn new(io: Box<dyn AsyncWrite + Send + Unpin>) -> Self {
        Self { io, buf: BytesMut::new(), progress: false }
    }

    /// Whether `data` should rather be copied behind what waits than written apart.
    pub(crate) fn should_copy(&self, data: &Bytes) -> bool {
        self.buf.len() + data.len() <= COPY_MAX_BYTES
    }

    /// Writes what waits and then `data`; advances both. Ready when all is handed over.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<io::Result<()>> {
        while !self.buf.is_empty() || !data.is_empty() {
            let slices = [IoSlice::new(&self.buf), IoSlice::new(data)];
            let io = Pin::new(&mut *self.io);
            let written = match (self.buf.is_empty(), data.is_empty()) {
                (false, false) if io.is_write_vectored() => io.poll_write_vectored(cx, &slices),
                (false, _) => io.poll_write(cx, &self.buf),
                (true, _) => io.poll_write(cx, data),
            };
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.progress = true;
            let of_buf = written.min(self.buf.len());
            self.buf.advance(of_buf);
            data.advance(written - of_buf);
        }
        self.buf.clear();
        Poll::Ready(Ok(()))
    }

    /// Writes what waits and sees it on its way.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write(cx, &mut Bytes::new()))?;
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    /// Tells the peer that there is no more.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write(cx, &mut Bytes::new()))?;
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }

    /// Gives the buffer's memory back.
    pub(crate) fn shrink(&mut self) {
        if self.buf.is_empty() {
            self.buf = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Whether nothing is there, asked as a body's reader does.
    fn is_pending(reader: &mut Reader) -> bool {
        reader.poll_fill(&mut Context::from_waker(Waker::noop()), true).is_pending()
    }

    #[tokio::test]
    async fn a_body_that_waits_after_little_holds_no_buffer_and_one_that_flows_keeps_its_own() {
        let (mut peer, io) = tokio::io::duplex(1 << 20);
        let mut reader = Reader::new(Box::new(io), b"");
        assert!(is_pending(&mut reader) && reader.buf.capacity() == 0);
        for sent in [&b"a few bytes"[..], &[7; READ_SMALL_BYTES / 2], &[8; READ_LARGE_BYTES / 2]] {
            peer.write_all(sent).await.unwrap();
            let mut got = BytesMut::new();
            while got.len() < sent.len() {
                poll_fn(|cx| reader.poll_fill(cx, true)).await.unwrap();
                got.unsplit(reader.buf.split());
            }
            assert_eq!(got, sent);
            drop(got);
            assert!(is_pending(&mut reader));
            let flows = sent.len() > READ_SMALL_BYTES;
            assert_eq!(reader.buf.capacity() > 0, flows, "after {} bytes", sent.len());
        }
    }
}
