//! How a connection comes to an end in good order (RFC 9113 6.8): first word, a round trip, last word.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How long a client may take to answer the first word.
const ROUND_TRIP: Duration = Duration::from_secs(1);

/// What to tell the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// That it should open no more streams; those on their way are still served.
    First,
    /// Which streams were served.
    Last,
}

/// Where a connection's end is.
#[derive(Debug)]
enum Phase {
    Serving(Pin<Box<WaitForCancellationFutureOwned>>),
    First(Pin<Box<Sleep>>),
    Last,
}

/// Sees a connection to its end.
#[derive(Debug)]
pub(crate) struct Drain(Phase);

impl Drain {
    pub(crate) fn new(token: CancellationToken) -> Self {
        Self(Phase::Serving(Box::pin(token.cancelled_owned())))
    }

    /// Whether the last word was said.
    pub(crate) const fn is_last(&self) -> bool {
        matches!(self.0, Phase::Last)
    }

    /// Ready when something is to be said. `answered`: the client has answered a PING since the first.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, answered: bool) -> Poll<Word> {
        match &mut self.0 {
            Phase::Serving(drained) => match drained.as_mut().poll(cx) {
                Poll::Ready(()) => {
                    self.0 = Phase::First(Box::pin(sleep(ROUND_TRIP)));
                    Poll::Ready(Word::First)
                }
                Poll::Pending => Poll::Pending,
            },
            Phase::First(late) => {
                if answered || late.as_mut().poll(cx).is_ready() {
                    self.0 = Phase::Last;
                    return Poll::Ready(Word::Last);
                }
                Poll::Pending
            }
            Phase::Last => Poll::Pending,
        }
    }
}
