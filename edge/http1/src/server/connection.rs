//! The loop of a connection: idle, head, service, answer, and again.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body::Body;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    Config, Counters, Ended, Interim, RecvBody, Refusal, ServeError,
    config::{AHEAD_MAX_BYTES, LAST_REQUEST, LINGER},
    shared::{Rest, Shared},
};
use crate::{
    BoxError,
    decode::{Decoded, Decoder},
    encode,
    head::{self, Finder, RequestHead},
    io::{Reader, Writer},
    timer::Deadline,
};

/// What of an unread body is skipped so that the connection can be kept.
const SKIP_MAX_BYTES: usize = 64 * 1024;
/// How long that may take.
const SKIP_TIME: Duration = Duration::from_millis(100);
/// What a request line has besides its target: a method, a version, spaces.
const LINE_EXTRA_BYTES: usize = 32;

/// What of a request matters for its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) is_head: bool,
    pub(super) version: Version,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

/// What comes after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another request.
    Request,
    /// The end of the connection.
    Close,
}

pub(super) struct Connection<'a> {
    /// Here, unless a request's body has it.
    pub(super) reader: Option<Reader>,
    pub(super) writer: Writer,
    pub(super) config: &'a Config,
    pub(super) counters: &'a Counters,
    pub(super) shared: Arc<Shared>,
    pub(super) write_deadline: Deadline,
    deadline: Deadline,
    drain: CancellationToken,
    drained: Pin<Box<WaitForCancellationFutureOwned>>,
    /// It is drained: closed unless a last request comes soon.
    lingering: bool,
    requests: u64,
}

impl<'a> Connection<'a> {
    pub(super) fn new(
        reader: Reader,
        writer: Writer,
        config: &'a Config,
        counters: &'a Counters,
        drain: CancellationToken,
    ) -> Self {
        Self {
            reader: Some(reader),
            writer,
            config,
            counters,
            shared: Arc::default(),
            write_deadline: Deadline::default(),
            deadline: Deadline::default(),
            drained: Box::pin(drain.clone().cancelled_owned()),
            drain,
            lingering: false,
            requests: 0,
        }
    }

    pub(super) async fn run<S, F, B>(&mut self, mut service: S) -> Result<Ended, ServeError>
    where
        S: FnMut(Request<RecvBody>) -> F,
        F: Future<Output = Response<B>>,
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        loop {
            let head = match self.read_head().await {
                Ok(Some(head)) => head,
                Ok(None) => {
                    Box::pin(self.close()).await;
                    return Ok(Ended { requests: self.requests });
                }
                Err(ServeError::Refused(refusal)) => {
                    return Err(Box::pin(self.refuse(refusal)).await);
                }
                Err(error) => return Err(error),
            };
            let (request, asked) = self.request(head);
            // Each on the heap while it lasts, as what ends a connection is: one that waits for its
            // next request has room for none, and one whose answer takes long none for the service.
            let response = self.call(Box::pin(service(request)).as_mut()).await?;
            let next = Box::pin(self.respond(response, asked)).await?;
            self.requests += 1;
            self.count_fault();
            let ready = next == Next::Request
                && (self.reader.is_some() || Box::pin(self.take_back()).await);
            if !ready {
                Box::pin(self.close()).await;
                return Ok(Ended { requests: self.requests });
            }
        }
    }

    /// Waits for a request's head. `None`: the client left between requests, or we have to.
    async fn read_head(&mut self) -> Result<Option<RequestHead>, ServeError> {
        let (mut finder, mut empty_lines, mut began) = (Finder::default(), 0, false);
        self.deadline.set(self.config.keep_alive_timeout);
        loop {
            let Some(reader) = &mut self.reader else { return Ok(None) };
            head::skip_empty_lines(&mut reader.buf, &mut finder, &mut empty_lines)
                .map_err(refused)?;
            if let Some(end) = finder.find(&reader.buf) {
                if end > self.config.max_head_bytes {
                    return Err(refused(self.too_large()));
                }
                let line = memchr::memchr(b'\n', &reader.buf).unwrap_or(0);
                if line > self.config.max_target_bytes + LINE_EXTRA_BYTES {
                    return Err(ServeError::Refused(Refusal::TargetTooLong));
                }
                let block = reader.buf.split_to(end).freeze();
                self.deadline.clear();
                let head = head::parse_request(block, &finder, self.config.max_headers);
                return head.map(Some).map_err(refused);
            }
            if reader.buf.len() > self.config.max_head_bytes {
                return Err(refused(self.too_large()));
            }
            if !began && !reader.buf.is_empty() {
                began = true;
                self.deadline.set(self.config.head_timeout);
            }
            if !began {
                reader.shrink();
                self.writer.shrink();
            }
            match self.fill(began).await {
                Filled::More => {}
                Filled::Left if began => return Err(ServeError::Gone),
                Filled::Left => return Ok(None),
                Filled::Late if began => return Err(ServeError::Refused(Refusal::HeadTimeout)),
                Filled::Late => {
                    Counters::count(&self.counters.idle);
                    return Ok(None);
                }
            }
        }
    }

    /// A head without end: its target, or all of it, is too long.
    fn too_large(&self) -> head::HeadFault {
        let buf = self.reader.as_ref().map(|reader| &reader.buf[..]).unwrap_or_default();
        let line = memchr::memchr(b'\n', buf).unwrap_or(buf.len());
        if line > self.config.max_target_bytes {
            head::HeadFault::TargetTooLong
        } else {
            head::HeadFault::TooLarge
        }
    }

    async fn fill(&mut self, began: bool) -> Filled {
        let Some(reader) = &mut self.reader else { return Filled::Left };
        let (deadline, drained) = (&mut self.deadline, &mut self.drained);
        let lingering = &mut self.lingering;
        poll_fn(|cx| {
            match reader.poll_fill(cx, false) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Filled::Left),
                Poll::Ready(Ok(_)) => return Poll::Ready(Filled::More),
                Poll::Pending => {}
            }
            if !began && !*lingering && drained.as_mut().poll(cx).is_ready() {
                *lingering = true;
                deadline.set(LAST_REQUEST);
            }
            let over = if *lingering && !began { Filled::Left } else { Filled::Late };
            deadline.poll(cx).map(|()| over)
        })
        .await
    }

    fn request(&mut self, head: RequestHead) -> (Request<RecvBody>, Asked) {
        let RequestHead { parts, body, keep_alive, upgrade, expects_continue } = head;
        let request = self.shared.begin(parts.version);
        let interim = Interim { shared: Arc::clone(&self.shared), request };
        let asked = Asked {
            is_head: parts.method == Method::HEAD,
            version: parts.version,
            keep_alive,
            upgrade,
        };
        let body = if upgrade {
            RecvBody::tunnel(interim)
        } else if body.exact() == Some(0) {
            RecvBody::empty(interim)
        } else {
            match self.reader.take() {
                Some(reader) => {
                    RecvBody::new(interim, reader, body, expects_continue, self.config.body_timeout)
                }
                None => RecvBody::empty(interim),
            }
        };
        (Request::from_parts(parts, body), asked)
    }

    /// Runs the service, and meanwhile: writes interim answers, sees the client leave.
    async fn call<F: Future>(&mut self, mut service: Pin<&mut F>) -> Result<F::Output, ServeError> {
        poll_fn(|cx| {
            if let Poll::Ready(response) = service.as_mut().poll(cx) {
                return Poll::Ready(Ok(response));
            }
            match self.poll_meanwhile(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// What has to go on while something else is waited for. Ready only with an error.
    pub(super) fn poll_meanwhile(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ServeError>> {
        let mut state = self.shared.lock();
        state.connection_waits(cx);
        for (status, headers) in state.take_interims() {
            encode::interim(&mut self.writer.buf, status, &headers);
        }
        if std::mem::take(&mut state.wants_continue) {
            self.writer.buf.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if let Some(returned) = &state.returned
            && matches!(returned.rest, Rest::Some(Decoder::Length(0)))
            && let Some(returned) = state.returned.take()
        {
            self.reader = Some(returned.reader);
        }
        drop(state);
        if !self.writer.buf.is_empty()
            && let Poll::Ready(Err(error)) = self.writer.poll_flush(cx)
        {
            return Poll::Ready(Err(error.into()));
        }
        self.poll_client_left(cx)
    }

    /// Reads ahead, a little: a client that left is seen by that.
    fn poll_client_left(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ServeError>> {
        let Some(reader) = &mut self.reader else { return Poll::Pending };
        while reader.buf.len() < AHEAD_MAX_BYTES {
            match reader.poll_fill(cx, false) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(ServeError::Gone)),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    /// Whether the next answer ends the connection.
    pub(super) fn is_last(&self, asked: &Asked) -> bool {
        let max = self.config.max_requests;
        !asked.keep_alive
            || self.drain.is_cancelled()
            || (max > 0 && self.requests + 1 >= max)
            || !self.can_go_on()
    }

    /// Whether the request's body is, or can be, out of the way.
    fn can_go_on(&self) -> bool {
        if self.reader.is_some() {
            return true;
        }
        let state = self.shared.lock();
        state.returned.as_ref().is_some_and(|returned| match &returned.rest {
            Rest::Some(Decoder::Length(left)) => *left <= SKIP_MAX_BYTES as u64,
            Rest::Some(Decoder::Chunked(_)) => true,
            Rest::Some(Decoder::Close) | Rest::Gone | Rest::Malformed | Rest::TooSlow => false,
        })
    }

    /// Skips what was not read of the request's body. False: the connection can't go on.
    async fn take_back(&mut self) -> bool {
        let Some(returned) = self.shared.lock().returned.take() else { return false };
        let mut reader = returned.reader;
        let Rest::Some(mut decoder) = returned.rest else {
            self.reader = Some(reader);
            return false;
        };
        let skipped = timeout(SKIP_TIME, skip(&mut reader, &mut decoder)).await;
        self.reader = Some(reader);
        matches!(skipped, Ok(true))
    }

    /// A request's body that came too slowly or broke a rule: the service knows, the counters not yet.
    fn count_fault(&self) {
        match self.shared.lock().returned.as_ref().map(|returned| &returned.rest) {
            Some(Rest::TooSlow) => Counters::count(&self.counters.body_rate),
            Some(Rest::Malformed) => Counters::count(&self.counters.malformed),
            Some(Rest::Some(_) | Rest::Gone) | None => {}
        }
    }

    /// Tells a client why, and gives it time to read that.
    async fn refuse(&mut self, refusal: Refusal) -> ServeError {
        Counters::count(match refusal {
            Refusal::HeadTimeout => &self.counters.head_timeout,
            Refusal::HeadTooLarge | Refusal::TargetTooLong => &self.counters.head_bytes,
            Refusal::Malformed(_) | Refusal::UnknownCoding | Refusal::Version => {
                &self.counters.malformed
            }
        });
        let (parts, body) = (self.config.refuse)(refusal).into_parts();
        let framing = encode::Framing::Length(body.len() as u64);
        encode::response(&mut self.writer.buf, &parts, framing, Some("close"));
        self.writer.buf.extend_from_slice(&body);
        self.close().await;
        ServeError::Refused(refusal)
    }

    /// Says that no more comes, and reads for a moment what the client still sends: bytes that
    /// nobody reads would make its side drop our answer.
    async fn close(&mut self) {
        if self.reader.is_none() {
            self.reader = self.shared.lock().returned.take().map(|returned| returned.reader);
        }
        let until = Instant::now() + LINGER;
        let writer = &mut self.writer;
        let closing = poll_fn(|cx| writer.poll_shutdown(cx));
        if tokio::time::timeout_at(until, closing).await.is_err() {
            return;
        }
        let Some(reader) = &mut self.reader else { return };
        let lingering = poll_fn(|cx| {
            loop {
                reader.buf.clear();
                match reader.poll_fill(cx, false) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        let _ = tokio::time::timeout_at(until, lingering).await; // patience ends
    }
}

enum Filled {
    More,
    Left,
    Late,
}

fn refused(fault: head::HeadFault) -> ServeError {
    ServeError::Refused(fault.into())
}

/// Reads to the end of a body, if it is near.
async fn skip(reader: &mut Reader, decoder: &mut Decoder) -> bool {
    let mut skipped = 0;
    loop {
        match decoder.decode(&mut reader.buf, false) {
            Ok(Decoded::Data(data)) => skipped += data.len(),
            Ok(Decoded::Trailers(_) | Decoded::End) => return true,
            Ok(Decoded::More) => match poll_fn(|cx| reader.poll_fill(cx, false)).await {
                Ok(0) | Err(_) => return false,
                Ok(_) => {}
            },
            Err(_) => return false,
        }
        if skipped > SKIP_MAX_BYTES {
            return false;
        }
    }
}
