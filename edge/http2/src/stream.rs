//! One stream: its request to the service, its answer to the client.

use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, SendStream, server::SendResponse};
use http::{Method, Response, StatusCode, header};
use http_body::Body;
use tokio::time::timeout;

use crate::{BoxError, Config, Counters, check};

/// The protocol of an extended CONNECT (RFC 8441 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol(h2::ext::Protocol);

impl Protocol {
    pub(crate) const fn new(protocol: h2::ext::Protocol) -> Self {
        Self(protocol)
    }

    /// As the client wrote it, e.g. `websocket`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// Sends 1xx answers before a request's final one. Cheap to clone; useless after it.
#[derive(Clone)]
pub struct Interim(Arc<Mutex<Option<SendResponse<Bytes>>>>);

/// An interim answer is not sent: it is none, the final one has begun, or the client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an interim answer comes too late, or is none")]
pub struct InterimError;

impl Interim {
    /// Sends an interim answer.
    ///
    /// # Errors
    ///
    /// [`InterimError`].
    pub fn send(&self, mut answer: Response<()>) -> Result<(), InterimError> {
        let status = answer.status();
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(InterimError);
        }
        check::strip(answer.headers_mut());
        let mut respond = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let respond = respond.as_mut().ok_or(InterimError)?;
        respond.send_informational(answer).map_err(|_| InterimError)
    }
}

impl fmt::Debug for Interim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interim").finish_non_exhaustive()
    }
}

/// A stream's answering half, until the final answer begins.
pub(crate) struct Answering {
    respond: Arc<Mutex<Option<SendResponse<Bytes>>>>,
    is_head: bool,
    is_connect: bool,
}

impl Answering {
    pub(crate) fn new(respond: SendResponse<Bytes>, method: &Method) -> Self {
        let respond = Arc::new(Mutex::new(Some(respond)));
        let (is_head, is_connect) = (method == Method::HEAD, method == Method::CONNECT);
        Self { respond, is_head, is_connect }
    }

    pub(crate) fn interim(&self) -> Interim {
        Interim(Arc::clone(&self.respond))
    }

    /// Runs the service and sends what it answers. A client that resets the stream ends both.
    pub(crate) async fn run<F, B>(self, service: F, config: &Config, counters: &Counters)
    where
        F: Future<Output = Response<B>>,
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let mut service = pin!(service);
        let answered = poll_fn(|cx| {
            if let Poll::Ready(response) = service.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            self.poll_reset(cx).map(|()| None)
        });
        let Some(response) = answered.await else { return };
        self.send(response, config, counters).await;
    }

    /// Ready once the client has reset the stream.
    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut respond = self.respond.lock().unwrap_or_else(PoisonError::into_inner);
        match respond.as_mut() {
            Some(respond) => respond.poll_reset(cx).map(|_| ()),
            None => Poll::Ready(()),
        }
    }

    async fn send<B>(self, response: Response<B>, config: &Config, counters: &Counters)
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let respond = self.respond.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut respond) = respond else { return };
        let (mut parts, body) = response.into_parts();
        let status = parts.status;
        check::strip(&mut parts.headers);
        let bodyless =
            self.is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let tunnel = self.is_connect && status.is_success();
        if let Some(exact) = body.size_hint().exact()
            && !bodyless
            && !tunnel
        {
            let length = header::CONTENT_LENGTH;
            parts.headers.entry(length).or_insert_with(|| exact.into());
        }
        let ends = bodyless || (body.is_end_stream() && !tunnel);
        let head = Response::from_parts(parts, ());
        let Ok(mut stream) = respond.send_response(head, ends) else { return };
        if ends {
            return;
        }
        let mut sending = Sending { body: pin!(body), data: Bytes::new() };
        let outcome = sending.run(&mut stream, config.write_timeout).await;
        match outcome {
            Ok(()) | Err(Fault::Reset) => {}
            Err(Fault::Stalled) => {
                Counters::count(&counters.write_stalled);
                stream.send_reset(Reason::CANCEL);
            }
            Err(Fault::Body) => stream.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}

/// Why an answer is not sent to its end.
enum Fault {
    Body,
    Reset,
    Stalled,
}

struct Sending<'b, B> {
    body: Pin<&'b mut B>,
    data: Bytes,
}

impl<B> Sending<'_, B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    async fn run(
        &mut self,
        stream: &mut SendStream<Bytes>,
        patience: Duration,
    ) -> Result<(), Fault> {
        loop {
            let frame = poll_fn(|cx| {
                if let Poll::Ready(frame) = self.body.as_mut().poll_frame(cx) {
                    return Poll::Ready(Ok(frame));
                }
                stream.poll_reset(cx).map(|_| Err(Fault::Reset))
            });
            let frame = match frame.await? {
                None => return stream.send_data(Bytes::new(), true).map_err(|_| Fault::Reset),
                Some(Err(error)) => {
                    let error: BoxError = error.into();
                    tracing::debug!(error = &*error, "an answer broke off");
                    return Err(Fault::Body);
                }
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(data) => self.data = data,
                Err(frame) => {
                    let Ok(mut trailers) = frame.into_trailers() else { continue };
                    check::strip(&mut trailers);
                    return stream.send_trailers(trailers).map_err(|_| Fault::Reset);
                }
            }
            let last = self.body.is_end_stream();
            if self.send_data(stream, last, patience).await? {
                return Ok(());
            }
        }
    }

    /// Sends what is there as the client's window allows. True: the stream has ended with it.
    async fn send_data(
        &mut self,
        stream: &mut SendStream<Bytes>,
        last: bool,
        patience: Duration,
    ) -> Result<bool, Fault> {
        while !self.data.is_empty() {
            stream.reserve_capacity(self.data.len());
            let capacity = match stream.capacity() {
                0 => {
                    let waiting = poll_fn(|cx| poll_capacity(stream, cx));
                    timeout(patience, waiting).await.map_err(|_| Fault::Stalled)??
                }
                capacity => capacity,
            };
            let piece = self.data.split_to(capacity.min(self.data.len()));
            let ends = last && self.data.is_empty();
            stream.send_data(piece, ends).map_err(|_| Fault::Reset)?;
            if ends {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn poll_capacity(
    stream: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, Fault>> {
    loop {
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(0)) => {}
            Some(Ok(capacity)) => return Poll::Ready(Ok(capacity)),
            Some(Err(_)) | None => return Poll::Ready(Err(Fault::Reset)),
        }
    }
}
