//! A request's body, sent while its answer is read.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Context,
};

type Sending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What is still being sent of a request. Polled by whoever waits for the answer: one that is
/// dropped has nothing left behind.
pub(crate) struct Upload(Option<Sending>);

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Upload").field(&self.0.is_some()).finish()
    }
}

impl Upload {
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// Its failure is not told: a server may answer without reading all, and if it did not
    /// answer, waiting for the answer fails, too.
    pub(crate) fn of<T, E>(sending: impl Future<Output = Result<T, E>> + Send + 'static) -> Self {
        Self(Some(Box::pin(async move {
            let _ = sending.await;
        })))
    }

    /// Waits for `work` and meanwhile sends on.
    pub(crate) async fn alongside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            self.advance(context);
            work.as_mut().poll(context)
        })
        .await
    }

    fn advance(&mut self, context: &mut Context<'_>) {
        if self.0.as_mut().is_some_and(|sending| sending.as_mut().poll(context).is_ready()) {
            self.0 = None;
        }
    }
}
