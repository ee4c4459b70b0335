//! How does an endpoint get its own packets only, wherever the kernel delivered them?
//!
//! [`SteeredSocket`] wraps quinn's socket: what arrives is sifted by connection id, what belongs elsewhere is passed
//! on, and what others received for us is merged in. After a hand-over it reads from the successor instead.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, recvmsg};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::lane::{count, datagrams};
use crate::packet::{HEADER_LEN, decode};
use crate::shared::Shared;
use crate::sift::{Memo, sift};

/// How often one poll reads again when all it got belonged to others; then it lets other tasks run.
const ROUNDS: usize = 8;

const HELD: u8 = 0;
const READING: u8 = 1;
const STOPPED: u8 = 2;

/// The UDP socket of one worker.
pub struct SteeredSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    shared: Arc<Shared>,
    worker: u8,
    segmentation: bool,
    state: AtomicU8,
    /// Set while the endpoint reads from the UDP socket, so that whoever stops it can wait for the last read.
    busy: AtomicBool,
    forwarded: Mutex<Option<Arc<UnixDatagram>>>,
}

impl SteeredSocket {
    /// Wraps `socket` for `worker`. It does not read before [`Self::start_reading`]; it sends at once.
    ///
    /// `segmentation` allows segmentation offload (GSO) when sending, which some network cards announce and then fail.
    ///
    /// # Errors
    ///
    /// If the socket cannot be registered with the runtime, or `worker` is none of `shared`'s.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn new(
        socket: UdpSocket,
        worker: u8,
        shared: Arc<Shared>,
        segmentation: bool,
    ) -> io::Result<Arc<Self>> {
        if worker >= shared.workers() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no such worker"));
        }
        Ok(Arc::new(Self {
            inner: TokioRuntime.wrap_udp_socket(socket)?,
            shared,
            worker,
            segmentation,
            state: AtomicU8::new(HELD),
            busy: AtomicBool::new(false),
            forwarded: Mutex::new(None),
        }))
    }

    /// Reads from the UDP socket from now on. After [`Self::stop_reading`] it takes that back, for a successor that
    /// went away before it heard that it may read.
    pub fn start_reading(&self) {
        self.state.store(READING, Ordering::SeqCst);
        self.shared.lane(self.worker).wake();
    }

    /// Stops reading from the UDP socket and reads what the successor sends to `forwarded` instead.
    ///
    /// When this returns the last read from the UDP socket has ended, so the successor may begin. Sending goes on as
    /// before. Waits for a read that is under way on another thread (it never blocks).
    pub fn stop_reading(&self, forwarded: UnixDatagram) {
        *self.forwarded.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(forwarded));
        self.state.store(STOPPED, Ordering::SeqCst);
        while self.busy.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        self.shared.lane(self.worker).wake();
    }

    /// Reads from wherever this socket reads at the moment.
    fn poll_source(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.busy.store(true, Ordering::SeqCst);
        let state = self.state.load(Ordering::SeqCst);
        let result = match state {
            READING => self.poll_socket(cx, bufs, meta),
            _ => Poll::Pending,
        };
        self.busy.store(false, Ordering::SeqCst);
        if state == STOPPED {
            return self.poll_forwarded(cx, bufs, meta);
        }
        result
    }

    fn poll_socket(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(self.inner.poll_recv(cx, bufs, meta))?;
        let mut memo = Memo::default();
        let (mut filled, mut own) = (0, 0);
        for i in 0..n {
            let kept = sift(
                &mut bufs[i],
                &mut meta[i],
                |datagram| {
                    memo.route(datagram, |id, long| self.shared.route(id, long, self.worker))
                },
                |to, run, meta, n| self.shared.pass_on(to, run, meta, n, self.worker),
            );
            own += kept;
            if kept > 0 {
                bufs.swap(filled, i);
                meta.swap(filled, i);
                filled += 1;
            }
        }
        count(&self.shared.lane(self.worker).counters.own, own);
        Poll::Ready(Ok(filled))
    }

    fn poll_forwarded(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let socket = self.forwarded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(socket) = socket else { return Poll::Pending };
        let counters = &self.shared.lane(self.worker).counters;
        let mut filled = 0;
        while filled < bufs.len().min(meta.len()) {
            match socket.poll_recv_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending if filled == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
            let received =
                socket.try_io(Interest::READABLE, || receive(&socket, &mut bufs[filled]));
            match received {
                Ok(Some(packet)) => {
                    count(&counters.from_successor, datagrams(&packet));
                    meta[filled] = packet;
                    filled += 1;
                }
                Ok(None) => count(&counters.malformed, 1),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if filled == 0 => return Poll::Ready(Err(error)),
                Err(_) => break,
            }
        }
        Poll::Ready(Ok(filled))
    }
}

/// One forwarded message: its packet into `buf`, `None` if it makes no sense or does not fit.
fn receive(socket: &UnixDatagram, buf: &mut [u8]) -> io::Result<Option<RecvMeta>> {
    let mut header = [0; HEADER_LEN];
    let mut control = RecvAncillaryBuffer::default();
    let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(buf)];
    let message = recvmsg(socket, &mut parts, &mut control, RecvFlags::DONTWAIT)?;
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Ok(None);
    }
    Ok(message.bytes.checked_sub(HEADER_LEN).and_then(|len| decode(&header, len)))
}

impl AsyncUdpSocket for SteeredSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let lane = self.shared.lane(self.worker);
        for _ in 0..ROUNDS {
            let state = self.state.load(Ordering::SeqCst);
            // Half of the buffers at most, so that neither source can shut the other out.
            let half = bufs.len().div_ceil(2);
            let mut filled = lane.take(&mut bufs[..half], &mut meta[..half]);
            if filled == bufs.len() {
                return Poll::Ready(Ok(filled));
            }
            let source = self.poll_source(cx, &mut bufs[filled..], &mut meta[filled..]);
            match source {
                Poll::Ready(Ok(n)) => filled += n,
                Poll::Ready(Err(error)) if filled == 0 => return Poll::Ready(Err(error)),
                Poll::Ready(Err(_)) => {}
                Poll::Pending if filled == 0 => {
                    lane.register(cx.waker());
                    // Only now is a wake-up certain; what came before it is looked for once more.
                    if lane.is_empty() && state == self.state.load(Ordering::SeqCst) {
                        return Poll::Pending;
                    }
                }
                Poll::Pending => {}
            }
            if filled > 0 {
                return Poll::Ready(Ok(filled));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        if self.segmentation { self.inner.max_transmit_segments() } else { 1 }
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl fmt::Debug for SteeredSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SteeredSocket")
            .field("worker", &self.worker)
            .field("local", &self.local_addr().ok())
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
