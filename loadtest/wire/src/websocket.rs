//! WebSockets over HTTP/1.1 (RFC 6455) and HTTP/2 (RFC 8441).

use std::fmt;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, header};
use loadtest_model::Protocol;
use tokio::time::Instant;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, handshake::client::generate_key, protocol::Role},
};
use tokio_util::either::Either;

use crate::{
    CallError, Connection, OpenTimes, Origin, Request,
    answer::within,
    dial::{self, Stream},
    tunnel::Tunnel,
};

/// The only one there is (RFC 6455 4.1).
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Of text.
    Text(String),
    /// Of bytes.
    Binary(Bytes),
}

/// A WebSocket. All that is done with it has one deadline.
pub struct WebSocket {
    /// On a connection of its own, or on a stream of one.
    stream: WebSocketStream<Either<Stream, Tunnel>>,
    opened: Instant,
    deadline: Instant,
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl WebSocket {
    /// Connects to an origin and asks it for a WebSocket.
    ///
    /// # Errors
    ///
    /// [`CallError`]; if the server answers something else, it says which status.
    pub async fn open(
        origin: &Origin,
        path: &str,
        headers: &HeaderMap,
        deadline: Instant,
    ) -> Result<(Self, OpenTimes), CallError> {
        let opened = Instant::now();
        let mut times = OpenTimes::default();
        let after = deadline.saturating_duration_since(opened);
        let request = request(origin, path, headers)?;
        let stream = within("connecting", deadline, after, async {
            dial::dial(origin, Protocol::H1, &mut times).await
        })
        .await?;
        let (stream, _) = within("opening a WebSocket", deadline, after, async {
            let opened = client_async(request, Either::Left(stream)).await;
            opened.map_err(|error| failed("the opening of a WebSocket", error))
        })
        .await?;
        Ok((Self { stream, opened, deadline }, times))
    }

    /// Asks for a WebSocket on a connection that is there, one of HTTP/2; other requests may go on
    /// beside it.
    ///
    /// # Errors
    ///
    /// [`CallError`]; if the server answers something else, it says which status. A server that never
    /// says that it has WebSockets over HTTP/2 is waited for until the deadline.
    pub async fn open_on(
        connection: &mut Connection,
        path: &str,
        headers: &HeaderMap,
        deadline: Instant,
    ) -> Result<Self, CallError> {
        let opened = Instant::now();
        let mut headers = headers.clone();
        headers.insert(header::SEC_WEBSOCKET_VERSION, VERSION);
        let Some(sender) = connection.http2() else {
            let step = "open a WebSocket on a connection";
            return Err(CallError::Failed { step, source: "it is not of HTTP/2".into() });
        };
        let after = deadline.saturating_duration_since(opened);
        let tunnel = within("opening a WebSocket", deadline, after, async {
            sender.connect("websocket", path, headers).await
        });
        let io = Either::Right(tunnel.await?);
        let stream = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        Ok(Self { stream, opened, deadline })
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn send(&mut self, message: Message) -> Result<(), CallError> {
        let message = match message {
            Message::Text(text) => tungstenite::Message::text(text),
            Message::Binary(bytes) => tungstenite::Message::binary(bytes),
        };
        within("sending a message", self.deadline, self.allowed(), async {
            let sent = self.stream.send(message).await;
            sent.map_err(|error| failed("the message that is sent", error))
        })
        .await
    }

    /// The next message; `None` when the server has closed it. Pings are answered.
    ///
    /// # Errors
    ///
    /// [`CallError`]; a connection that ends without a farewell is one.
    pub async fn next(&mut self) -> Result<Option<Message>, CallError> {
        const STEP: &str = "the next message";
        within(STEP, self.deadline, self.allowed(), async {
            loop {
                let Some(message) = self.stream.next().await else { return Ok(None) };
                match message {
                    Ok(tungstenite::Message::Text(text)) => {
                        return Ok(Some(Message::Text(text.as_str().to_owned())));
                    }
                    Ok(tungstenite::Message::Binary(bytes)) => {
                        return Ok(Some(Message::Binary(bytes)));
                    }
                    Ok(_) => {}
                    Err(tungstenite::Error::ConnectionClosed) => return Ok(None),
                    Err(error) => return Err(failed(STEP, error)),
                }
            }
        })
        .await
    }

    /// Says farewell and waits for the server's. Messages that still come are thrown away.
    ///
    /// # Errors
    ///
    /// [`CallError`] if there is none.
    pub async fn close(mut self) -> Result<(), CallError> {
        const STEP: &str = "the server's farewell";
        within(STEP, self.deadline, self.allowed(), async {
            match self.stream.close(None).await {
                Ok(()) | Err(tungstenite::Error::ConnectionClosed) => {}
                Err(error) => return Err(failed(STEP, error)),
            }
            while let Some(message) = self.stream.next().await {
                match message {
                    Ok(_) => {}
                    Err(tungstenite::Error::ConnectionClosed) => break,
                    Err(error) => return Err(failed(STEP, error)),
                }
            }
            Ok(())
        })
        .await
    }

    fn allowed(&self) -> std::time::Duration {
        self.deadline.saturating_duration_since(self.opened)
    }
}

fn request(
    origin: &Origin,
    path: &str,
    headers: &HeaderMap,
) -> Result<http::Request<()>, CallError> {
    const STEP: &str = "write the request for a WebSocket";
    let authority = origin.authority().parse().map_err(CallError::at(STEP))?;
    let mut request = Request::get(path).head(&origin.scheme(), &authority)?;
    // Its scheme is one of its own.
    let secure = origin.scheme() == http::uri::Scheme::HTTPS;
    let uri = format!("{}://{authority}{path}", if secure { "wss" } else { "ws" });
    *request.uri_mut() = uri.parse().map_err(CallError::at(STEP))?;
    let fields = request.headers_mut();
    fields.extend(headers.clone());
    let mut put = |name, value: &str| {
        let value = HeaderValue::from_str(value).map_err(CallError::at(STEP))?;
        fields.insert(name, value);
        Ok::<_, CallError>(())
    };
    put(header::HOST, authority.as_str())?;
    put(header::CONNECTION, "Upgrade")?;
    put(header::UPGRADE, "websocket")?;
    put(header::SEC_WEBSOCKET_KEY, &generate_key())?;
    fields.insert(header::SEC_WEBSOCKET_VERSION, VERSION);
    Ok(request)
}

fn failed(step: &'static str, error: tungstenite::Error) -> CallError {
    use tungstenite::error::{CapacityError, ProtocolError};
    match error {
        tungstenite::Error::Io(error) => CallError::lost(step)(error),
        tungstenite::Error::ConnectionClosed
        | tungstenite::Error::AlreadyClosed
        | tungstenite::Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::HandshakeIncomplete,
        ) => CallError::Closed { step },
        tungstenite::Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
            CallError::TooLarge { what: "a message", max_bytes: max_size }
        }
        tungstenite::Error::Http(answer) => CallError::NoWebSocket { status: answer.status() },
        error => CallError::protocol(error),
    }
}
