//! One log line per request, at its end: when its body ended, broke, or its client went away.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use pool_model::RequestId;
use tokio::time::Instant;

use crate::{
    body::{Body, BoxError},
    gateway::{ClientInfo, Protocol},
    headers,
};

/// What the line will say. Dropping it writes it.
#[derive(Debug)]
pub(crate) struct AccessLog {
    request_id: RequestId,
    method: Method,
    host: String,
    protocol: Protocol,
    started: Instant,
    status: Option<StatusCode>,
    sandbox: Option<String>,
    error: Option<String>,
    bytes_sent: u64,
    complete: bool,
}

impl AccessLog {
    pub(crate) fn new<B>(id: RequestId, client: &ClientInfo, request: &Request<B>) -> Self {
        Self {
            request_id: id,
            method: request.method().clone(),
            host: String::new(),
            protocol: client.protocol,
            started: Instant::now(),
            status: None,
            sandbox: None,
            error: None,
            bytes_sent: 0,
            complete: false,
        }
    }

    /// The host, once the head proved well-formed.
    pub(crate) fn set_host(&mut self, host: &str) {
        host.clone_into(&mut self.host);
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Takes status and sandbox from the answer's head.
    pub(crate) fn set_head(&mut self, status: StatusCode, headers: &HeaderMap) {
        let text =
            |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        self.status = Some(status);
        self.sandbox = text(headers::SANDBOX);
        self.error = text(headers::ERROR);
    }

    /// Rides in the body, so the line is written when the body has ended.
    pub(crate) fn ride(self, body: Body) -> Body {
        LoggedBody { body, log: self }.boxed_unsync()
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        let duration_ms = self.started.elapsed().as_secs_f64() * 1e3;
        tracing::info!(
            request.id = %self.request_id,
            method = %self.method,
            host = self.host,
            status = self.status.map_or(0, |status| status.as_u16()),
            bytes = self.bytes_sent,
            duration_ms,
            protocol = self.protocol.as_str(),
            sandbox = self.sandbox.as_deref().unwrap_or(""),
            code = self.error.as_deref().unwrap_or(""),
            outcome = if self.complete { "complete" } else { "aborted" },
            "request"
        );
    }
}

struct LoggedBody {
    body: Body,
    log: AccessLog,
}

impl Drop for LoggedBody {
    fn drop(&mut self) {
        // A body with nothing left (HEAD, 204, known length) is dropped without a last poll.
        self.log.complete |= self.body.is_end_stream() || self.log.method == Method::HEAD;
    }
}

impl HttpBody for LoggedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                this.log.bytes_sent += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Poll::Ready(None) => this.log.complete = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
