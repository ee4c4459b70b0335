//! A server connection: reads heads, calls the service, writes answers, in order.

mod config;
mod connection;
mod recv_body;
mod respond;
mod shared;

use std::{fmt, io};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

pub use self::{
    config::{Config, Counters},
    recv_body::{RecvBody, RecvError},
    shared::{Interim, InterimError},
};
use crate::{
    BoxError,
    head::HeadFault,
    io::{Reader, Writer},
};

/// How a connection ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// Requests that were answered to the end.
    pub requests: u64,
}

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The client broke a rule or a limit; it was told, if there was still a way.
    #[error("the client was refused: {0:?}")]
    Refused(Refusal),
    /// The client went away while it was being served.
    #[error("the client went away")]
    Gone,
    /// The client took no bytes of its answer for too long.
    #[error("the client took no bytes for too long")]
    Stalled,
    /// An answer's body broke off; the client must not take it for whole.
    #[error("the answer broke off")]
    Answer(#[source] BoxError),
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
}

/// Why a request is answered before it reached the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The head breaks a rule: 400.
    Malformed(&'static str),
    /// The head did not come in time: 408.
    HeadTimeout,
    /// The request target is too long: 414.
    TargetTooLong,
    /// The head is too large: 431.
    HeadTooLarge,
    /// A transfer coding that is not known: 501.
    UnknownCoding,
    /// A version that is not served: 505.
    Version,
}

impl Refusal {
    /// The status that says it.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(reason) => write!(f, "the request is malformed: {reason}"),
            Self::HeadTimeout => f.write_str("the request's head did not come in time"),
            Self::TargetTooLong => f.write_str("the request target is too long"),
            Self::HeadTooLarge => f.write_str("the request's head is too large"),
            Self::UnknownCoding => f.write_str("the transfer coding is not known"),
            Self::Version => f.write_str("the HTTP version is not served"),
        }
    }
}

impl From<HeadFault> for Refusal {
    fn from(fault: HeadFault) -> Self {
        match fault {
            HeadFault::Malformed(reason) => Self::Malformed(reason),
            HeadFault::TooLarge => Self::HeadTooLarge,
            HeadFault::TargetTooLong => Self::TargetTooLong,
            HeadFault::Version => Self::Version,
            HeadFault::Coding => Self::UnknownCoding,
        }
    }
}

/// Serves a connection until the client leaves, an error, or `drain` and the end of the request
/// under way. `read_ahead` was read from the connection before.
///
/// [`RecvBody::interim`] sends 1xx answers. If the service answers `101` to a request that asked for an
/// upgrade, the request's body and the answer's body become the two directions of a tunnel.
///
/// # Errors
///
/// [`ServeError`]; a client that leaves between requests is none.
///
/// # Cancel safety
///
/// Dropping the future closes the connection and drops the service's future and bodies.
pub async fn serve<I, S, F, B>(
    io: I,
    read_ahead: Bytes,
    config: &Config,
    counters: &Counters,
    service: S,
    drain: CancellationToken,
) -> Result<Ended, ServeError>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: FnMut(Request<RecvBody>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let (read, write) = tokio::io::split(io);
    let reader = Reader::new(Box::new(read), &read_ahead);
    let writer = Writer::new(Box::new(write));
    connection::Connection::new(reader, writer, config, counters, drain).run(service).await
}
