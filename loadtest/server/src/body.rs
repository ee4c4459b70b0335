//! Bodies of requests, whatever brings them, and of answers.

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::Stream;
use h3_quinn::RecvStream;
use http_body_util::{BodyExt as _, Either, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body as _, Frame, Incoming};
use tokio::time::timeout;

/// The longest silence inside a request's body.
const PIECE_WAIT: Duration = Duration::from_secs(30);

/// Byte `i` of what is served is `i` modulo this.
const PATTERN_PERIOD: usize = 251;
/// A whole number of periods, so that each piece begins like the first.
pub(crate) const PATTERN_BYTES: usize = PATTERN_PERIOD * 256;
static PATTERN: [u8; PATTERN_BYTES] = pattern();

/// What an answer carries.
pub(crate) type Outbound = Either<Full<Bytes>, UnsyncBoxBody<Bytes, Cut>>;
/// A piece of it, or its sudden end.
pub(crate) type Piece = Result<Frame<Bytes>, Cut>;

/// The end of an answer that isn't whole, on purpose: the stream is reset, or its connection.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("cut on purpose")]
pub(crate) struct Cut;

/// What a request carries.
pub(crate) enum Inbound {
    Tcp(Incoming),
    Quic(h3::server::RequestStream<RecvStream, Bytes>),
}

/// A body that didn't come whole.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the request's body ended early")]
pub(crate) struct Incomplete;

impl Inbound {
    /// Whether nothing comes, as far as is known by now.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Tcp(incoming) => incoming.is_end_stream(),
            Self::Quic(_) => false,
        }
    }

    /// The next piece; none after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Incomplete> {
        timeout(PIECE_WAIT, self.piece()).await.map_err(|_| Incomplete)?
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, Incomplete> {
        match self {
            Self::Tcp(incoming) => loop {
                let Some(frame) = incoming.frame().await else { return Ok(None) };
                // Trailers say nothing to us.
                if let Ok(data) = frame.map_err(|_| Incomplete)?.into_data() {
                    return Ok(Some(data));
                }
            },
            Self::Quic(recv) => {
                let data = recv.recv_data().await.map_err(|_| Incomplete)?;
                Ok(data.map(|mut data| data.copy_to_bytes(data.remaining())))
            }
        }
    }
}

/// An answer known in full.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Outbound {
    Either::Left(Full::new(bytes.into()))
}

/// An answer that is made piece by piece.
pub(crate) fn stream(pieces: impl Stream<Item = Piece> + Send + 'static) -> Outbound {
    Either::Right(StreamBody::new(pieces).boxed_unsync())
}

/// So many bytes of the pattern, from its begin.
///
/// # Panics
///
/// If it is more than [`PATTERN_BYTES`].
pub(crate) fn pattern_bytes(bytes: usize) -> Bytes {
    Bytes::from_static(&PATTERN[..bytes])
}

#[allow(clippy::cast_possible_truncation)] // below 251
const fn pattern() -> [u8; PATTERN_BYTES] {
    let mut pattern = [0; PATTERN_BYTES];
    let mut at = 0;
    while at < PATTERN_BYTES {
        pattern[at] = (at % PATTERN_PERIOD) as u8;
        at += 1;
    }
    pattern
}
