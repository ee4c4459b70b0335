//! How is work cut off that is polled often, by a token that is cancelled once?
//!
//! To ask a token takes two locks, and to ask it each time that a connection has something to do costs
//! more than much of what is done then. So it is asked when it woke somebody, and else not.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::task::AtomicWaker;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Whether the token has something to say, and whom that concerns.
#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// Work that ends early, and is dropped, once its token is cancelled.
pub(super) struct Cut<F> {
    work: Pin<Box<F>>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<F: Future<Output = ()>> Cut<F> {
    /// The work is put on the heap: futures around it would each hold a copy of its size.
    pub(super) fn new(token: CancellationToken, work: F) -> Self {
        // Rung at first, so that the token is asked before anything is done.
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: AtomicWaker::new() });
        let waker = Waker::from(Arc::clone(&bell));
        let cancelled = Box::pin(token.cancelled_owned());
        Self { work: Box::pin(work), cancelled, bell, waker }
    }
}

impl<F: Future<Output = ()>> Future for Cut<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Before the bell is looked at: who rings it later finds this task.
        self.bell.task.register(cx.waker());
        if self.bell.rung.load(Ordering::Acquire) {
            self.bell.rung.store(false, Ordering::Release);
            let this = &mut *self;
            if this.cancelled.as_mut().poll(&mut Context::from_waker(&this.waker)).is_ready() {
                return Poll::Ready(());
            }
        }
        self.work.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn work_goes_on_to_its_end_unless_it_is_cut() {
        let token = CancellationToken::new();
        timeout(PATIENCE, Cut::new(token.clone(), tokio::task::yield_now())).await.unwrap();
        let (held, gone) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            let _held = held;
            pending::<()>().await;
        };
        let cut = tokio::spawn(Cut::new(token.clone(), work));
        tokio::task::yield_now().await; // it waits by now, or will find the token cancelled
        token.cancel();
        timeout(PATIENCE, cut).await.unwrap().unwrap();
        assert!(timeout(PATIENCE, gone).await.unwrap().is_err(), "the work is dropped with it");
    }

    #[tokio::test]
    async fn nothing_is_begun_after_the_token_was_cancelled() {
        let token = CancellationToken::new();
        token.cancel();
        let work = async { panic!("it was begun") };
        timeout(PATIENCE, Cut::new(token, work)).await.unwrap();
    }
}
