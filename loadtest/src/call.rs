//! One request and its answer, the same over HTTP/1.1, HTTP/2 and HTTP/3.

use std::{fmt, str::FromStr, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use tokio::time::{Instant, timeout_at};

use crate::{CallError, ServerTiming, Stack, quic, tcp};

/// Longest to open a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longest for a request, from its first byte to the last of its answer, unless it says otherwise.
const CALL_MAX: Duration = Duration::from_secs(60);

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 over TLS.
    H1,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/3 over QUIC.
    H3,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::H1, Self::H2, Self::H3];

    /// The version that its answers have.
    #[must_use]
    pub const fn version(self) -> Version {
        match self {
            Self::H1 => Version::HTTP_11,
            Self::H2 => Version::HTTP_2,
            Self::H3 => Version::HTTP_3,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H1 => "HTTP/1.1",
            Self::H2 => "HTTP/2",
            Self::H3 => "HTTP/3",
        })
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) pieces: Vec<Bytes>,
    within: Duration,
}

impl Request {
    /// A GET of a path and query.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// A request without a body.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        let (headers, pieces) = (HeaderMap::new(), Vec::new());
        Self { method, path: path.into(), headers, pieces, within: CALL_MAX }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Gives it a body, sent piece by piece and without a length.
    #[must_use]
    pub fn body(mut self, pieces: Vec<Bytes>) -> Self {
        self.pieces = pieces;
        self
    }

    /// Bounds it, from its first byte to the last of its answer.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// The head, its target in absolute form.
    pub(crate) fn head(&self, authority: &str) -> Result<http::Request<()>, CallError> {
        const STEP: &str = "write the request's head";
        let uri = Uri::from_str(&format!("https://{authority}{}", self.path))
            .map_err(CallError::at(STEP))?;
        let mut head = http::Request::builder()
            .method(self.method.clone())
            .uri(uri)
            .body(())
            .map_err(CallError::at(STEP))?;
        *head.headers_mut() = self.headers.clone();
        Ok(head)
    }
}

/// A connection; requests go one after the other.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
}

#[derive(Debug)]
enum Sender {
    Tcp(tcp::Sender),
    Quic(Box<quic::Sender>),
}

impl Connection {
    /// Connects to the stack, which must speak exactly `protocol` for `host`.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn open(stack: &Stack, host: &str, protocol: Protocol) -> Result<Self, CallError> {
        let authority = format!("{host}:{}", stack.dev().https_port);
        within("connecting", Instant::now() + CONNECT_MAX, CONNECT_MAX, async {
            Ok(match protocol {
                Protocol::H1 => Sender::Tcp(tcp::open(stack, host, authority, false).await?),
                Protocol::H2 => Sender::Tcp(tcp::open(stack, host, authority, true).await?),
                Protocol::H3 => Sender::Quic(Box::new(quic::open(stack, host, authority).await?)),
            })
        })
        .await
        .map(|sender| Self { sender })
    }

    /// Connects in the clear and says whatever `host` is, however malformed.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn plain(stack: &Stack, host: &str) -> Result<Self, CallError> {
        within("connecting", Instant::now() + CONNECT_MAX, CONNECT_MAX, tcp::plain(stack, host))
            .await
            .map(|sender| Self { sender: Sender::Tcp(sender) })
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    ///
    /// [`CallError`] if there is no answer or not all of it.
    pub async fn call(&mut self, request: Request) -> Result<Answer, CallError> {
        let mut incoming = self.start(request).await?;
        let mut body = BytesMut::new();
        while let Some(piece) = incoming.next().await? {
            body.extend_from_slice(&piece);
        }
        let Incoming { status, version, headers, .. } = incoming;
        Ok(Answer { status, version, headers, body: body.freeze() })
    }

    /// Sends a request and reads the head of the answer.
    ///
    /// # Errors
    ///
    /// [`CallError`] if there is none.
    pub async fn start(&mut self, request: Request) -> Result<Incoming, CallError> {
        let allowed = request.within;
        let deadline = Instant::now() + allowed;
        let (head, body) = within("the answer's head", deadline, allowed, async {
            Ok(match &mut self.sender {
                Sender::Tcp(sender) => {
                    let (head, body) = sender.start(request).await?;
                    (head, Body::Tcp(body))
                }
                Sender::Quic(sender) => {
                    let (head, body) = sender.start(request).await?;
                    (head, Body::Quic(Box::new(body)))
                }
            })
        })
        .await?;
        let (status, version, headers) = (head.status, head.version, head.headers);
        Ok(Incoming { status, version, headers, body, deadline, allowed })
    }
}

/// An answer whose body is still coming.
#[derive(Debug)]
pub struct Incoming {
    /// Its status.
    pub status: StatusCode,
    /// The protocol it came by.
    pub version: Version,
    /// Its headers.
    pub headers: HeaderMap,
    body: Body,
    deadline: Instant,
    allowed: Duration,
}

#[derive(Debug)]
enum Body {
    Tcp(hyper::body::Incoming),
    Quic(Box<quic::Body>),
}

impl Incoming {
    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    ///
    /// [`CallError`] if it breaks off or the request's time is up.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        let (deadline, allowed) = (self.deadline, self.allowed);
        within("the answer's body", deadline, allowed, async {
            match &mut self.body {
                Body::Tcp(body) => tcp::next(body).await,
                Body::Quic(body) => quic::next(body).await,
            }
        })
        .await
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// The protocol it came by.
    pub version: Version,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// A header as text, if it is there and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Where the time went, as the answer says.
    #[must_use]
    pub fn timing(&self) -> ServerTiming {
        ServerTiming::of(&self.headers)
    }

    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// [`CallError`] if it isn't.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body).map_err(CallError::at("understand the answer's JSON"))
    }
}

async fn within<T>(
    step: &'static str,
    deadline: Instant,
    after: Duration,
    work: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    timeout_at(deadline, work).await.unwrap_or(Err(CallError::Deadline { step, after }))
}
