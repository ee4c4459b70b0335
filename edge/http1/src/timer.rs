//! A deadline that costs nothing to move later.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that may be set, moved and cleared for each request; the runtime's timer is touched
/// only when it fires or has to fire earlier.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    sleep: Option<Pin<Box<Sleep>>>,
    at: Option<Instant>,
}

impl Deadline {
    pub(crate) fn set(&mut self, after: Duration) {
        self.set_at(Instant::now() + after);
    }

    pub(crate) fn set_at(&mut self, at: Instant) {
        self.at = Some(at);
        if let Some(sleep) = &mut self.sleep
            && sleep.deadline() > at
        {
            sleep.as_mut().reset(at);
        }
    }

    pub(crate) const fn is_set(&self) -> bool {
        self.at.is_some()
    }

    pub(crate) fn clear(&mut self) {
        self.at = None;
    }

    /// Sets it unless it is set.
    pub(crate) fn set_once(&mut self, after: Duration) {
        if self.at.is_none() {
            self.set(after);
        }
    }

    /// Ready once it has passed; pending for ever while none is set.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_fires_at_its_last_setting_and_not_when_cleared() {
        let start = Instant::now();
        let mut deadline = Deadline::default();
        deadline.set(Duration::from_secs(1));
        let early =
            tokio::time::timeout(Duration::from_millis(10), poll_fn(|cx| deadline.poll(cx)));
        assert!(early.await.is_err());
        deadline.set(Duration::from_secs(5));
        poll_fn(|cx| deadline.poll(cx)).await;
        assert!(start.elapsed() >= Duration::from_secs(5));
        deadline.set(Duration::from_secs(9));
        deadline.set(Duration::from_secs(1));
        let before = Instant::now();
        poll_fn(|cx| deadline.poll(cx)).await;
        assert!(before.elapsed() < Duration::from_secs(2));
        deadline.clear();
        let never = tokio::time::timeout(Duration::from_secs(99), poll_fn(|cx| deadline.poll(cx)));
        assert!(never.await.is_err());
    }
}
