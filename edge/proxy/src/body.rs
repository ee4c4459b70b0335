//! Bodies: one streaming type for all protocols, and the request body that can be taken back.
//!
//! A request body may be *gated*: it is not read until the agent asks for it with
//! `100 Continue` (it leased a sandbox), so that a refusing agent's request can go to the next one.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep},
};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A streaming body, whatever protocol it came by.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// How long a gated body waits to be asked for before it goes out unasked.
const GATE_WAIT: Duration = Duration::from_secs(1);

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("no byte of the body moved for {0:?}")]
    Idle(Duration),
    #[error("the body was taken back for another attempt")]
    TakenBack,
}

#[derive(Debug)]
struct Shared {
    body: Mutex<Option<Body>>,
    started: AtomicBool,
    finished: AtomicBool,
    bytes: AtomicU64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Body>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The edge's end of a request body: counts it, and takes it back while it is unread.
#[derive(Debug, Clone)]
pub(crate) struct BodyHandle(Arc<Shared>);

impl BodyHandle {
    pub(crate) fn new(body: Body) -> Self {
        let finished = AtomicBool::new(body.is_end_stream());
        let body = Mutex::new(Some(body));
        let (started, bytes) = (AtomicBool::new(false), AtomicU64::new(0));
        Self(Arc::new(Shared { body, started, finished, bytes }))
    }

    /// What goes into one attempt; the opener lets a gated body flow.
    pub(crate) fn attempt(&self, gated: bool, idle: Duration) -> (RequestBody, Option<GateOpener>) {
        let (opener, gate) = if gated && !self.is_finished() {
            let (open_tx, open_rx) = oneshot::channel();
            let gate = Gate { opened: open_rx, fallback: Box::pin(sleep(GATE_WAIT)) };
            (Some(GateOpener(Mutex::new(Some(open_tx)))), Some(gate))
        } else {
            (None, None)
        };
        (RequestBody { shared: Arc::clone(&self.0), gate, idle: IdleTimer::new(idle) }, opener)
    }

    /// Whether another attempt may be made: nothing was read from the client.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.0.started.load(Ordering::Acquire)
    }

    /// Takes the body out of a failed attempt into a new handle; `None` if it was read from.
    pub(crate) fn take_back(&self) -> Option<Self> {
        let mut body = self.0.lock();
        if !self.is_untouched() {
            return None;
        }
        body.take().map(Self::new)
    }

    /// Whether the client sent all of it.
    pub(crate) fn is_finished(&self) -> bool {
        self.0.finished.load(Ordering::Acquire)
    }
}

/// Opens the gate of one attempt's body.
#[derive(Debug)]
pub(crate) struct GateOpener(Mutex<Option<oneshot::Sender<()>>>);

impl GateOpener {
    pub(crate) fn open(&self) {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            let _ = sender.send(()); // the attempt is over: nothing to open
        }
    }
}

#[derive(Debug)]
struct Gate {
    opened: oneshot::Receiver<()>,
    fallback: Pin<Box<Sleep>>,
}

/// A request body on its way to an agent.
#[derive(Debug)]
pub(crate) struct RequestBody {
    shared: Arc<Shared>,
    gate: Option<Gate>,
    idle: IdleTimer,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(gate) = &mut self.gate {
            let opened = Pin::new(&mut gate.opened).poll(cx).is_ready();
            if !opened {
                ready!(gate.fallback.as_mut().poll(cx));
            }
            self.gate = None;
        }
        let this = self.get_mut();
        let mut guard = this.shared.lock();
        let Some(body) = guard.as_mut() else {
            return Poll::Ready(Some(Err(BodyError::TakenBack.into())));
        };
        this.shared.started.store(true, Ordering::Release);
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                return this.idle.poll_expired(cx).map(|error| Some(Err(error.into())));
            }
        };
        this.idle.reset();
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                this.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
                if guard.as_ref().is_some_and(HttpBody::is_end_stream) {
                    this.shared.finished.store(true, Ordering::Release);
                }
            }
            None => this.shared.finished.store(true, Ordering::Release),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.shared.lock().as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.shared.lock().as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

/// Runs while a body is waited for; starts when first asked, so an idle body costs no timer.
#[derive(Debug)]
pub(crate) struct IdleTimer {
    after: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl IdleTimer {
    pub(crate) fn new(after: Duration) -> Self {
        Self { after, sleep: None, running: false }
    }

    /// A frame came: the wait is over.
    pub(crate) fn reset(&mut self) {
        self.running = false;
    }

    /// Ready with the error once nothing has come for too long.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let after = self.after;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(after)));
        if !self.running {
            self.running = true;
            sleep.as_mut().reset(Instant::now() + after);
        }
        sleep.as_mut().poll(cx).map(|()| BodyError::Idle(after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gated_body_is_not_read_before_it_is_asked_for_and_can_be_taken_back() {
        let handle = BodyHandle::new(full("hello"));
        let (mut first, opener) = handle.attempt(true, Duration::from_secs(60));
        assert!(tokio::time::timeout(Duration::from_millis(10), first.frame()).await.is_err());
        let again = handle.take_back().expect("nothing was read");
        opener.unwrap().open();
        assert!(first.frame().await.unwrap().is_err(), "the first attempt has no body any more");
        let (second, opener) = again.attempt(true, Duration::from_secs(60));
        opener.unwrap().open();
        assert_eq!(second.collect().await.unwrap().to_bytes(), "hello");
        assert!(again.is_finished());
        assert!(again.take_back().is_none(), "it was read");
    }

    #[tokio::test]
    async fn silent_body_ends_with_an_error() {
        let (_sender, channel) = http_body_util::channel::Channel::<Bytes, BoxError>::new(1);
        let handle = BodyHandle::new(channel.boxed_unsync());
        let (mut body, _) = handle.attempt(false, Duration::from_millis(20));
        assert!(body.frame().await.unwrap().is_err());
    }
}
