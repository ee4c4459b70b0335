//! One request to one guest: which connection it takes, and what its failing means.

use std::{future::Future, io, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::{body::Incoming, client::conn::TrySendError, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use pool_model::{ErrorCode, Port, SandboxId};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc},
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use agent_api::proxy;

use super::{
    conn::{Conn, Manner, Stream2, ToGuest, Used, spare},
    error::Failure,
    inward::Interims,
    reach::Reach,
};
use crate::guest::Ending;

/// Attempts to reach a port that does not listen yet: a server that has just been started.
const DIAL_ATTEMPTS: u32 = 3;
/// Pause before the second attempt; doubles.
const DIAL_BACKOFF: Duration = Duration::from_millis(100);
/// Longest for one attempt. A guest that runs answers within milliseconds.
const DIAL_MAX: Duration = Duration::from_secs(3);
/// 1xx answers that wait to be passed on; more are left out.
const INTERIMS_MAX: usize = 8;

/// A request's way to its guest.
pub(super) struct Way<'a, G> {
    pub(super) guest: &'a G,
    pub(super) port: Port,
    pub(super) manner: Manner,
    /// Whether connections are kept and shared; a lease has its own.
    pub(super) keep: bool,
    pub(super) deadline: Instant,
    /// Where 1xx answers go, if the edge can take them.
    pub(super) interims: Option<Interims>,
    /// Idle connections that may be kept in all.
    pub(super) places: &'a Arc<Semaphore>,
}

/// A guest's answer and what it came by.
pub(super) type Answer = (Response<Incoming>, Used);

/// Why a connection brought no answer.
enum Broken {
    /// Not a byte was sent.
    Unsent(Request<ToGuest>),
    Sent(Failure),
    /// It closed before it answered.
    Closed(Failure),
}

type Interim = (StatusCode, HeaderMap);

impl<G: Reach> Way<'_, G> {
    /// Sends a request and waits for the head of its answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the guest's connection, or resets the stream.
    pub(super) async fn send(&self, request: Request<ToGuest>) -> Result<Answer, Failure> {
        let mut request = request;
        for attempt in 0..2 {
            let first = attempt == 0;
            let again = first.then(|| spare(&request)).flatten();
            let (broken, kept) = match self.manner {
                Manner::H2c { .. } => {
                    let (stream, kept) = self.stream(first).await?;
                    match self.by_stream(&stream, request).await {
                        Ok(response) => return Ok((response, Used::H2(stream))),
                        Err(broken) => (broken, kept),
                    }
                }
                _ => {
                    let (mut conn, kept) = self.conn(first).await?;
                    match self.by_conn(&mut conn, request).await {
                        Ok(response) => return Ok((response, Used::H1(conn))),
                        Err(broken) => (broken, kept),
                    }
                }
            };
            request = match (broken, again) {
                (Broken::Unsent(unsent), _) if kept => unsent,
                (Broken::Closed(_), Some(again)) if kept => again,
                (Broken::Sent(failure) | Broken::Closed(failure), _) => return Err(failure),
                (Broken::Unsent(_), _) => return Err(self.broke(&"it closed the connection")),
            };
        }
        unreachable!("a second attempt has a connection of its own, and returns")
    }

    async fn conn(&self, may_be_kept: bool) -> Result<(Conn, bool), Failure> {
        let links = self.guest.links();
        let kept = may_be_kept && matches!(self.manner, Manner::Keep);
        if let Some(conn) = kept.then(|| links.take(self.port)).flatten() {
            return Ok((conn, true));
        }
        let epoch = links.epoch();
        let stream = self.dial().await?;
        let conn = Conn::open(stream, links.cutting().clone(), epoch).await;
        Ok((conn.map_err(|error| self.broke(&error))?, false))
    }

    async fn stream(&self, may_be_kept: bool) -> Result<(Arc<Stream2>, bool), Failure> {
        let links = self.guest.links();
        if !self.keep {
            return Ok((Arc::new(self.new_stream().await?), false));
        }
        let opening = timeout_at(self.deadline, links.opening()).await;
        let _opening = opening.map_err(|_| self.late())?;
        if let Some(shared) = may_be_kept.then(|| links.shared(self.port)).flatten() {
            return Ok((shared, true));
        }
        let stream = Arc::new(self.new_stream().await?);
        links.share(self.port, &stream, self.places);
        Ok((stream, false))
    }

    async fn new_stream(&self) -> Result<Stream2, Failure> {
        let links = self.guest.links();
        let epoch = links.epoch();
        let stream = self.dial().await?;
        let opened = Stream2::open(stream, links.cutting().clone(), epoch).await;
        opened.map_err(|error| self.broke(&error))
    }

    async fn by_conn(
        &self,
        conn: &mut Conn,
        mut request: Request<ToGuest>,
    ) -> Result<Response<Incoming>, Broken> {
        let (interim_tx, interim_rx) = mpsc::channel(INTERIMS_MAX);
        if self.interims.is_some() {
            hyper::ext::on_informational(&mut request, move |interim| {
                let status = interim.status();
                if ![StatusCode::CONTINUE, StatusCode::SWITCHING_PROTOCOLS].contains(&status) {
                    // A guest that floods loses some; they are hints.
                    let _ = interim_tx.try_send((status, interim.headers().clone()));
                }
            });
        }
        self.wait(conn.sender.try_send_request(request), interim_rx, |error| self.broke(error))
            .await
    }

    async fn by_stream(
        &self,
        stream: &Stream2,
        request: Request<ToGuest>,
    ) -> Result<Response<Incoming>, Broken> {
        let (_, none) = mpsc::channel(1);
        let broke = |error: &hyper::Error| {
            if stream.line.speaks_h2() {
                return self.broke(error);
            }
            let (sandbox, port) = (self.guest.sandbox(), self.port);
            let message = format!(
                "port {port} of sandbox {sandbox} does not speak HTTP/2 without TLS (h2c): {error}"
            );
            self.failure(ErrorCode::UpstreamReset, message)
        };
        self.wait(stream.sender.clone().try_send_request(request), none, broke).await
    }

    async fn wait(
        &self,
        answer: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<ToGuest>>>>,
        mut interim_rx: mpsc::Receiver<Interim>,
        broke: impl Fn(&hyper::Error) -> Failure,
    ) -> Result<Response<Incoming>, Broken> {
        tokio::pin!(answer);
        let (ended, late) = (self.guest.ended(), sleep_until(self.deadline));
        tokio::pin!(ended, late);
        loop {
            tokio::select! {
                biased;
                ending = &mut ended => {
                    return Err(Broken::Sent(ended_as(self.guest.sandbox(), ending)));
                }
                Some(interim) = interim_rx.recv() => self.pass_on(interim),
                answer = &mut answer => return answer.map_err(|mut error| {
                    match (self.guest.ending(), error.take_message()) {
                        (Some(ending), _) => Broken::Sent(ended_as(self.guest.sandbox(), ending)),
                        (None, Some(unsent)) => Broken::Unsent(unsent),
                        (None, None) => Broken::Closed(broke(error.error())),
                    }
                }),
                () = &mut late => return Err(Broken::Sent(self.late())),
            }
        }
    }

    fn pass_on(&self, (status, mut headers): Interim) {
        if let Some(interims) = &self.interims {
            super::head::strip(&mut headers);
            interims.send(status, &headers);
        }
    }

    /// Dials with backoff; says whether the port is closed or the sandbox is gone.
    async fn dial(&self) -> Result<TcpStream, Failure> {
        let mut pause = DIAL_BACKOFF;
        for attempt in 1..=DIAL_ATTEMPTS {
            let tried = tokio::select! {
                tried = timeout_at(self.deadline, self.guest.dial(self.port, DIAL_MAX)) => tried,
                ending = self.guest.ended() => {
                    return Err(ended_as(self.guest.sandbox(), ending));
                }
            };
            let error = match tried {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => error,
                Err(_) => io::ErrorKind::TimedOut.into(),
            };
            if attempt == DIAL_ATTEMPTS || Instant::now() + pause >= self.deadline {
                return Err(self.unreachable(&error));
            }
            sleep(pause).await;
            pause *= 2;
        }
        unreachable!("the loop returns at its last attempt")
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let (sandbox, port) = (self.guest.sandbox(), self.port);
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => self.failure(
                ErrorCode::PortClosed,
                format!("sandbox {sandbox} is running but port {port} is not open"),
            ),
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                ended_as(sandbox, self.guest.ending().unwrap_or(Ending::Stopped))
            }
            _ => self.failure(
                ErrorCode::GuestUnresponsive,
                format!("sandbox {sandbox} does not answer on port {port}: {error}"),
            ),
        }
    }

    fn broke(&self, error: &dyn std::fmt::Display) -> Failure {
        let sandbox = self.guest.sandbox();
        let message = format!("sandbox {sandbox} broke off before it answered: {error}");
        self.failure(ErrorCode::UpstreamReset, message)
    }

    fn late(&self) -> Failure {
        let message = format!("sandbox {} did not answer in time", self.guest.sandbox());
        self.failure(ErrorCode::DeadlineExceeded, message)
    }

    fn failure(&self, code: ErrorCode, message: impl std::fmt::Display) -> Failure {
        Failure::new(code, message).of(self.guest.sandbox())
    }
}

/// What the end of its sandbox means for a request.
pub(super) fn ended_as(sandbox: SandboxId, ending: Ending) -> Failure {
    let (code, what) = match ending {
        Ending::Crashed => (ErrorCode::SandboxCrashed, "crashed: its machine ended by itself"),
        Ending::Stopped => (ErrorCode::SandboxGone, "has ended"),
        Ending::Paused => (ErrorCode::UpstreamReset, "was paused before it answered"),
    };
    Failure::new(code, format!("sandbox {sandbox} {what}")).of(sandbox)
}

/// Names the sandbox that answered.
pub(super) fn set_sandbox(headers: &mut HeaderMap, sandbox: SandboxId) {
    let value = HeaderValue::from_str(&sandbox.to_string()).expect("an id is ASCII");
    headers.insert(proxy::SANDBOX, value);
}

/// Copies bytes both ways between an edge and a guest that agreed to switch protocols, each half
/// until its end, and holds `held` meanwhile.
pub(super) async fn tunnel(
    edge: OnUpgrade,
    guest: OnUpgrade,
    cut: CancellationToken,
    held: impl Send,
) {
    let (edge, guest) = match tokio::try_join!(edge, guest) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!("upgrade broke off: {error}");
            return;
        }
    };
    let (mut edge, mut guest) = (TokioIo::new(edge), TokioIo::new(guest));
    let copying = tokio::io::copy_bidirectional(&mut edge, &mut guest);
    match cut.run_until_cancelled(copying).await {
        Some(Ok(_)) => {}
        Some(Err(error)) => tracing::debug!("tunnel broke off: {error}"),
        None => tracing::debug!("tunnel's guest ended"),
    }
    drop(held);
}
