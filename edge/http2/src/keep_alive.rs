//! When a silent connection is asked whether it is there, and when it is given up.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::meter::Meter;

/// What to do about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is under way on it, and nothing was for too long.
    Idle,
    /// It does not answer.
    Dead,
}

/// Watches a connection's silence.
pub(crate) struct KeepAlive {
    ping: Option<PingPong>,
    idle_timeout: Duration,
    sleep: Pin<Box<Sleep>>,
    idle_since: Instant,
    asked: bool,
}

impl KeepAlive {
    pub(crate) fn new(ping: Option<PingPong>, idle_timeout: Duration) -> Self {
        let now = Instant::now();
        let sleep = Box::pin(sleep_until(now + idle_timeout / 2));
        Self { ping, idle_timeout, sleep, idle_since: now, asked: false }
    }

    /// Ready when the connection has to be given up. `busy`: streams are open.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        meter: &Meter,
        busy: bool,
    ) -> Poll<Verdict> {
        if busy {
            self.idle_since = Instant::now();
        }
        if self.asked
            && let Some(ping) = &mut self.ping
            && ping.poll_pong(cx).is_ready()
        {
            self.asked = false;
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if !busy && now.duration_since(self.idle_since) >= self.idle_timeout {
                return Poll::Ready(Verdict::Idle);
            }
            let silent = now.duration_since(meter.last_read());
            // Without a stream it is not asked, so silence says nothing.
            if busy && silent >= self.idle_timeout {
                return Poll::Ready(Verdict::Dead);
            }
            if silent >= self.idle_timeout / 2
                && busy
                && !self.asked
                && let Some(ping) = &mut self.ping
            {
                self.asked = ping.send_ping(Ping::opaque()).is_ok();
                let _ = ping.poll_pong(cx); // so that its coming wakes us
            }
            self.sleep.as_mut().reset(now + self.idle_timeout / 4);
        }
        Poll::Pending
    }
}
