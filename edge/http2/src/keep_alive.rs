//! When a silent connection is asked whether it is there, and when it is given up.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// What to do about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Ask it.
    Ask,
    /// Nothing is under way on it, and nothing was for too long.
    Idle,
    /// It does not answer.
    Dead,
    /// It has not begun.
    Handshake,
}

/// Watches a connection's silence.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    idle_timeout: Duration,
    sleep: Pin<Box<Sleep>>,
    began: bool,
    idle_since: Instant,
    /// Streams were open since the last look.
    active: bool,
    asked: bool,
}

impl KeepAlive {
    pub(crate) fn new(now: Instant, handshake_timeout: Duration, idle_timeout: Duration) -> Self {
        let sleep = Box::pin(sleep_until(now + handshake_timeout));
        Self { idle_timeout, sleep, began: false, idle_since: now, active: false, asked: false }
    }

    /// The handshake is over.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.began = true;
        self.idle_since = now;
        self.sleep.as_mut().reset(now + self.idle_timeout / 2);
    }

    /// The client has answered.
    pub(crate) const fn hear(&mut self) {
        self.asked = false;
    }

    /// Ready when something has to be done. `busy`: streams are open. `last_read`: something came then.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        last_read: Instant,
        busy: bool,
    ) -> Poll<Verdict> {
        self.active |= busy;
        while self.sleep.as_mut().poll(cx).is_ready() {
            if !self.began {
                return Poll::Ready(Verdict::Handshake);
            }
            let now = Instant::now();
            self.sleep.as_mut().reset(now + self.idle_timeout / 4);
            if std::mem::replace(&mut self.active, busy) {
                self.idle_since = now;
            }
            if !busy && now.duration_since(self.idle_since) >= self.idle_timeout {
                return Poll::Ready(Verdict::Idle);
            }
            let silent = now.duration_since(last_read);
            // Without a stream it is not asked, so silence says nothing.
            if busy && silent >= self.idle_timeout {
                return Poll::Ready(Verdict::Dead);
            }
            if busy && silent >= self.idle_timeout / 2 && !self.asked {
                self.asked = true;
                return Poll::Ready(Verdict::Ask);
            }
        }
        Poll::Pending
    }
}
