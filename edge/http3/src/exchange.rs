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
    /// The answer made a tunnel of it: the client is told at once what is no longer wanted.
    tunnel: bool,
    /// The request has come to its end, or nobody wants the rest.
    received: bool,
    waker: Option<Waker>,
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
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
            tunnel: false,
            received: false,
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
        state.wait(cx);
        Poll::Pending
    }

    /// The final answer begins, behind these interim ones.
    pub(crate) fn begin(&self, tunnel: bool) -> BytesMut {
        let mut state = self.lock();
        state.phase = Phase::Begun;
        state.tunnel = tunnel;
        let unread = if tunnel { state.unread.take() } else { None };
        let interim = std::mem::take(&mut state.interim);
        drop(state);
        stop(unread, Code::H3_NO_ERROR);
        interim
    }

    /// Whether the answer made a tunnel of it.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.lock().tunnel
    }

    /// Nothing more of the request will be read.
    pub(crate) fn end_request(&self) {
        let mut state = self.lock();
        state.received = true;
        state.wake();
    }

    /// Ready once nothing more of the request will be read.
    pub(crate) fn poll_received(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.received {
            return Poll::Ready(());
        }
        state.wait(cx);
        Poll::Pending
    }

    /// Whether the request turned out to be wrong, and with which code.
    pub(crate) fn wrong(&self) -> Option<Code> {
        self.lock().wrong
    }

    /// The request is wrong: the answer is to be given up.
    pub(crate) fn set_wrong(&self, link: &Link, code: Code) {
        let before = {
            let mut state = self.lock();
            state.wake();
            state.wrong.replace(code)
        };
        if before.is_none() {
            link.count_provoked();
        }
    }

    /// The client gave the request up, in one direction or the other: that counts once.
    pub(crate) fn set_reset(&self, link: &Link) {
        let (before, unanswered) = {
            let mut state = self.lock();
            (std::mem::replace(&mut state.reset, true), state.phase == Phase::Waiting)
        };
        if !before {
            link.count_reset(unanswered);
        }
    }

    /// The request's body is no longer wanted. The client is told so after the answer, because many
    /// clients drop an answer when their body is refused before it. A tunnel has no such order.
    pub(crate) fn leave_unread(&self, recv: RecvStream) {
        let mut state = self.lock();
        let code = match state.phase {
            Phase::Over(code) => code,
            Phase::Begun if state.tunnel => Code::H3_NO_ERROR,
            Phase::Waiting | Phase::Begun => {
                state.unread = Some(recv);
                return;
            }
        };
        drop(state);
        stop(Some(recv), code);
    }

    /// The answer is over: what is left of the request, now or later, is stopped with `code`.
    pub(crate) fn end(&self, code: Code) {
        let unread = {
            let mut state = self.lock();
            state.phase = Phase::Over(code);
            state.unread.take()
        };
        stop(unread, code);
    }
}

fn stop(recv: Option<RecvStream>, code: Code) {
    if let Some(mut recv) = recv {
        let _ = recv.stop(varint(code)); // it may have ended
    }
}
