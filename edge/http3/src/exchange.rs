//! What the two directions of one request have to tell each other.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use quinn::RecvStream;

use crate::{
    InterimError,
    link::{Link, varint},
    wire::{Code, response_frame},
};

/// Most interim answers of one request.
const INTERIM_MAX: u32 = 64;
/// Most bytes of interim answers that wait to be sent.
const INTERIM_BYTES_MAX: usize = 64 * 1024;

/// Sends 1xx answers before a request's final one. Cheap to clone; useless after it.
#[derive(Clone)]
pub struct Interim(Arc<Exchange>);

impl Interim {
    pub(crate) const fn new(exchange: Arc<Exchange>) -> Self {
        Self(exchange)
    }

    /// Sends an interim answer: it is on its way when this returns, and before the final one.
    ///
    /// # Errors
    ///
    /// [`InterimError`]: it is not 1xx, is 101 (which HTTP/3 does not have), is one of very many,
    /// or the final answer has begun.
    pub fn send(&self, answer: Response<()>) -> Result<(), InterimError> {
        let status = answer.status();
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(InterimError);
        }
        let mut state = self.0.lock();
        let room = state.interims < INTERIM_MAX && state.interim.len() < INTERIM_BYTES_MAX;
        if state.phase != Phase::Waiting || !room {
            return Err(InterimError);
        }
        state.interims += 1;
        response_frame(&answer.into_parts().0, &mut state.interim);
        state.wake();
        Ok(())
    }
}

impl fmt::Debug for Interim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interim").finish_non_exhaustive()
    }
}

/// Where the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not begun: interim answers may go.
    Waiting,
    /// Its head is about to be sent.
    Begun,
    /// Nothing more will be sent; what is left of the request is stopped with this code.
    Over(Code),
}

/// What has come up for the answering side.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Interim answers to send.
    Interim(Bytes),
    /// The request turned out to be wrong: the stream has to be reset.
    Wrong(Code),
}

#[derive(Debug)]
struct State {
    phase: Phase,
    interim: BytesMut,
    interims: u32,
    wrong: Option<Code>,
    reset: bool,
    unread: Option<RecvStream>,
    waker: Option<Waker>,
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The state that a request's body, its interim answers and its answer share.
#[derive(Debug)]
pub(crate) struct Exchange {
    state: Mutex<State>,
}

impl Exchange {
    pub(crate) fn new() -> Self {
        let state = State {
            phase: Phase::Waiting,
            interim: BytesMut::new(),
            interims: 0,
            wrong: None,
            reset: false,
            unread: None,
            waker: None,
        };
        Self { state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready once there is something for the answering side.
    pub(crate) fn poll_notice(&self, cx: &mut Context<'_>) -> Poll<Notice> {
        let mut state = self.lock();
        if let Some(code) = state.wrong {
            return Poll::Ready(Notice::Wrong(code));
        }
        if !state.interim.is_empty() {
            return Poll::Ready(Notice::Interim(state.interim.split().freeze()));
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// The final answer begins, behind these interim ones.
    pub(crate) fn begin(&self) -> BytesMut {
        let mut state = self.lock();
        state.phase = Phase::Begun;
        std::mem::take(&mut state.interim)
    }

    /// Whether the request turned out to be wrong, and with which code.
    pub(crate) fn wrong(&self) -> Option<Code> {
        self.lock().wrong
    }

    /// The request is wrong: the answer is to be given up.
    pub(crate) fn set_wrong(&self, code: Code) {
        let mut state = self.lock();
        state.wrong = Some(code);
        state.wake();
    }

    /// The client gave the request up, in one direction or the other: that counts once.
    pub(crate) fn set_reset(&self, link: &Link) {
        let before = std::mem::replace(&mut self.lock().reset, true);
        if !before {
            link.count_reset();
        }
    }

    /// The request's body is no longer wanted. The client is told so after the answer, because many
    /// clients drop an answer when their body is refused before it.
    pub(crate) fn leave_unread(&self, mut recv: RecvStream) {
        let mut state = self.lock();
        match state.phase {
            Phase::Over(code) => {
                let _ = recv.stop(varint(code)); // it may have ended
            }
            Phase::Waiting | Phase::Begun => state.unread = Some(recv),
        }
    }

    /// The answer is over: what is left of the request, now or later, is stopped with `code`.
    pub(crate) fn end(&self, code: Code) {
        let unread = {
            let mut state = self.lock();
            state.phase = Phase::Over(code);
            state.unread.take()
        };
        if let Some(mut recv) = unread {
            let _ = recv.stop(varint(code)); // it may have ended
        }
    }
}
