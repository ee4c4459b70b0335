//! Requests that come from no listener: invocations that nobody waits for, and those of the clock.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use pool_model::FunctionId;
use tokio::time::Instant;

use crate::{
    body::{AnswerBody, ClientBody, full},
    gateway::{ClientInfo, Gateway, Incoming, Protocol, Worker},
    interim::Interim,
    upstream::Upstream,
};

/// The worker number that requests from inside are counted under.
const WORKER: usize = 0;

/// A way into the gateway for the process itself.
#[derive(Debug, Clone)]
pub struct Inside {
    worker: Arc<Worker>,
}

/// Why there is no whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InsideError {
    /// It did not come in time.
    #[error("the answer took longer than {0:?}")]
    Late(Duration),
    /// It broke off.
    #[error("the answer broke off")]
    Broken,
}

impl Inside {
    pub(crate) fn new(gateway: Arc<Gateway>) -> Self {
        let upstream = Upstream::new(&gateway.limits);
        let telemetry = gateway.telemetry.worker(WORKER);
        Self { worker: Arc::new(Worker { gateway, upstream, telemetry }) }
    }

    /// Invokes a function as its team would: limits of rate, address and credentials are its
    /// callers', not its own; limits of concurrency hold. At most `bytes_max` bytes of the answer
    /// are kept, and whether there were more is told. If the name belongs to another function by
    /// now the answer is 404.
    ///
    /// # Errors
    ///
    /// [`InsideError`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the invocation.
    pub async fn invoke(
        &self,
        (id, function): (FunctionId, &str),
        tag: Option<&str>,
        request: Request<Bytes>,
        bytes_max: usize,
        within: Duration,
    ) -> Result<(Response<Bytes>, bool), InsideError> {
        let until = Instant::now() + within;
        let answering = self.worker.serve_inside((id, function), tag, request);
        let response = tokio::time::timeout_at(until, answering)
            .await
            .map_err(|_| InsideError::Late(within))?;
        let (parts, mut body) = response.into_parts();
        let mut kept = Vec::new();
        let mut truncated = false;
        loop {
            let frame = tokio::time::timeout_at(until, body.frame()).await;
            match frame.map_err(|_| InsideError::Late(within))? {
                None => break,
                Some(Err(_)) => return Err(InsideError::Broken),
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    let room = bytes_max - kept.len();
                    kept.extend_from_slice(&data[..data.len().min(room)]);
                    if data.len() > room {
                        truncated = true;
                        break;
                    }
                }
            }
        }
        Ok((Response::from_parts(parts, Bytes::from(kept)), truncated))
    }
}

impl Worker {
    async fn serve_inside(
        self: &Arc<Self>,
        (id, function): (FunctionId, &str),
        tag: Option<&str>,
        request: Request<Bytes>,
    ) -> Response<AnswerBody> {
        let domain = &self.gateway.domain;
        let target = crate::route::Target::Function {
            name: function.to_owned(),
            tag: tag.map(str::to_owned),
        };
        let (mut parts, body) = request.into_parts();
        parts.version = http::Version::HTTP_11;
        if let Ok(host) = http::HeaderValue::from_str(&domain.host(&target)) {
            parts.headers.insert(http::header::HOST, host);
        }
        parts.extensions.insert(FromInside(id));
        let body = if body.is_empty() { ClientBody::Empty } else { ClientBody::Any(full(body)) };
        let client = ClientInfo {
            peer: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            protocol: Protocol::H1,
            tls: true,
            sni: None,
        };
        let incoming = Incoming {
            request: Request::from_parts(parts, body),
            interim: Interim::None,
            connect: None,
        };
        self.serve(&client, incoming).await
    }
}

/// Marks a request that was let in by its team when it was submitted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FromInside(pub(crate) FunctionId);
