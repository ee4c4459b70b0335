//! The answer of one request, in as few writes as it can be.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Response, StatusCode, header, response};
use http_body::Body;
use http_body_util::Empty;
use quinn::{SendStream, StoppedError, VarInt, WriteError};
use tokio::time::timeout;

use crate::{
    BoxError, Counters,
    batch::Batch,
    delivery::Delivery,
    exchange::{Exchange, Notice},
    link::{Link, varint},
    priority::{level, of_answer},
    wire::{Code, Priority, response_frame},
};

/// An answer of up to so many bytes is not waited for once it is written, which would wake its task
/// once more: the connection waits for it if it is drained.
const SMALL_ANSWER_BYTES: usize = 16 * 1024;

/// What the request says about how it is to be answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) is_head: bool,
    pub(crate) is_connect: bool,
    pub(crate) priority: Option<Priority>,
}

/// Why an answer is not sent to its end.
enum Fault {
    /// The client stopped it.
    Stopped,
    /// The connection is gone.
    Lost,
    /// The client takes nothing.
    Stalled,
    /// The service's answer breaks a rule of HTTP.
    Answer(&'static str),
    /// Its body failed.
    Body(BoxError),
    /// The request turned out to be wrong.
    Wrong(Code),
}

impl From<WriteError> for Fault {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(_) => Self::Stopped,
            _ => Self::Lost,
        }
    }
}

/// What `SendStream::stopped` gives: the client's code, or nothing once all is acknowledged.
pub(crate) type Stopped = Result<Option<VarInt>, StoppedError>;

/// A stream's answering half. Dropped before its end it resets the stream.
#[derive(Debug)]
pub(crate) struct Answering {
    send: SendStream,
    exchange: Arc<Exchange>,
    link: Arc<Link>,
    sent: usize,
    updates_seen: u32,
    over: bool,
}

impl Answering {
    pub(crate) fn new(send: SendStream, exchange: Arc<Exchange>, link: Arc<Link>) -> Self {
        Self { send, exchange, link, sent: 0, updates_seen: 0, over: false }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Resets the stream, and stops what is left of the request.
    pub(crate) fn give_up(mut self, code: Code) {
        self.reset(code);
    }

    /// Sends an answer without a body that no service gave.
    pub(crate) async fn status(self, status: StatusCode) {
        let asked = Asked { is_head: false, is_connect: false, priority: None };
        let mut response = Response::new(Empty::<Bytes>::new());
        *response.status_mut() = status;
        self.run(std::future::ready(response), asked).await;
    }

    /// Runs the service and sends what it answers. A client that stops the stream ends both.
    pub(crate) async fn run<F, B>(mut self, service: F, asked: Asked)
    where
        F: Future<Output = Response<B>>,
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        self.set_priority(asked.priority);
        let mut stopped: Delivery = Box::pin(self.send.stopped());
        let outcome = match self.wait(service, &mut stopped).await {
            Ok(response) => self.send(response, asked, &mut stopped).await,
            Err(fault) => Err(fault),
        };
        match outcome {
            Ok(()) => self.finish(stopped).await,
            Err(fault) => {
                self.fail(fault, asked);
                self.received().await;
            }
        }
    }

    /// Waits for the service, sending its interim answers.
    async fn wait<F: Future>(
        &mut self,
        service: F,
        stopped: &mut Delivery,
    ) -> Result<F::Output, Fault> {
        let mut service = pin!(service);
        loop {
            let step = poll_fn(|cx| {
                if let Poll::Ready(response) = service.as_mut().poll(cx) {
                    return Poll::Ready(Ok(response));
                }
                poll_trouble(&self.exchange, stopped, cx).map(Err)
            });
            match step.await {
                Ok(response) => return Ok(response),
                Err(Trouble::Interim(interim)) => self.write(&mut [interim]).await?,
                Err(Trouble::Fault(fault)) => return Err(fault),
            }
        }
    }

    async fn send<B>(
        &mut self,
        response: Response<B>,
        asked: Asked,
        stopped: &mut Delivery,
    ) -> Result<(), Fault>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let (mut parts, body) = response.into_parts();
        if parts.status.is_informational() {
            return Err(Fault::Answer("an interim status in a final answer"));
        }
        let mut out = self.exchange.begin(is_tunnel(&parts, asked));
        self.set_priority(of_answer(&parts.headers, asked.priority));
        let bodyless = !has_body(&parts, asked);
        if !bodyless {
            set_content_length(&mut parts, body.size_hint().exact(), asked);
        }
        let mut left = content_length(&parts, asked)?;
        response_frame(&parts, &mut out);
        if bodyless {
            return self.write(&mut [out.freeze()]).await;
        }
        let mut body = pin!(body);
        loop {
            let mut batch = Batch::default();
            let limit = self.link.config.write_batch_bytes;
            poll_fn(|cx| {
                // A head is not kept waiting for its body.
                if batch.fill(body.as_mut(), limit, cx) || !out.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                match poll_trouble(&self.exchange, stopped, cx) {
                    Poll::Ready(Trouble::Fault(fault)) => Poll::Ready(Err(fault)),
                    Poll::Ready(Trouble::Interim(_)) | Poll::Pending => Poll::Pending,
                }
            })
            .await?;
            if let Some(error) = batch.error.take() {
                return Err(Fault::Body(error));
            }
            let last = batch.last;
            count_down(&mut left, batch.bytes, last)?;
            self.update_priority();
            self.write(&mut batch.into_frames(&mut out)).await?;
            if last {
                return Ok(());
            }
        }
    }

    /// Writes all of this, as fast as the client takes it.
    async fn write(&mut self, mut pieces: &mut [Bytes]) -> Result<(), Fault> {
        let patience = self.link.config.body_idle_timeout;
        while !pieces.is_empty() {
            let writing = self.send.write_chunks(pieces);
            let written = timeout(patience, writing).await.map_err(|_| Fault::Stalled)??;
            self.sent += written.bytes;
            pieces = &mut pieces[written.chunks..];
        }
        Ok(())
    }

    /// Ends the stream, and sees a large answer to its delivery.
    async fn finish(&mut self, stopped: Delivery) {
        if let Some(code) = self.exchange.wrong() {
            return self.reset(code);
        }
        self.over = true;
        let _ = self.send.finish(); // the client may have stopped it just now
        self.exchange.end(Code::H3_NO_ERROR);
        self.received().await;
        if self.sent <= SMALL_ANSWER_BYTES && !self.link.is_draining() {
            return self.link.deliveries.push(stopped);
        }
        match timeout(self.link.config.ack_timeout, stopped).await {
            Ok(Ok(Some(_))) => self.exchange.set_reset(&self.link),
            Ok(Ok(None) | Err(_)) => {}
            Err(_) => {
                Counters::count(&self.link.counters().write_stalled);
                self.link.count_provoked();
                self.reset(Code::H3_REQUEST_CANCELLED);
            }
        }
    }

    /// Waits for a tunnel's other direction, which ends with its body or the connection.
    async fn received(&self) {
        if self.exchange.is_tunnel() {
            poll_fn(|cx| self.exchange.poll_received(cx)).await;
        }
    }

    fn fail(&mut self, fault: Fault, asked: Asked) {
        // A body that is made of the request's fails with it, and is not to blame.
        let fault = self.exchange.wrong().map_or(fault, Fault::Wrong);
        let code = match fault {
            Fault::Stopped => {
                self.exchange.set_reset(&self.link);
                Code::H3_REQUEST_CANCELLED
            }
            Fault::Lost => Code::H3_REQUEST_CANCELLED,
            Fault::Stalled => {
                Counters::count(&self.link.counters().write_stalled);
                self.link.count_provoked();
                Code::H3_REQUEST_CANCELLED
            }
            Fault::Answer(reason) => {
                tracing::error!(reason, "the service's answer is wrong");
                Code::H3_INTERNAL_ERROR
            }
            Fault::Body(error) => {
                tracing::debug!(error = &*error, "an answer broke off");
                // RFC 9114 4.4 has a code for tunnels.
                if asked.is_connect { Code::H3_CONNECT_ERROR } else { Code::H3_INTERNAL_ERROR }
            }
            Fault::Wrong(code) => code,
        };
        self.reset(code);
    }

    fn reset(&mut self, code: Code) {
        self.over = true;
        let _ = self.send.reset(varint(code)); // it may be gone
        self.exchange.end(code);
    }

    fn set_priority(&self, priority: Option<Priority>) {
        if let Some(priority) = priority {
            let level = level(priority, self.send.id().index());
            let _ = self.send.set_priority(level); // it may be gone
        }
    }

    fn update_priority(&mut self) {
        let stream = self.send.id().into();
        let update = self.link.updates.take(stream, &mut self.updates_seen);
        self.set_priority(update);
    }
}

impl Drop for Answering {
    /// The service panicked, or the connection ends.
    fn drop(&mut self) {
        if !self.over {
            self.reset(Code::H3_INTERNAL_ERROR);
        }
    }
}

/// What can come up while an answer waits.
enum Trouble {
    Interim(Bytes),
    Fault(Fault),
}

fn poll_trouble(
    exchange: &Exchange,
    stopped: &mut Delivery,
    cx: &mut Context<'_>,
) -> Poll<Trouble> {
    match exchange.poll_notice(cx) {
        Poll::Ready(Notice::Interim(interim)) => return Poll::Ready(Trouble::Interim(interim)),
        Poll::Ready(Notice::Wrong(code)) => return Poll::Ready(Trouble::Fault(Fault::Wrong(code))),
        Poll::Pending => {}
    }
    stopped.as_mut().poll(cx).map(|stopped| match stopped {
        Ok(Some(_)) => Trouble::Fault(Fault::Stopped),
        Ok(None) | Err(_) => Trouble::Fault(Fault::Lost),
    })
}

/// RFC 9110 6.4.1.
fn has_body(parts: &response::Parts, asked: Asked) -> bool {
    let none = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
    is_tunnel(parts, asked) || !(asked.is_head || none.contains(&parts.status))
}

fn is_tunnel(parts: &response::Parts, asked: Asked) -> bool {
    asked.is_connect && parts.status.is_success()
}

fn set_content_length(parts: &mut response::Parts, exact: Option<u64>, asked: Asked) {
    let length = header::CONTENT_LENGTH;
    if is_tunnel(parts, asked) {
        parts.headers.remove(length); // RFC 9110 9.3.6
    } else if let Some(exact) = exact {
        parts.headers.entry(length).or_insert_with(|| exact.into());
    }
}

/// How many bytes of the body have to come because the answer's head says so.
fn content_length(parts: &response::Parts, asked: Asked) -> Result<Option<u64>, Fault> {
    let mut lengths = parts.headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next().filter(|_| has_body(parts, asked)) else { return Ok(None) };
    let digits = first.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|text| text.parse().ok()) {
        Some(length) if lengths.all(|other| other == first) => Ok(Some(length)),
        _ => Err(Fault::Answer("a content-length that is no number")),
    }
}

/// Takes the next bytes of the body off what its head promised.
fn count_down(left: &mut Option<u64>, bytes: usize, last: bool) -> Result<(), Fault> {
    let Some(left) = left else { return Ok(()) };
    let fault = Fault::Answer("a body that is not as long as its content-length");
    match left.checked_sub(bytes as u64) {
        Some(rest) if rest == 0 || !last => *left = rest,
        _ => return Err(fault),
    }
    Ok(())
}
