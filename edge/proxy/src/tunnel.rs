//! Joins two upgraded connections and copies bytes both ways until one side ends.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional},
    time::{sleep, timeout},
};

/// How long both sides have to hand over their connection after the 101.
const UPGRADE_WAIT: Duration = Duration::from_secs(10);

/// Copies until one side ends, breaks, or nothing has moved for `idle` (up to twice that).
pub(crate) async fn join(client: OnUpgrade, upstream: OnUpgrade, idle: Duration) {
    let both = async { tokio::try_join!(client, upstream) };
    let Ok(Ok((client, upstream))) = timeout(UPGRADE_WAIT, both).await else {
        tracing::debug!("an upgraded connection was not handed over");
        return;
    };
    let moved = Arc::new(AtomicBool::new(true));
    let mut client = Watched::new(client, &moved);
    let mut upstream = Watched::new(upstream, &moved);
    tokio::select! {
        // Ending by error is a tunnel's normal end: either side may just go away.
        _ = copy_bidirectional(&mut client, &mut upstream) => {}
        () = silence(&moved, idle) => tracing::debug!("an idle tunnel was cut"),
    }
}

async fn silence(moved: &AtomicBool, idle: Duration) {
    while moved.swap(false, Ordering::Relaxed) {
        sleep(idle).await;
    }
}

pin_project! {
    /// Notes that bytes were read.
    struct Watched {
        #[pin]
        inner: TokioIo<Upgraded>,
        moved: Arc<AtomicBool>,
    }
}

impl Watched {
    fn new(inner: Upgraded, moved: &Arc<AtomicBool>) -> Self {
        Self { inner: TokioIo::new(inner), moved: Arc::clone(moved) }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        ready!(this.inner.poll_read(cx, buf))?;
        this.moved.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_shutdown(cx)
    }
}
