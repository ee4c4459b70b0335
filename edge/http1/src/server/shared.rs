//! What a connection's task and the tasks that hold its request's parts tell each other.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use http::{HeaderMap, Response, StatusCode, Version};

use crate::{decode::Decoder, io::Reader};

/// Interim answers that may wait to be written.
const INTERIMS_MAX: usize = 16;

/// A request body that came back from whoever read it.
#[derive(Debug)]
pub(super) struct Returned {
    pub(super) reader: Reader,
    pub(super) rest: Rest,
}

/// What is left of a body that came back.
#[derive(Debug)]
pub(super) enum Rest {
    /// This, perhaps nothing.
    Some(Decoder),
    /// Nothing that could be skipped.
    Gone,
    /// It broke a rule.
    Malformed,
    /// It came too slowly.
    TooSlow,
}

/// Whether a tunnel's bytes may flow.
#[derive(Debug, Default)]
pub(super) enum Tunnel {
    /// Not decided.
    #[default]
    Pending,
    /// They may: the body takes the reader.
    Open(Reader),
    /// The body has taken it.
    Taken,
    /// They may not.
    Refused,
}

#[derive(Debug, Default)]
pub(super) struct State {
    connection: Option<Waker>,
    body: Option<Waker>,
    /// Which request this is about: handles of earlier ones do nothing.
    request: u64,
    interims: Vec<(StatusCode, HeaderMap)>,
    interims_open: bool,
    pub(super) wants_continue: bool,
    pub(super) returned: Option<Returned>,
    pub(super) tunnel: Tunnel,
}

/// One per connection, used for each of its requests.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<State>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a request; returns its number.
    pub(super) fn begin(&self, version: Version) -> u64 {
        let mut state = self.lock();
        state.request += 1;
        state.interims.clear();
        state.interims_open = version == Version::HTTP_11;
        state.wants_continue = false;
        state.returned = None;
        state.tunnel = Tunnel::Pending;
        state.request
    }

    /// The final answer begins: what is returned comes before it, nothing else does.
    pub(super) fn close_interims(&self) -> Vec<(StatusCode, HeaderMap)> {
        let mut state = self.lock();
        state.interims_open = false;
        state.wants_continue = false;
        state.take_interims()
    }

    /// The body is wanted: a client that waits for that is told, unless its answer has begun and a
    /// `100` would stand in the middle of it.
    pub(super) fn ask_to_continue(&self) {
        {
            let mut state = self.lock();
            state.wants_continue = state.interims_open;
        }
        self.wake_connection();
    }

    pub(super) fn wake_connection(&self) {
        let waker = self.lock().connection.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn wake_body(&self) {
        let waker = self.lock().body.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    pub(super) fn connection_waits(&mut self, cx: &Context<'_>) {
        match &mut self.connection {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.connection = Some(cx.waker().clone()),
        }
    }

    pub(super) fn body_waits(&mut self, cx: &Context<'_>) {
        self.body = Some(cx.waker().clone());
    }

    pub(super) fn take_interims(&mut self) -> Vec<(StatusCode, HeaderMap)> {
        std::mem::take(&mut self.interims)
    }
}

/// Sends 1xx answers before a request's final one. Cheap to clone; useless after it.
#[derive(Clone)]
pub struct Interim {
    pub(super) shared: Arc<Shared>,
    pub(super) request: u64,
}

/// Why an interim answer is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InterimError {
    /// Not a 1xx, or `101`, which is a final answer here.
    #[error("not an interim status")]
    Status,
    /// The final answer has begun, or the client speaks HTTP/1.0.
    #[error("an interim answer comes too late or to a client that knows none")]
    Closed,
    /// Too many wait to be written.
    #[error("too many interim answers wait to be written")]
    Full,
}

impl Interim {
    /// Queues an interim answer.
    ///
    /// # Errors
    ///
    /// [`InterimError`] says why it won't be sent.
    pub fn send(&self, answer: Response<()>) -> Result<(), InterimError> {
        let (parts, ()) = answer.into_parts();
        let status = parts.status;
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(InterimError::Status);
        }
        let mut state = self.shared.lock();
        if state.request != self.request || !state.interims_open {
            return Err(InterimError::Closed);
        }
        if state.interims.len() == INTERIMS_MAX {
            return Err(InterimError::Full);
        }
        state.interims.push((status, parts.headers));
        drop(state);
        self.shared.wake_connection();
        Ok(())
    }
}

impl fmt::Debug for Interim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interim").field("request", &self.request).finish_non_exhaustive()
    }
}
