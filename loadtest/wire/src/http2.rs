//! HTTP/2.

use std::{
    fmt,
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{self, SendRequest},
    ext::Protocol,
};
use http::{
    HeaderMap, Method, Version,
    uri::{Authority, Scheme},
};
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    CallError, Origin, Request, answer::Head, dial::Stream, tunnel::Tunnel, upload::Upload,
};

/// So large that the windows of flow control are not what is measured, bytes.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 20;
/// Largest frame that is taken, bytes.
const FRAME_MAX_BYTES: u32 = 256 << 10;
/// Most that waits to be sent of one stream, bytes.
const SEND_BUFFER_BYTES: usize = 1 << 20;

/// How often a server's settings are looked at while they have not come.
const LOOK_EVERY: Duration = Duration::from_millis(2);

const HEAD: &str = "the answer's head";
const BODY: &str = "the answer's body";

/// A handle on a connection.
#[derive(Clone)]
pub(crate) struct Sender {
    requests: SendRequest<Bytes>,
    scheme: Scheme,
    authority: Authority,
    driver: Arc<Driver>,
}

/// The task that moves the connection's frames; it ends with the last who needs it.
pub(crate) struct Driver(JoinHandle<Result<(), h2::Error>>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A body that is still coming.
pub(crate) struct Body {
    stream: RecvStream,
    upload: Upload,
    _driver: Arc<Driver>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

/// Begins HTTP/2 on a connection.
pub(crate) async fn open(stream: Stream, origin: &Origin) -> Result<Sender, CallError> {
    let authority =
        origin.authority().parse().map_err(CallError::at("say the host's name by HTTP/2"))?;
    let mut builder = client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_MAX_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .enable_push(false);
    let (requests, connection) =
        builder.handshake(stream).await.map_err(failed("the begin of HTTP/2"))?;
    // Its errors reach us through the requests on it.
    let driver = Arc::new(Driver(tokio::spawn(connection)));
    Ok(Sender { requests, scheme: origin.scheme(), authority, driver })
}

impl Sender {
    pub(crate) fn is_open(&self) -> bool {
        if self.driver.0.is_finished() {
            return false;
        }
        // Not ready is open, too: all streams that the server allows are in use.
        let mut context = Context::from_waker(Waker::noop());
        !matches!(self.requests.clone().poll_ready(&mut context), Poll::Ready(Err(_)))
    }

    pub(crate) async fn start(&mut self, request: &Request) -> Result<(Head, Body), CallError> {
        let mut head = request.head(&self.scheme, &self.authority)?;
        *head.version_mut() = Version::HTTP_2;
        let ready = poll_fn(|context| self.requests.poll_ready(context)).await;
        ready.map_err(failed("the next request"))?;
        let pieces = request.pieces();
        let sent = self.requests.send_request(head, pieces.is_empty());
        let (response, stream) = sent.map_err(failed("the request"))?;
        let mut upload = Upload::none();
        if !pieces.is_empty() {
            upload = Upload::of(send(stream, pieces.to_vec()));
        }
        let response = upload.alongside(response).await.map_err(failed(HEAD))?;
        let (parts, stream) = response.into_parts();
        let head = Head { status: parts.status, version: Version::HTTP_2, headers: parts.headers };
        Ok((head, Body { stream, upload, _driver: Arc::clone(&self.driver) }))
    }

    /// Asks for a tunnel to what speaks `protocol` (RFC 8441), once the server has said that it has
    /// such. Waits for that as long as the caller does.
    pub(crate) async fn connect(
        &mut self,
        protocol: &'static str,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Tunnel, CallError> {
        const STEP: &str = "the request for a tunnel";
        while !self.requests.is_extended_connect_protocol_enabled() {
            if !self.is_open() {
                return Err(CallError::Closed { step: "the server's settings" });
            }
            sleep(LOOK_EVERY).await;
        }
        let ready = poll_fn(|context| self.requests.poll_ready(context)).await;
        ready.map_err(failed(STEP))?;
        let request = Request::new(Method::CONNECT, path);
        let mut head = request.head(&self.scheme, &self.authority)?;
        *head.version_mut() = Version::HTTP_2;
        *head.headers_mut() = headers;
        head.extensions_mut().insert(Protocol::from_static(protocol));
        let (response, send) = self.requests.send_request(head, false).map_err(failed(STEP))?;
        let response = response.await.map_err(failed(HEAD))?;
        match response.status() {
            status if status.is_success() => {
                Ok(Tunnel::new(send, response.into_body(), Arc::clone(&self.driver)))
            }
            status => Err(CallError::NoWebSocket { status }),
        }
    }
}

impl Body {
    /// The next piece.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        let Self { stream, upload, .. } = self;
        while let Some(piece) = upload.alongside(stream.data()).await {
            let piece = piece.map_err(failed(BODY))?;
            let released = stream.flow_control().release_capacity(piece.len());
            released.map_err(failed(BODY))?;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

/// Sends a body, as fast as the server takes it.
async fn send(mut stream: SendStream<Bytes>, pieces: Vec<Bytes>) -> Result<(), h2::Error> {
    for mut piece in pieces {
        while !piece.is_empty() {
            stream.reserve_capacity(piece.len());
            let Some(capacity) = poll_fn(|context| stream.poll_capacity(context)).await else {
                return Ok(()); // the stream was reset, which its answer tells
            };
            let part = piece.split_to(capacity?.min(piece.len()));
            stream.send_data(part, false)?;
        }
    }
    stream.send_data(Bytes::new(), true)
}

fn failed(step: &'static str) -> impl FnOnce(h2::Error) -> CallError {
    move |error| {
        if error.get_io().map(io::Error::kind) == Some(io::ErrorKind::BrokenPipe) {
            // So the crate says that the connection ended.
            CallError::Closed { step }
        } else if error.is_io() {
            match error.into_io() {
                Some(error) => CallError::lost(step)(error),
                None => CallError::Closed { step },
            }
        } else if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) {
            CallError::Closed { step }
        } else if error.is_remote() {
            CallError::Reset { step, source: error.into() }
        } else {
            CallError::protocol(error)
        }
    }
}
