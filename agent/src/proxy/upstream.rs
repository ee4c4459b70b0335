//! One request over one connection to one guest.

use std::{io, time::Duration};

use agent_api::proxy;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use pool_model::{ErrorCode, Port, SandboxId};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::error::Failure;
use crate::guest::Guest;

/// Attempts to reach a port that does not listen yet: a server that has just been started.
const DIAL_ATTEMPTS: u32 = 3;
/// Pause before the second attempt; doubles.
const DIAL_BACKOFF: Duration = Duration::from_millis(100);
/// Longest for one attempt. A guest that runs answers within milliseconds.
const DIAL_MAX: Duration = Duration::from_secs(3);

/// A guest's answer and the task that drives its connection.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) driver: AbortOnDropHandle<()>,
}

/// Dials with backoff; says whether the port is closed or the sandbox is gone.
pub(super) async fn dial(
    guest: &Guest,
    port: Port,
    deadline: Instant,
) -> Result<TcpStream, Failure> {
    let sandbox = guest.sandbox;
    let mut pause = DIAL_BACKOFF;
    for attempt in 1..=DIAL_ATTEMPTS {
        let tried = tokio::select! {
            tried = timeout_at(deadline, guest.dial(port, DIAL_MAX)) => tried,
            _ = guest.exited() => return Err(gone(sandbox)),
        };
        let error = match tried {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        if attempt == DIAL_ATTEMPTS || Instant::now() + pause >= deadline {
            return Err(unreachable(sandbox, port, &error));
        }
        sleep(pause).await;
        pause *= 2;
    }
    unreachable!("the loop returns at its last attempt")
}

fn unreachable(sandbox: SandboxId, port: Port, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Failure::new(
            ErrorCode::PortClosed,
            format!("sandbox {sandbox} is running but port {port} is not open"),
        ),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => gone(sandbox),
        _ => Failure::new(
            ErrorCode::GuestUnresponsive,
            format!("sandbox {sandbox} does not answer on port {port}: {error}"),
        ),
    }
    .of(sandbox)
}

fn gone(sandbox: SandboxId) -> Failure {
    Failure::new(ErrorCode::SandboxGone, format!("sandbox {sandbox} has ended")).of(sandbox)
}

/// Sends a request and waits for the head of its answer.
pub(super) async fn send(
    guest: &Guest,
    stream: TcpStream,
    request: Request<Incoming>,
    upgrade: Option<HeaderValue>,
    deadline: Instant,
) -> Result<Answer, Failure> {
    let sandbox = guest.sandbox;
    let broke = |error: hyper::Error| {
        let message = format!("sandbox {sandbox} broke off before it answered: {error}");
        Failure::new(ErrorCode::UpstreamReset, message).of(sandbox)
    };
    let (mut sender, connection): (SendRequest<Incoming>, _) =
        http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
    let driver = AbortOnDropHandle::new(tokio::spawn(async move {
        // What goes wrong here is reported by the sender or the body.
        let _ = connection.with_upgrades().await;
    }));
    let answer = sender.send_request(for_guest(request, upgrade));
    tokio::select! {
        answer = timeout_at(deadline, answer) => match answer {
            Ok(Ok(response)) => Ok(Answer { response, driver }),
            Ok(Err(error)) => Err(broke(error)),
            Err(_) => Err(Failure::new(
                ErrorCode::DeadlineExceeded,
                format!("sandbox {sandbox} did not answer in time"),
            ).of(sandbox)),
        },
        _ = guest.exited() => Err(gone(sandbox)),
    }
}

/// Origin form, HTTP/1.1, one request per connection.
fn for_guest(mut request: Request<Incoming>, upgrade: Option<HeaderValue>) -> Request<Incoming> {
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| http::Uri::from_static("/"), http::Uri::from);
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    match upgrade {
        Some(protocol) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, protocol);
        }
        None => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
    request
}

/// Names the sandbox that answered.
pub(super) fn set_sandbox(headers: &mut HeaderMap, sandbox: SandboxId) {
    let value = HeaderValue::from_str(&sandbox.to_string()).expect("an id is ASCII");
    headers.insert(proxy::SANDBOX, value);
}

/// Copies bytes both ways between an edge and a guest that agreed to switch protocols, and holds
/// `held` meanwhile.
pub(super) async fn tunnel(edge: OnUpgrade, guest: OnUpgrade, held: impl Send) {
    let (edge, guest) = match tokio::try_join!(edge, guest) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!("upgrade broke off: {error}");
            return;
        }
    };
    let (mut edge, mut guest) = (TokioIo::new(edge), TokioIo::new(guest));
    if let Err(error) = tokio::io::copy_bidirectional(&mut edge, &mut guest).await {
        tracing::debug!("tunnel broke off: {error}");
    }
    drop(held);
}

/// A body whose errors are boxed.
pub(super) fn boxed(
    body: Incoming,
) -> http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, super::body::Error> {
    body.map_err(Into::into).boxed_unsync()
}
