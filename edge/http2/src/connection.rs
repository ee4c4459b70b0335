//! A server connection: its turns, and how it ends.

mod farewell;

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use farewell::End;
use http::{Request, Response};
use http_body::Body;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    BoxError, Config, Counters, RecvBody, ServeError,
    answer::{self, Asked},
    drain::{Drain, Word},
    inbound::{Fault, Inbound, OPAQUE, Opened},
    input::Input,
    keep_alive::{KeepAlive, Verdict},
    limits::Limits,
    link::Link,
    tasks::Tasks,
    wire::{
        Code,
        frame::{MAX_31_BITS, PREFACE, kind, put_go_away, put_number, put_ping},
        settings::{DEFAULT_WINDOW, put_settings},
    },
};

/// As much fills a TLS record: with more it would not get cheaper.
const WORTH_WRITING_BYTES: usize = 16 * 1024;
/// Rounds of one turn, after which others have theirs.
const ROUNDS_MAX: u32 = 32;

/// How a connection ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// Requests that reached the service.
    pub requests: u64,
}

/// Serves a connection until the client leaves, an error, or `drain` and the end of its streams.
///
/// Requests carry a [`Protocol`](crate::Protocol) in their extensions if they are an extended CONNECT: a
/// 2xx answer makes the two bodies the directions of a tunnel. [`RecvBody::interim`] sends 1xx answers.
///
/// # Errors
///
/// [`ServeError`]; a client that leaves is none.
///
/// # Cancel safety
///
/// Dropping the future closes the connection and drops its requests.
pub async fn serve<I, S, F, B>(
    io: I,
    config: Arc<Config>,
    counters: Arc<Counters>,
    service: S,
    drain: CancellationToken,
) -> Result<Ended, ServeError>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Fn(Request<RecvBody>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let link = Arc::new(Link::new(config, counters));
    let start = |opened: Opened| {
        let Opened { id, head, inbox } = opened;
        let asked = Asked::new(&head.parts.method);
        let (left, tunnel) = (head.content_length, head.is_connect());
        let body = RecvBody::new(Arc::clone(&link), id, inbox, left, tunnel);
        answer::run(Arc::clone(&link), id, asked, service(Request::from_parts(head.parts, body)))
    };
    let mut connection = Connection::new(io, Arc::clone(&link), drain);
    let end = poll_fn(|cx| connection.poll_turns(cx, &start)).await;
    connection.end(end).await
}

struct Connection<I, T> {
    io: I,
    link: Arc<Link>,
    input: Input,
    inbound: Inbound,
    tasks: Tasks<T>,
    keep_alive: KeepAlive,
    drain: Drain,
    last_read: Instant,
    requests: u64,
    /// The preface has come.
    prefaced: bool,
    /// What is to be written waits for a turn of others.
    waited: bool,
}

impl<I, T> Connection<I, T>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T: Future<Output = ()>,
{
    fn new(io: I, link: Arc<Link>, drain: CancellationToken) -> Self {
        let (config, now) = (&link.config, Instant::now());
        {
            let mut core = link.lock();
            let window = config.connection_window_bytes.max(DEFAULT_WINDOW);
            put_settings(core.out.tail(), config);
            if window > DEFAULT_WINDOW {
                put_number(core.out.tail(), kind::WINDOW_UPDATE, 0, window - DEFAULT_WINDOW);
            }
        }
        Self {
            io,
            input: Input::default(),
            inbound: Inbound::new(Limits::new(now)),
            tasks: Tasks::new(Arc::clone(&link.bell)),
            keep_alive: KeepAlive::new(now, config.handshake_timeout, config.idle_timeout),
            drain: Drain::new(drain),
            last_read: now,
            requests: 0,
            prefaced: false,
            waited: false,
            link,
        }
    }

    /// Turns, until nothing more can be done now: read, run, write.
    fn poll_turns(&mut self, cx: &mut Context<'_>, start: &impl Fn(Opened) -> T) -> Poll<End> {
        self.link.bell.begin_turn(cx);
        let (mut readable, mut writable, mut rounds) = (true, true, 0);
        loop {
            // Without a budget everything says that it is not ready, and to ask again at once.
            if rounds == ROUNDS_MAX || !tokio::task::coop::has_budget_remaining() {
                self.link.bell.yield_turn();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            rounds += 1;
            if let Err(end) = self.take_input(cx, &mut readable, start) {
                return Poll::Ready(end);
            }
            let ran = self.tasks.run();
            self.say_what_is_due(cx);
            if writable {
                if self.lets_others_first(cx) {
                    return Poll::Pending;
                }
                match self.link.lock().out.poll_flush(cx, &mut self.io) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(End::Io(error)),
                    Poll::Pending => writable = false,
                }
            }
            let writer = self.link.lock().next_writer();
            if let Some(slot) = writer {
                self.tasks.wake(slot);
            }
            // What was written may have made room for what was not read.
            let reads_on = readable && !self.is_full();
            if !reads_on && !ran && writer.is_none() && self.link.bell.end_turn() {
                break;
            }
        }
        let (streams, waiting) = {
            let core = self.link.lock();
            (core.streams.len(), core.out.len())
        };
        if streams == 0 && waiting == 0 {
            if self.drain.is_last() {
                return Poll::Ready(End::Drained);
            }
            self.rest();
        }
        match self.keep_alive.poll(cx, self.last_read, streams > 0) {
            Poll::Ready(Verdict::Ask) => {
                put_ping(self.link.lock().out.tail(), 0, OPAQUE);
                cx.waker().wake_by_ref(); // to send it
                Poll::Pending
            }
            Poll::Ready(verdict) => Poll::Ready(End::Verdict(verdict)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Where answers come in numbers, what is to be written waits for one turn of the worker's other
    /// tasks: more of them begin meanwhile, and one write for all costs a fraction.
    fn lets_others_first(&mut self, cx: &mut Context<'_>) -> bool {
        let many = {
            let mut core = self.link.lock();
            (1..WORTH_WRITING_BYTES).contains(&core.out.len()) && core.has_many_answers()
        };
        self.waited = many && !self.waited;
        if self.waited {
            let _ = pin!(tokio::task::yield_now()).poll(cx); // wakes us then
            self.link.bell.yield_turn();
        } else {
            self.link.lock().begun = 0;
        }
        self.waited
    }

    /// Does what the frames say that are there; reads more if there is none. `readable` is false when
    /// the client has sent nothing more: the task is woken when it has.
    fn take_input(
        &mut self,
        cx: &mut Context<'_>,
        readable: &mut bool,
        start: &impl Fn(Opened) -> T,
    ) -> Result<(), End> {
        let mut progress = false;
        loop {
            if self.is_full() {
                *readable = true; // there may be more, which nobody is told of
                return Ok(());
            }
            if self.take_frame(start)? {
                progress = true;
                continue;
            }
            if progress || !*readable {
                return Ok(());
            }
            match self.input.poll_fill(cx, &mut self.io) {
                Poll::Ready(Ok(0)) => return Err(End::Gone),
                Poll::Ready(Ok(_)) => {
                    self.last_read = Instant::now();
                    self.inbound.limits.tick(self.last_read);
                    self.keep_alive.hear();
                    progress = true;
                }
                Poll::Ready(Err(error)) => return Err(End::Io(error)),
                Poll::Pending => *readable = false,
            }
        }
    }

    /// A client that does not read what it asked for is not read either.
    fn is_full(&self) -> bool {
        self.link.lock().out.len() > self.link.config.send_buffer_bytes
    }

    /// Does what the next frame says. False: none is there.
    fn take_frame(&mut self, start: &impl Fn(Opened) -> T) -> Result<bool, End> {
        if !self.prefaced {
            let bytes = self.input.bytes();
            let there = bytes.len().min(PREFACE.len());
            if bytes[..there] != PREFACE[..there] {
                let reason = "the connection does not begin with the preface";
                return Err(End::Fault(Fault::Protocol(Code::PROTOCOL_ERROR, reason)));
            }
            if there < PREFACE.len() {
                return Ok(false);
            }
            self.input.advance(PREFACE.len());
            self.prefaced = true;
        }
        let too_large = |code| End::Fault(Fault::Protocol(code, "a frame is too large"));
        let Some(header) = self.input.frame().map_err(too_large)? else { return Ok(false) };
        let began = self.inbound.began;
        let opened = self.inbound.frame(&header, &mut self.input, &self.link);
        if let Some(opened) = opened.map_err(End::Fault)? {
            self.requests += 1;
            let id = opened.id;
            let slot = self.tasks.insert(|| start(opened));
            if let Some(stream) = self.link.lock().streams.get(id) {
                stream.slot = Some(slot);
            }
        }
        if !began && self.inbound.began {
            self.keep_alive.begin(self.last_read);
        }
        self.bury();
        Ok(true)
    }

    /// Drops the futures of streams that are no more.
    fn bury(&mut self) {
        loop {
            // Dropping one takes the lock.
            let Some(slot) = self.link.lock().doomed.pop() else { return };
            self.tasks.remove(slot);
        }
    }

    /// The two words of a drain.
    fn say_what_is_due(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(word) = self.drain.poll(cx, self.inbound.pong) {
            let mut core = self.link.lock();
            match word {
                Word::First => {
                    self.inbound.pong = false;
                    put_go_away(core.out.tail(), MAX_31_BITS, Code::NO_ERROR);
                    put_ping(core.out.tail(), 0, OPAQUE);
                }
                Word::Last => {
                    self.inbound.closing = true;
                    let last = core.streams.last();
                    put_go_away(core.out.tail(), last, Code::NO_ERROR);
                }
            }
        }
        self.bury();
    }

    /// Gives memory back while nothing is under way.
    fn rest(&mut self) {
        self.input.shrink();
        self.tasks.shrink();
        let mut core = self.link.lock();
        core.out.shrink();
        core.streams.shrink();
    }
}
