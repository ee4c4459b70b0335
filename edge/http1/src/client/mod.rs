//! A client connection: one request at a time, driven by whoever waits for its answer.
//!
//! There is no task behind a connection. Only a request body that is still being sent when its
//! answer begins gets one, which ends with the answer.

mod answer;
mod upload;

use std::{
    fmt,
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Response, StatusCode, header, request};
use http_body::Body;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};

pub use self::answer::{Answer, AnswerError};
use self::upload::{Upload, Uploading};
use crate::{
    BoxError,
    encode::{self, Framing},
    head::{self, Finder, HeadFault},
    io::{Reader, Writer},
    timer::Deadline,
};

/// Largest head of an answer: a gateway's own fields come on top of a server's.
const HEAD_MAX_BYTES: usize = 128 * 1024;
/// Most interim answers to one request.
const INTERIMS_MAX: usize = 32;

/// An open connection to a server, ready for a request. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    // On the heap: a connection goes from hand to hand several times per request.
    reader: Box<Reader>,
    writer: Box<Writer>,
    deadline: Deadline,
}

/// How a request is sent.
pub struct Sending<'a> {
    /// Fields besides those of the request's map, as they go onto the wire: each `name: value` with its
    /// CRLF. None of them may stand in the map, too, or frame the body.
    pub fields: &'a [u8],
    /// When an answer has to have begun.
    pub deadline: Instant,
    /// The body waits until the server asks for it with `100`, until this moment at most. Meant for
    /// a request that has `Expect: 100-continue`.
    pub hold_body_until: Option<Instant>,
    /// Gets every 1xx but `101`.
    pub on_interim: &'a mut (dyn FnMut(Response<()>) + Send),
}

impl fmt::Debug for Sending<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connection was closed before the server can have seen anything of the request: it may be
    /// sent again.
    #[error("the connection was closed before the request was sent")]
    Unsent(#[source] io::Error),
    /// The connection broke; the server may have seen the request.
    #[error("the connection broke before the answer began")]
    Broken(#[source] io::Error),
    /// The server closed the connection instead of answering.
    #[error("the server closed the connection without an answer")]
    Closed,
    /// The answer cannot be understood.
    #[error("the answer is not HTTP")]
    Answer(#[from] HeadFault),
    /// The request's body broke off.
    #[error("the request's body broke off")]
    Body(#[source] BoxError),
    /// The deadline passed.
    #[error("the answer did not begin in time")]
    Late,
}

impl Connection {
    /// Takes a TCP connection.
    #[must_use]
    pub fn from_tcp(stream: TcpStream) -> Self {
        let (read, write) = stream.into_split();
        Self::from_halves(Box::new(read), Box::new(write))
    }

    /// Takes any connection.
    pub fn new<I: AsyncRead + AsyncWrite + Send + Unpin + 'static>(io: I) -> Self {
        let (read, write) = tokio::io::split(io);
        Self::from_halves(Box::new(read), Box::new(write))
    }

    fn from_halves(
        read: Box<dyn AsyncRead + Send + Unpin>,
        write: Box<dyn AsyncWrite + Send + Unpin>,
    ) -> Self {
        let (reader, writer) = (Reader::new(read, &[]).into(), Writer::new(write).into());
        Self { reader, writer, deadline: Deadline::default() }
    }

    /// Whether the server still seems to be there, and has said nothing unasked.
    pub fn is_reusable(&mut self) -> bool {
        self.reader.is_quiet()
    }

    /// Gives buffers back while nothing is asked.
    pub fn shrink(&mut self) {
        self.reader.shrink();
        self.writer.shrink();
    }

    /// Sends a request and waits for the head of its answer. The body is sent with
    /// `Content-Length` if its size is known and chunked else.
    ///
    /// If the answer is `101`, the answer's body and `body` are the directions of a tunnel.
    ///
    /// # Errors
    ///
    /// [`SendError`]; only after [`SendError::Unsent`] the same request may be sent again. `body`
    /// was not polled then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub async fn send<B>(
        mut self,
        parts: &request::Parts,
        body: B,
        sending: Sending<'_>,
    ) -> Result<Response<Answer>, SendError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let upgrade = parts.headers.contains_key(header::UPGRADE);
        let framing = framing(parts, &body, upgrade);
        self.writer.progress = false;
        encode::request(&mut self.writer.buf, parts, sending.fields, framing);
        let held = sending.hold_body_until.is_some() || upgrade;
        let mut upload = (framing != Framing::None || upgrade).then(|| Upload::new(body, framing));
        let mut exchange = Exchange {
            connection: &mut self,
            finder: Finder::default(),
            held,
            hold: Deadline::default(),
            answered: false,
            flushed: false,
            polled: false,
        };
        if let Some(until) = sending.hold_body_until
            && !upgrade
        {
            exchange.hold.set_at(until);
        }
        exchange.connection.deadline.set_at(sending.deadline);
        let head = exchange.wait(&mut upload, sending.on_interim).await?;
        let unasked = exchange.held && !upgrade;
        self.answer(head, parts, upload, unasked)
    }

    fn answer<B>(
        mut self,
        head: head::ResponseHead,
        request: &request::Parts,
        upload: Option<Upload<B>>,
        unasked: bool,
    ) -> Result<Response<Answer>, SendError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let head::ResponseHead { parts, seen, keep_alive } = head;
        self.deadline.clear();
        let tunnel = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        if tunnel && !request.headers.contains_key(header::UPGRADE) {
            return Err(HeadFault::Malformed("nobody asked for another protocol").into());
        }
        let decoder = if tunnel {
            Some(crate::decode::Decoder::Close)
        } else {
            crate::framing::response_body(&parts, seen, &request.method)?
        };
        let Self { reader, writer, deadline } = self;
        let uploading = match upload {
            Some(mut upload) if tunnel => {
                upload.become_tunnel();
                Uploading::spawn(upload, writer)
            }
            // The server answers without having asked for the body: it is not sent (RFC 9110
            // 10.1.1), and the connection is of no more use.
            Some(_) if unasked => Uploading::Done(None),
            // A request for an upgrade that was refused: its tunnel has no bytes.
            Some(upload) if !upload.is_done() && request.headers.contains_key(header::UPGRADE) => {
                Uploading::Done(Some(writer))
            }
            Some(upload) if !upload.is_done() || !writer.buf.is_empty() => {
                Uploading::spawn(upload, writer)
            }
            _ => Uploading::Done(Some(writer)),
        };
        let answer = Answer::new(reader, uploading, decoder, keep_alive && !tunnel, deadline);
        Ok(Response::from_parts(parts, answer))
    }
}

fn framing<B: Body>(parts: &request::Parts, body: &B, upgrade: bool) -> Framing {
    if upgrade {
        return Framing::None;
    }
    if body.is_end_stream() {
        let said = parts.headers.contains_key(header::CONTENT_LENGTH)
            || matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
        return if said { Framing::Length(0) } else { Framing::None };
    }
    body.size_hint().exact().map_or(Framing::Chunked, Framing::Length)
}

/// A request under way, until its answer begins.
struct Exchange<'c> {
    connection: &'c mut Connection,
    finder: Finder,
    held: bool,
    hold: Deadline,
    /// Something came from the server.
    answered: bool,
    flushed: bool,
    /// The body was asked for something.
    polled: bool,
}

impl Exchange<'_> {
    async fn wait<B>(
        &mut self,
        upload: &mut Option<Upload<B>>,
        on_interim: &mut (dyn FnMut(Response<()>) + Send),
    ) -> Result<head::ResponseHead, SendError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        let mut interims = 0;
        // After the others of this turn: requests that go out one right after the other find the server
        // awake, and waking it costs more than anything else that a small one needs.
        tokio::task::yield_now().await;
        loop {
            let head = poll_fn(|cx| self.poll(cx, upload)).await?;
            let status = head.parts.status;
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(head);
            }
            interims += 1;
            if interims > INTERIMS_MAX {
                return Err(HeadFault::Malformed("there are too many interim answers").into());
            }
            if status == StatusCode::CONTINUE && self.hold_is_for_continue() {
                self.held = false;
            }
            self.finder = Finder::default();
            let (parts, ()) = (head.parts, ());
            on_interim(Response::from_parts(parts, ()));
        }
    }

    /// A tunnel's upload waits for its `101`; a held body for its `100`.
    const fn hold_is_for_continue(&self) -> bool {
        self.hold.is_set()
    }

    fn poll<B>(
        &mut self,
        cx: &mut Context<'_>,
        upload: &mut Option<Upload<B>>,
    ) -> Poll<Result<head::ResponseHead, SendError>>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        if self.held && self.hold.poll(cx).is_ready() {
            self.held = false;
        }
        let wrote = self.poll_write(cx, upload);
        loop {
            let reader = &mut self.connection.reader;
            if let Some(end) = self.finder.find(&reader.buf) {
                let block = reader.buf.split_to(end).freeze();
                return Poll::Ready(head::parse_response(block, &self.finder).map_err(Into::into));
            }
            if reader.buf.len() > HEAD_MAX_BYTES {
                return Poll::Ready(Err(HeadFault::TooLarge.into()));
            }
            match reader.poll_fill(cx, false) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.closed(wrote))),
                Poll::Ready(Ok(_)) => self.answered = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.broken(error))),
                Poll::Pending => break,
            }
        }
        // An answer that is there already counts, though the rest of the request could not be sent.
        wrote?;
        self.connection.deadline.poll(cx).map(|()| Err(SendError::Late))
    }

    fn poll_write<B>(
        &mut self,
        cx: &mut Context<'_>,
        upload: &mut Option<Upload<B>>,
    ) -> Result<(), SendError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        if self.flushed && (self.held || upload.as_ref().is_none_or(Upload::is_done)) {
            return Ok(());
        }
        let writer = &mut self.connection.writer;
        if !self.held
            && let Some(upload) = upload
        {
            self.polled = true;
            match upload.poll(cx, writer) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(upload::Fault::Body(error))) => return Err(SendError::Body(error)),
                Poll::Ready(Err(upload::Fault::Io(error))) => return Err(self.broken(error)),
                Poll::Pending => return Ok(()),
            }
        }
        match writer.poll_flush(cx) {
            Poll::Ready(Ok(())) => self.flushed = true,
            Poll::Ready(Err(error)) => return Err(self.broken(error)),
            Poll::Pending => {}
        }
        Ok(())
    }

    /// A kept connection that the server closes as a request is on its way has not been read from:
    /// the request may go elsewhere if nothing of its body was taken.
    fn broken(&self, error: io::Error) -> SendError {
        let untouched = !self.answered && !self.connection.writer.progress;
        if untouched && !self.polled { SendError::Unsent(error) } else { SendError::Broken(error) }
    }

    fn closed(&self, wrote: Result<(), SendError>) -> SendError {
        match wrote {
            Err(error) => error,
            Ok(()) => SendError::Closed,
        }
    }
}

impl Connection {
    /// Puts a connection together again after an answer. Its deadline is not set, but has a timer.
    const fn rejoin(reader: Box<Reader>, writer: Box<Writer>, deadline: Deadline) -> Self {
        Self { reader, writer, deadline }
    }
}
