//! HTTP/1.1: one request after the other, driven by whoever asks.
//!
//! ```text
//! Idle --start--> Busy --end of the body--> Idle
//!                  |                          (or Spent: closed, until-close, not all was sent)
//!                  `--error, cancelled--> stays Busy, which nothing leaves
//! ```
//!
//! No task and no channel stands between a caller and its socket: that is most of what makes a
//! request cheap here. Sending goes on while an answer is read, so a server that answers while it
//! is being spoken to does not deadlock with us.

mod body;
mod head;
mod output;
#[cfg(test)]
mod tests;

use std::{
    future::poll_fn,
    io,
    pin::pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, BytesMut};
use http::{HeaderValue, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    time::Instant,
};

use crate::{CallError, Request, dial::Stream};
use body::{Decoder, Piece};
use head::{EndFinder, Framing, HEAD_MAX_BYTES, Violation};
use output::Output;

pub(crate) use head::Head;

/// Most that is asked for at once, bytes: first, and if answers fill that again and again.
const READ_BYTES: (usize, usize) = (8 * 1024, 256 * 1024);
/// Most answers of 1xx before an answer.
const INTERIM_MAX: u32 = 16;

const HEAD: &str = "the answer's head";
const BODY: &str = "the answer's body";

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire<S = Stream> {
    stream: S,
    /// The header line that says the host.
    host: Box<[u8]>,
    input: BytesMut,
    /// How much is asked for at once.
    read_bytes: usize,
    output: Output,
    body: Decoder,
    keep_alive: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Busy,
    Spent,
}

impl Wire {
    /// Whether another request may be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Idle && self.stream.is_open()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Speaks HTTP/1.1 to whoever calls itself `authority`.
    pub(crate) fn new(stream: S, authority: &str) -> Result<Self, CallError> {
        let host: HeaderValue = authority.parse().map_err(CallError::at("say the host's name"))?;
        let host = [b"host: ", host.as_bytes(), b"\r\n"].concat().into();
        Ok(Self {
            stream,
            host,
            input: BytesMut::new(),
            read_bytes: READ_BYTES.0,
            output: Output::default(),
            body: Decoder::new(Framing::Length(0)),
            keep_alive: true,
            state: State::Idle,
        })
    }

    /// Sends a request and reads the head of its answer, and says when that began to come.
    pub(crate) async fn start(&mut self, request: &Request) -> Result<(Head, Instant), CallError> {
        self.check_quiet()?;
        self.output.put(request, &self.host)?;
        self.state = State::Busy;
        let mut first_byte = None;
        for _ in 0..=INTERIM_MAX {
            let mut end = EndFinder::default();
            let length = loop {
                if let Some(length) = end.find(&self.input).map_err(broken)? {
                    break length;
                }
                if self.fill(HEAD).await? == 0 {
                    return Err(CallError::Closed { step: HEAD });
                }
                first_byte.get_or_insert_with(Instant::now);
            };
            let head = head::parse(&self.input[..length], request.method()).map_err(broken)?;
            self.input.advance(length);
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(broken(Violation::SwitchedProtocols));
            }
            if !head.status.is_informational() {
                self.body = Decoder::new(head.framing);
                self.keep_alive = head.keep_alive;
                self.rest_if_over();
                return Ok((head, first_byte.unwrap_or_else(Instant::now)));
            }
        }
        Err(broken(Violation::TooManyInterim(INTERIM_MAX)))
    }

    /// Reads on and shows the next bytes of the body to `take`; `None` at its end.
    pub(crate) async fn next<T>(
        &mut self,
        take: impl FnOnce(&mut BytesMut, usize) -> T,
    ) -> Result<Option<T>, CallError> {
        loop {
            if self.body.is_over() {
                return Ok(None);
            }
            let Piece { skip, data } = self.body.next(&self.input).map_err(broken)?;
            self.input.advance(skip);
            if data > 0 {
                let taken = take(&mut self.input, data);
                self.rest_if_over();
                return Ok(Some(taken));
            }
            self.rest_if_over();
            if !self.body.is_over() && self.fill(BODY).await? == 0 {
                if !self.body.end() {
                    return Err(CallError::Closed { step: BODY });
                }
                self.rest_if_over();
            }
        }
    }

    /// Whether the body has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.body.is_over()
    }

    /// After an answer's last byte, the connection may be used again, or not.
    fn rest_if_over(&mut self) {
        if self.body.is_over() {
            let again = self.keep_alive && self.output.is_done();
            self.state = if again { State::Idle } else { State::Spent };
        }
    }

    /// Between two requests nothing may come. To look costs no system call: the runtime knows.
    fn check_quiet(&mut self) -> Result<(), CallError> {
        const STEP: &str = "the next request";
        if self.state != State::Idle {
            return Err(CallError::Closed { step: STEP });
        }
        if self.input.is_empty() {
            let mut context = Context::from_waker(Waker::noop());
            match self.poll_read(&mut context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(end) => {
                    self.state = State::Spent;
                    end.map_err(CallError::lost(STEP))?;
                    return Err(CallError::Closed { step: STEP });
                }
            }
        }
        self.state = State::Spent;
        Err(broken(Violation::Surplus))
    }

    /// Sends what is left to send and waits for more to read; 0 if there will be nothing.
    async fn fill(&mut self, step: &'static str) -> Result<usize, CallError> {
        poll_fn(|context| self.poll_fill(context)).await.map_err(CallError::lost(step))
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut unsent = None;
        if self.output.is_pending()
            && let Poll::Ready(Err(error)) = self.output.poll_send(&mut self.stream, context)
        {
            // A server may refuse a request before it has read it: its answer may be waiting.
            self.output.give_up();
            unsent = Some(error);
        }
        let read = ready!(self.poll_read(context));
        match (read, unsent) {
            (Ok(0) | Err(_), Some(unsent)) => Poll::Ready(Err(unsent)),
            (read, _) => Poll::Ready(read),
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() - self.input.len() < self.read_bytes / 4 {
            self.input.reserve(self.read_bytes);
        }
        let space = self.input.capacity() - self.input.len();
        let read = ready!(pin!(self.stream.read_buf(&mut self.input)).poll(context));
        if matches!(read, Ok(bytes) if bytes == space) && self.read_bytes < READ_BYTES.1 {
            self.read_bytes *= 2;
        }
        Poll::Ready(read)
    }
}

fn broken(violation: Violation) -> CallError {
    match violation {
        Violation::HeadTooLarge => CallError::TooLarge { what: HEAD, max_bytes: HEAD_MAX_BYTES },
        violation => CallError::protocol(violation),
    }
}
