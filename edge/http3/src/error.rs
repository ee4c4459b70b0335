//! Why a connection, a body or an interim answer fails.

use crate::wire::{Code, FrameError};

/// Any error of an answer's body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a connection ended early.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectionError {
    /// The client broke the protocol, or made us work without need.
    #[error("the client was sent away with {code}: {reason}")]
    Refused {
        /// What the connection was closed with.
        code: Code,
        /// What the client did.
        reason: String,
    },
    /// The client closed the connection with an error.
    #[error("the client closed the connection with the code {code:#x}")]
    Peer {
        /// The code it gave, of HTTP/3 (RFC 9114 8.1).
        code: u64,
    },
    /// The connection broke.
    #[error("the QUIC connection broke")]
    Transport(#[from] quinn::ConnectionError),
}

/// Why a request's body does not come to its end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BodyError {
    /// It breaks a rule of HTTP.
    #[error("malformed body: {0}")]
    Malformed(&'static str),
    /// It breaks a rule of HTTP/3 for which the connection is closed.
    #[error("the body's frames are wrong")]
    Frame(#[from] FrameError),
    /// The client gave the request up.
    #[error("the client reset the stream with the code {code:#x}")]
    Reset {
        /// The code it gave, of HTTP/3 (RFC 9114 8.1).
        code: u64,
    },
    /// Nothing came for too long.
    #[error("the request's body came too slowly")]
    Late,
    /// The connection is gone.
    #[error("the connection is gone")]
    Lost,
}

/// An interim answer is not sent: it is none, there are too many, or the final one has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an interim answer comes too late, or is none")]
pub struct InterimError;
