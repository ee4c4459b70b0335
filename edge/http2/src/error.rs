//! What can go wrong with a connection, a body, an interim answer.

use std::io;

use crate::wire::Code;

/// Any error of an answer's body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The preface or the first settings did not come in time.
    #[error("the HTTP/2 handshake took too long")]
    Handshake,
    /// The client broke the protocol.
    #[error("the client broke HTTP/2 ({code}): {reason}")]
    Protocol {
        /// What the client was told.
        code: Code,
        /// Which rule.
        reason: &'static str,
    },
    /// The connection broke.
    #[error("the HTTP/2 connection broke")]
    Io(#[from] io::Error),
    /// The client sent what costs more than it brings.
    #[error("the client was sent away: {0}")]
    Excess(&'static str),
    /// The client did not answer a PING.
    #[error("the client does not answer")]
    Dead,
}

/// Why a request's body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The client gave the request up.
    #[error("the client reset the stream ({code})")]
    Reset {
        /// What it said.
        code: Code,
    },
    /// The client broke a rule.
    #[error("malformed body: {0}")]
    Malformed(&'static str),
    /// The connection is gone.
    #[error("the connection was lost")]
    Lost,
    /// Nothing came for too long.
    #[error("the request's body came too slowly")]
    Late,
}

/// An interim answer is not sent: it is none, the final one has begun, there are too many, or the client
/// is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an interim answer comes too late, or is none")]
pub struct InterimError;
