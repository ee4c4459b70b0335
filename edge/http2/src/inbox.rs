//! What has come of a request's body and was not read yet.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use crate::BodyError;

#[derive(Debug, Default)]
struct State {
    data: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    end: Option<Result<(), BodyError>>,
    waker: Option<Waker>,
}

/// Between a connection and the reader of a body. The stream's window bounds it.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Mutex<State>);

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, data: Bytes) {
        let waker = {
            let mut state = self.lock();
            state.data.push_back(data);
            state.waker.take()
        };
        wake(waker);
    }

    /// The body is whole.
    pub(crate) fn end(&self, trailers: Option<HeaderMap>) {
        let waker = {
            let mut state = self.lock();
            state.trailers = trailers;
            state.end.get_or_insert(Ok(()));
            state.waker.take()
        };
        wake(waker);
    }

    /// The body will not be whole. Gives how many bytes are dropped.
    pub(crate) fn fail(&self, error: BodyError) -> usize {
        let (waker, dropped) = {
            let mut state = self.lock();
            if state.end.is_none() {
                state.end = Some(Err(error));
            }
            (state.waker.take(), drain(&mut state.data))
        };
        wake(waker);
        dropped
    }

    /// Nobody will read any more. Gives how many bytes are dropped.
    pub(crate) fn abandon(&self) -> usize {
        drain(&mut self.lock().data)
    }

    /// Whether there is nothing to read and never will be.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.lock();
        state.data.is_empty() && state.trailers.is_none() && matches!(state.end, Some(Ok(())))
    }

    pub(crate) fn poll_frame(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.lock();
        if let Some(data) = state.data.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match &state.end {
            Some(Ok(())) => Poll::Ready(state.trailers.take().map(|all| Ok(Frame::trailers(all)))),
            Some(Err(error)) => Poll::Ready(Some(Err(*error))),
            None => {
                match &mut state.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}

fn drain(data: &mut VecDeque<Bytes>) -> usize {
    data.drain(..).map(|data| data.len()).sum()
}

/// Without the lock: it may run the reader.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
