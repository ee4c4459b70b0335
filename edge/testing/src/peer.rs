//! Who sends a server or a client the bytes of an input, and on which clock?

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::{Builder, Runtime},
    time::{Sleep, sleep, timeout},
};

/// The clock of these runs jumps: this is no time at all, unless something waits for ever.
const FOR_EVER: Duration = Duration::from_secs(36_000);
/// How long a peer stays that has sent everything: longer than any limit.
const STAYS: Duration = Duration::from_secs(3600);

/// Runs on a clock that jumps to the next deadline whenever nothing else is to be done.
///
/// # Panics
///
/// If the future still waits after ten hours of that clock.
pub fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = runtime.get_or_insert_with(|| {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    });
    runtime.block_on(async { timeout(FOR_EVER, future).await.expect("it waits for ever") })
}

/// A peer that sends an input, in pieces, and takes everything. Once its bytes are read it stays
/// for an hour, as one that has asked does, and leaves.
#[derive(Debug)]
pub struct Peer {
    data: Vec<u8>,
    at: usize,
    step: usize,
    pause: bool,
    leave: Option<Pin<Box<Sleep>>>,
    taken: Arc<AtomicUsize>,
}

impl Peer {
    /// One that sends `data`, at most `step` bytes at a time.
    #[must_use]
    pub fn new(data: &[u8], step: usize) -> Self {
        let data = data.to_vec();
        Self { data, at: 0, step, pause: false, leave: None, taken: Arc::default() }
    }

    /// Counts the bytes that were written to it, also when the other side has it.
    #[must_use]
    pub fn taken(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.taken)
    }
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Nothing comes at once: between two pieces the other side gets to do something.
        self.pause = !self.pause;
        if self.pause {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let take = self.step.min(self.data.len() - self.at).min(buf.remaining());
        if take == 0 {
            let leave = self.leave.get_or_insert_with(|| Box::pin(sleep(STAYS)));
            return leave.as_mut().poll(cx).map(|()| Ok(()));
        }
        buf.put_slice(&self.data[self.at..self.at + take]);
        self.at += take;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.taken.fetch_add(buf.len(), Relaxed);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::Instant,
    };

    use super::*;

    #[test]
    fn peer_sends_its_pieces_takes_everything_and_leaves_after_an_hour() {
        block_on(async {
            let start = Instant::now();
            let mut peer = Peer::new(b"abcde", 2);
            let taken = peer.taken();
            peer.write_all(b"anything").await.unwrap();
            let (mut pieces, mut piece) = (Vec::new(), [0; 16]);
            loop {
                match peer.read(&mut piece).await.unwrap() {
                    0 => break,
                    len => pieces.push(piece[..len].to_vec()),
                }
            }
            assert_eq!(pieces, [&b"ab"[..], b"cd", b"e"]);
            assert_eq!(taken.load(Relaxed), 8);
            assert!(start.elapsed() >= STAYS);
        });
    }

    #[test]
    #[should_panic(expected = "it waits for ever")]
    fn what_never_ends_is_a_failure() {
        block_on(std::future::pending::<()>());
    }
}
