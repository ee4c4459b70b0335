//! The answer of one request, in as few writes as it can be.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
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
    exchange::{Exchange, Notice},
    link::{Link, varint},
    priority::{level, of_answer},
    wire::{Code, Priority, response_frame},
};

/// An answer of up to so many bytes is not waited for once it is written: when the connection is
/// drained there is time for it anyway.
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
type Stopped = Result<Option<VarInt>, StoppedError>;

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
        let mut stopped = pin!(self.send.stopped());
        let outcome = match self.wait(service, stopped.as_mut()).await {
            Ok(response) => self.send(response, asked, stopped.as_mut()).await,
            Err(fault) => Err(fault),
        };
        match outcome {
            Ok(()) => self.finish(stopped).await,
            Err(fault) => self.fail(fault, asked),
        }
    }

    /// Waits for the service, sending its interim answers.
    async fn wait<F: Future>(
        &mut self,
        service: F,
        mut stopped: Pin<&mut impl Future<Output = Stopped>>,
    ) -> Result<F::Output, Fault> {
        let mut service = pin!(service);
        loop {
            let step = poll_fn(|cx| {
                if let Poll::Ready(response) = service.as_mut().poll(cx) {
                    return Poll::Ready(Ok(response));
                }
                poll_trouble(&self.exchange, stopped.as_mut(), cx).map(Err)
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
        mut stopped: Pin<&mut impl Future<Output = Stopped>>,
    ) -> Result<(), Fault>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let (mut parts, body) = response.into_parts();
        let mut out = self.exchange.begin();
        self.set_priority(of_answer(&parts.headers, asked.priority));
        let bodyless = !has_body(&parts, asked);
        if !bodyless {
            set_content_length(&mut parts, body.size_hint().exact(), asked);
        }
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
                match poll_trouble(&self.exchange, stopped.as_mut(), cx) {
                    Poll::Ready(Trouble::Fault(fault)) => Poll::Ready(Err(fault)),
                    Poll::Ready(Trouble::Interim(_)) | Poll::Pending => Poll::Pending,
                }
            })
            .await?;
            if let Some(error) = batch.error.take() {
                return Err(Fault::Body(error));
            }
            let last = batch.last;
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
    async fn finish(&mut self, stopped: Pin<&mut impl Future<Output = Stopped>>) {
        if let Some(code) = self.exchange.wrong() {
            return self.reset(code);
        }
        self.over = true;
        let _ = self.send.finish(); // the client may have stopped it just now
        self.exchange.end(Code::H3_NO_ERROR);
        if self.sent <= SMALL_ANSWER_BYTES && !self.link.is_draining() {
            return;
        }
        match timeout(self.link.config.ack_timeout, stopped).await {
            Ok(Ok(Some(_))) => self.exchange.set_reset(&self.link),
            Ok(Ok(None) | Err(_)) => {}
            Err(_) => {
                Counters::count(&self.link.counters().write_stalled);
                self.reset(Code::H3_REQUEST_CANCELLED);
            }
        }
    }

    fn fail(&mut self, fault: Fault, asked: Asked) {
        let code = match fault {
            Fault::Stopped => {
                self.exchange.set_reset(&self.link);
                Code::H3_REQUEST_CANCELLED
            }
            Fault::Lost => Code::H3_REQUEST_CANCELLED,
            Fault::Stalled => {
                Counters::count(&self.link.counters().write_stalled);
                Code::H3_REQUEST_CANCELLED
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
    stopped: Pin<&mut impl Future<Output = Stopped>>,
    cx: &mut Context<'_>,
) -> Poll<Trouble> {
    match exchange.poll_notice(cx) {
        Poll::Ready(Notice::Interim(interim)) => return Poll::Ready(Trouble::Interim(interim)),
        Poll::Ready(Notice::Wrong(code)) => return Poll::Ready(Trouble::Fault(Fault::Wrong(code))),
        Poll::Pending => {}
    }
    stopped.poll(cx).map(|stopped| match stopped {
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
