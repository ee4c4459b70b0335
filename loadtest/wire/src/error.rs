//! Why a call had no answer.

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http::StatusCode;

/// What made something fail.
pub(crate) type Source = Box<dyn Error + Send + Sync>;

/// Why a call had no answer. (A refusal is an answer.)
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// A step that needs no other machine failed.
    #[error("could not {step}")]
    Failed {
        /// Which.
        step: &'static str,
        /// How.
        #[source]
        source: Source,
    },
    /// It took too long.
    #[error("{step} took longer than {after:?}")]
    Deadline {
        /// What was waited for.
        step: &'static str,
        /// How long.
        after: Duration,
    },
    /// The name has no address.
    #[error("could not look up {host}")]
    Dns {
        /// The name.
        host: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The harness must not call this address.
    #[error("{address} must not be called: {reason}")]
    RefusedAddress {
        /// Which.
        address: IpAddr,
        /// What would allow it, if anything does.
        reason: &'static str,
    },
    /// There is no connection.
    #[error("could not connect to {address}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: Source,
    },
    /// The connection could not be secured, or is no longer secure.
    #[error("could not speak TLS")]
    Tls {
        /// Why not.
        #[source]
        source: Source,
    },
    /// The server agreed on no protocol, or on another one.
    #[error("the server does not speak {asked}")]
    Alpn {
        /// What it was asked for.
        asked: &'static str,
    },
    /// The connection, or the stream of this request, was torn down.
    #[error("lost the connection during {step}")]
    Reset {
        /// When.
        step: &'static str,
        /// How.
        #[source]
        source: Source,
    },
    /// The server ended the connection in good order, but too soon.
    #[error("the connection ended before {step} did")]
    Closed {
        /// What is missing.
        step: &'static str,
    },
    /// The server said what the protocol does not allow.
    #[error("the server broke the protocol")]
    Protocol {
        /// What.
        #[source]
        source: Source,
    },
    /// The server said more than is taken.
    #[error("{what} has more than {max_bytes} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How many bytes it may have.
        max_bytes: usize,
    },
    /// The server would not open a WebSocket.
    #[error("the server answered {status} to a WebSocket")]
    NoWebSocket {
        /// What it answered.
        status: StatusCode,
    },
}

impl CallError {
    /// Wraps whatever made `step` fail.
    pub fn at<E: Into<Source>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Failed { step, source: source.into() }
    }

    /// Wraps what the transport said during `step`.
    pub(crate) fn lost(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed { step },
            // rustls tells of whatever it does not like so.
            io::ErrorKind::InvalidData => Self::Tls { source: error.into() },
            _ => Self::Reset { step, source: error.into() },
        }
    }

    pub(crate) fn protocol<E: Into<Source>>(source: E) -> Self {
        Self::Protocol { source: source.into() }
    }

    /// A word to count it by.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Failed { .. } => "failed",
            Self::Deadline { .. } => "timeout",
            Self::Dns { .. } => "dns",
            Self::RefusedAddress { .. } => "refused_address",
            Self::Connect { .. } => "connect",
            Self::Tls { .. } => "tls",
            Self::Alpn { .. } => "alpn",
            Self::Reset { .. } => "reset",
            Self::Closed { .. } => "closed",
            Self::Protocol { .. } => "protocol",
            Self::TooLarge { .. } => "too_large",
            Self::NoWebSocket { .. } => "no_websocket",
        }
    }

    /// Whether the time was up, as opposed to a connection that broke.
    #[must_use]
    pub const fn is_deadline(&self) -> bool {
        matches!(self, Self::Deadline { .. })
    }

    /// Its message and those of everything behind it.
    #[must_use]
    pub fn in_full(&self) -> String {
        loadtest_model::chain(self)
    }
}
