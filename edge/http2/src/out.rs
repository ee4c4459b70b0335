//! What waits to be written: small things copied together, large ones as they are.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// What is larger is not copied.
const COPY_MAX_BYTES: usize = 4 * 1024;
/// What a buffer begins with: a small answer as a whole, so that nothing grows in between.
const FIRST_BYTES: usize = 2 * 1024;
/// And at most, however much the last one had to hold.
const FIRST_MAX_BYTES: usize = 16 * 1024;
/// Most pieces of one write.
const PIECES_MAX: usize = 16;

/// Bytes on their way out, in order.
#[derive(Debug, Default)]
pub(crate) struct Out {
    /// Before `tail`.
    pieces: VecDeque<Bytes>,
    tail: BytesMut,
    /// Bytes of the pieces.
    piece_bytes: usize,
    /// All was handed over, but perhaps not seen on its way.
    unflushed: bool,
    /// What the tail had to hold at most, of late: several answers at once are followed by as many.
    last_bytes: usize,
}

impl Out {
    /// Where frames are written.
    #[inline]
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        if self.tail.capacity() == 0 {
            let first = self.last_bytes.next_power_of_two();
            self.tail.reserve(first.clamp(FIRST_BYTES, FIRST_MAX_BYTES));
        }
        &mut self.tail
    }

    /// Adds what a frame brings.
    #[inline]
    pub(crate) fn push(&mut self, data: Bytes) {
        if data.len() <= COPY_MAX_BYTES {
            self.tail().extend_from_slice(&data);
            return;
        }
        let before = self.tail.split().freeze();
        self.piece_bytes += before.len() + data.len();
        self.pieces.extend([before, data]);
    }

    /// Bytes that wait.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.piece_bytes + self.tail.len()
    }

    /// Hands over what waits. Ready when all is on its way.
    pub(crate) fn poll_flush<I: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<io::Result<()>> {
        self.last_bytes = self.last_bytes.max(self.tail.len());
        while self.len() > 0 {
            let written = if self.pieces.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.tail))?
            } else {
                ready!(self.poll_write_pieces(cx, io))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.advance(written);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_pieces<I: AsyncWrite + Unpin>(
        &self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(io);
        if !io.is_write_vectored() {
            let first = self.pieces.iter().find(|piece| !piece.is_empty());
            return io.poll_write(cx, first.map_or(&self.tail[..], |piece| piece));
        }
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let all = self.pieces.iter().map(|piece| &piece[..]).chain([&self.tail[..]]);
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(all) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        io.poll_write_vectored(cx, &slices[..count])
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let part = written.min(piece.len());
            piece.advance(part);
            self.piece_bytes -= part;
            written -= part;
            if !piece.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.tail.advance(written);
        if self.tail.is_empty() {
            self.tail.clear();
        }
    }

    /// Gives the memory back while nothing is expected soon.
    pub(crate) fn shrink(&mut self) {
        if self.len() == 0 {
            self.pieces = VecDeque::new();
            self.tail = BytesMut::new();
            self.last_bytes -= self.last_bytes / 8; // a large one is forgotten
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Waker};

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn everything_comes_in_order_however_little_is_taken_at_once() {
        for room in [1, 100, 1 << 20] {
            let (mut io, mut peer) = tokio::io::duplex(room);
            let (mut out, mut wanted) = (Out::default(), Vec::new());
            for size in [1, 10, COPY_MAX_BYTES, COPY_MAX_BYTES + 1, 3, 50_000, 50_001, 7] {
                let data = vec![u8::try_from(size % 251).unwrap(); size];
                out.tail().extend_from_slice(b"head");
                out.push(data.clone().into());
                wanted.extend([&b"head"[..], &data].concat());
                assert_eq!(out.len(), wanted.len());
            }
            let writing = async {
                poll_fn(|cx| out.poll_flush(cx, &mut io)).await.unwrap();
                drop(io);
            };
            let mut got = Vec::new();
            let (_, read) = tokio::join!(writing, peer.read_to_end(&mut got));
            read.unwrap();
            assert!(got == wanted);
        }
    }

    #[test]
    fn nothing_is_held_once_all_is_written() {
        let mut out = Out::default();
        out.push(Bytes::from(vec![0; 100_000]));
        out.tail().extend_from_slice(b"x");
        out.shrink();
        assert_eq!(out.len(), 100_001, "what waits stays");
        let mut cx = Context::from_waker(Waker::noop());
        assert!(out.poll_flush(&mut cx, &mut tokio::io::sink()).is_ready());
        out.shrink();
        assert_eq!((out.len(), out.tail.capacity(), out.pieces.capacity()), (0, 0, 0));
    }
}
