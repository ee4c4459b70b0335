//! How long a body may be silent, and how slow it may be.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::body::BodyError;

/// How long a body is waited for before its speed is judged.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// Bounds of a body, or of both directions of a tunnel.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    silence: Duration,
    /// Bytes per second of waiting; 0: any.
    min_rate: u32,
    /// Of a tunnel: whether bytes moved in either direction. One that is silent in one direction
    /// only is not idle.
    moved: Option<Arc<AtomicBool>>,
}

impl Pace {
    pub(crate) const fn body(silence: Duration) -> Self {
        Self { silence, min_rate: 0, moved: None }
    }

    pub(crate) fn with_min_rate(self, bytes_per_second: u32) -> Self {
        Self { min_rate: bytes_per_second, ..self }
    }

    pub(crate) fn tunnel(silence: Duration) -> Self {
        Self { silence, min_rate: 0, moved: Some(Arc::default()) }
    }

    /// The same without a lowest speed: for answers, whose speed is the guest's affair.
    pub(crate) fn of_answer(&self) -> Self {
        Self { min_rate: 0, ..self.clone() }
    }
}

/// Watches one body. Time counts only while it is waited for; no timer exists before.
#[derive(Debug)]
pub(crate) struct Watch {
    pace: Pace,
    sleep: Option<Pin<Box<Sleep>>>,
    since: Option<Instant>,
    waited: Duration,
    bytes: u64,
}

impl Watch {
    pub(crate) fn new(pace: &Pace) -> Self {
        Self { pace: pace.clone(), sleep: None, since: None, waited: Duration::ZERO, bytes: 0 }
    }

    /// Something came: the wait is over.
    pub(crate) fn got(&mut self, bytes: u64) {
        self.bytes += bytes;
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
        if let Some(moved) = &self.pace.moved {
            moved.store(true, Ordering::Relaxed);
        }
    }

    /// Ready with the error once the body is too silent or too slow.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let until = self.until(since);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        ready!(sleep.as_mut().poll(cx));
        let silence = self.pace.silence;
        if since.elapsed() >= silence {
            let moved = self.pace.moved.as_ref();
            if !moved.is_some_and(|moved| moved.swap(false, Ordering::Relaxed)) {
                return Poll::Ready(BodyError::Idle(silence));
            }
            self.since = Some(Instant::now());
            return self.poll_expired(cx);
        }
        let waited = self.waited + since.elapsed();
        if self.bytes < u64::from(self.pace.min_rate) * waited.as_secs().max(1) {
            return Poll::Ready(BodyError::TooSlow);
        }
        // Fast enough so far: a new window begins.
        (self.bytes, self.waited) = (0, Duration::ZERO);
        self.since = Some(Instant::now());
        self.poll_expired(cx)
    }

    fn until(&self, since: Instant) -> Instant {
        let silent = since + self.pace.silence;
        if self.pace.min_rate == 0 {
            return silent;
        }
        silent.min(since + RATE_WINDOW.saturating_sub(self.waited))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_too_slow_and_a_stream_is_not() {
        let pace = Pace::body(Duration::from_secs(60)).with_min_rate(100);
        for (bytes, ends) in [(1, true), (1000, false)] {
            let mut watch = Watch::new(&pace);
            let mut ended = false;
            for _ in 0..20 {
                let wait = tokio::time::timeout(Duration::from_secs(1), async {
                    poll_fn(|cx| watch.poll_expired(cx)).await
                });
                ended |= wait.await.is_ok();
                watch.got(bytes);
            }
            assert_eq!(ended, ends, "{bytes} bytes per second");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_is_idle_only_if_both_directions_are() {
        let pace = Pace::tunnel(Duration::from_secs(60));
        let (mut up, mut down) = (Watch::new(&pace), Watch::new(&pace));
        let start = Instant::now();
        let waiting = tokio::spawn(async move { poll_fn(|cx| up.poll_expired(cx)).await });
        tokio::time::sleep(Duration::from_secs(50)).await;
        down.got(1);
        assert!(matches!(waiting.await.unwrap(), BodyError::Idle(_)));
        assert!(start.elapsed() >= Duration::from_secs(110), "{:?}", start.elapsed());
    }
}
