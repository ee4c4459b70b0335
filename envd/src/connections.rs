//! Open connections, and closing them at the two edges of a snapshot.
//!
//! # Invariants
//!
//! - When a quiesce or an init is answered, every connection that was open before it is closed,
//!   but the one that carries the answer, which closes right after.
//!
//! # Limits
//!
//! 256 connections, further ones wait unaccepted; 250 ms for answers in flight when closing;
//! 640 s idle; a dead peer is noticed after about 90 s.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::guest::Guest;
use crate::http::{Body, route};

/// Most connections that are served at a time.
const CONNECTIONS_MAX: usize = 256;

/// How long answers in flight have when everything is closed.
const CLOSE_GRACE: Duration = Duration::from_millis(250);

/// How long the answer may take that the closing itself was asked for by.
const CALLER_GRACE: Duration = Duration::from_secs(60);

/// Longest wait for a request's head, the idle time between requests included. E2B's figure.
const IDLE: Duration = Duration::from_secs(640);

/// Names one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionId(u64);

/// The last order to close; `round` grows with each.
#[derive(Debug, Clone, Copy, Default)]
struct Closing {
    round: u64,
    spared: Option<ConnectionId>,
}

/// All open connections.
#[derive(Debug)]
pub(crate) struct Connections {
    closing: watch::Sender<Closing>,
    open: watch::Sender<usize>,
}

impl Connections {
    fn new() -> Self {
        Self { closing: watch::Sender::default(), open: watch::Sender::default() }
    }

    /// Closes everything that is open: idle ones at once, others when their answer is out, and
    /// what isn't by then, such as an event stream, is cut.
    pub(crate) async fn close_all_but(&self, caller: ConnectionId) {
        self.closing.send_modify(|closing| {
            closing.round += 1;
            closing.spared = Some(caller);
        });
        let mut open = self.open.subscribe();
        // New ones may have come since, so this can run out; the old ones are closed anyway.
        let _ = timeout(2 * CLOSE_GRACE, open.wait_for(|open| *open <= 1)).await;
    }
}

/// Counts a connection for as long as it lives.
struct Counted {
    connections: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
}

impl Counted {
    fn new(connections: Arc<Connections>, permit: OwnedSemaphorePermit) -> Self {
        connections.open.send_modify(|open| *open += 1);
        Self { connections, _permit: permit }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.open.send_modify(|open| *open -= 1);
    }
}

/// Serves `guest` on `listener` until `stop`, then closes everything.
pub async fn serve(listener: TcpListener, guest: Arc<Guest>, stop: CancellationToken) {
    let connections = Arc::new(Connections::new());
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let tasks = TaskTracker::new();
    let mut next_id = 0;
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        let (permit, stream) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accepted => match accepted {
                Some((permit, Ok((stream, _)))) => (permit, stream),
                Some((_, Err(error))) => {
                    // Usually out of descriptors: wait for some connection to end.
                    tracing::warn!("can't accept a connection: {error}");
                    tokio::time::sleep(CLOSE_GRACE).await;
                    continue;
                }
                None => break,
            },
        };
        next_id += 1;
        let counted = Counted::new(Arc::clone(&connections), permit);
        let connection = drive(stream, ConnectionId(next_id), Arc::clone(&guest), counted);
        let stop = stop.clone();
        tasks.spawn(async move { stop.run_until_cancelled(connection).await });
    }
    tasks.close();
    tasks.wait().await;
}

async fn drive(stream: TcpStream, id: ConnectionId, guest: Arc<Guest>, counted: Counted) {
    let mut closing = counted.connections.closing.subscribe();
    tune(&stream);
    let connections = Arc::clone(&counted.connections);
    let service = service_fn(move |request: Request<Incoming>| {
        let (guest, connections) = (Arc::clone(&guest), Arc::clone(&connections));
        async move { Ok::<Response<Body>, hyper::Error>(route(guest, connections, id, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let grace = tokio::select! {
        served = connection.as_mut() => return ended(id, served),
        changed = closing.changed() => match changed {
            Ok(()) if closing.borrow().spared == Some(id) => CALLER_GRACE,
            _ => CLOSE_GRACE,
        },
    };
    connection.as_mut().graceful_shutdown();
    if let Ok(served) = timeout(grace, connection).await {
        ended(id, served);
    }
}

fn ended(id: ConnectionId, served: Result<(), hyper::Error>) {
    if let Err(error) = served {
        tracing::debug!("connection {} broke: {error}", id.0);
    }
}

/// Small answers leave at once, and a peer that vanished is noticed.
fn tune(stream: &TcpStream) {
    let tuned = stream.set_nodelay(true).and_then(|()| {
        setsockopt(stream, sockopt::KeepAlive, &true)?;
        setsockopt(stream, sockopt::TcpKeepIdle, &60)?;
        setsockopt(stream, sockopt::TcpKeepInterval, &10)?;
        setsockopt(stream, sockopt::TcpKeepCount, &3)?;
        Ok(())
    });
    if let Err(error) = tuned {
        tracing::debug!("connection keeps the system's settings: {error}");
    }
}

/// Opens the daemon's port.
///
/// # Errors
///
/// What the system said; the message names the address.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let opened = TcpListener::bind(address).await;
    opened.map_err(|source| ListenError { address, source })
}

/// Why the port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}")]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}
