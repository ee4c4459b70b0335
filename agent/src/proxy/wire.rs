//! The agent's end of a connection into a guest: can it be used still, and who ends it?
//!
//! A machine that is killed sends no FIN. So its connections are *cut*: from then on reading and
//! writing fail, which an HTTP client reports as a broken message, never as a proper end.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Where a frame's type stands (RFC 9113, 4.1).
const FRAME_TYPE_AT: u8 = 3;
/// SETTINGS, the first frame of whoever speaks HTTP/2 (RFC 9113, 3.4 and 6.5).
const SETTINGS: u8 = 4;
/// [`Line::speaks_h2`]: the fourth byte was that of a SETTINGS frame. Smaller: so many bytes came.
const HEARD_H2: u8 = 10;
/// The fourth byte was another one.
const HEARD_OTHER: u8 = 11;

/// A connection into a guest.
pub(super) struct Wire {
    stream: Arc<TcpStream>,
    heard: Arc<AtomicU8>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Looks at a [`Wire`] that an HTTP client drives.
#[derive(Debug)]
pub(super) struct Line {
    stream: Weak<TcpStream>,
    heard: Arc<AtomicU8>,
}

impl Wire {
    /// A connection that breaks when `cut` is cancelled.
    pub(super) fn new(stream: TcpStream, cut: CancellationToken) -> (Self, Line) {
        let (stream, heard) = (Arc::new(stream), Arc::new(AtomicU8::new(0)));
        let line = Line { stream: Arc::downgrade(&stream), heard: Arc::clone(&heard) };
        (Self { stream, heard, cut: Box::pin(cut.cancelled_owned()) }, line)
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionReset, "guest ended")),
            Poll::Pending => Ok(()),
        }
    }

    fn listen(&self, bytes: &[u8]) {
        let before = self.heard.load(Ordering::Relaxed);
        if before > FRAME_TYPE_AT || bytes.is_empty() {
            return;
        }
        let now = match bytes.get(usize::from(FRAME_TYPE_AT - before)) {
            Some(&SETTINGS) => HEARD_H2,
            Some(_) => HEARD_OTHER,
            None => before + u8::try_from(bytes.len()).unwrap_or(FRAME_TYPE_AT),
        };
        self.heard.store(now, Ordering::Relaxed);
    }
}

impl Line {
    /// Whether nothing came and the guest has not closed it, by what the kernel knows now.
    pub(super) fn is_quiet(&self) -> bool {
        let Some(stream) = self.stream.upgrade() else { return false };
        let peeked = SockRef::from(&*stream).peek(&mut [MaybeUninit::uninit()]);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Ends it now, and by a RST when it is dropped: the guest's kernel forgets it, so that no
    /// snapshot has it.
    pub(super) fn end_by_reset(&self) {
        if let Some(stream) = self.stream.upgrade() {
            // Both are refused only where the socket is not connected any more.
            let _ = stream.set_zero_linger();
            let _ = SockRef::from(&*stream).shutdown(std::net::Shutdown::Both);
        }
    }

    /// Whether the guest began with an HTTP/2 preface.
    pub(super) fn speaks_h2(&self) -> bool {
        self.heard.load(Ordering::Relaxed) == HEARD_H2
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let from = buf.filled().len();
            match self.stream.try_read_buf(buf) {
                Ok(_) => {
                    self.listen(&buf.filled()[from..]);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Wire {
    fn poll_try(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(cx, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(cx, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write))
    }
}
