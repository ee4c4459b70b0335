//! A request's body as something that blocking code can read.

use std::io::{self, BufReader, Read};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use futures::{Stream, TryStreamExt as _};
use http::{HeaderMap, header};
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::bad_request;
use crate::http::Refusal;

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Not at all.
    Identity,
    /// With gzip.
    Gzip,
}

impl Encoding {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(Self::Identity) };
        match value.as_bytes() {
            b"" | b"identity" => Ok(Self::Identity),
            b"gzip" | b"x-gzip" => Ok(Self::Gzip),
            _ => Err(bad_request("unknown content encoding: expected gzip or identity")),
        }
    }
}

/// A body that is read by blocking code; made inside the runtime, read outside of it.
pub(super) struct Content {
    plain: Box<dyn Read + Send>,
    encoding: Encoding,
}

impl Content {
    pub(super) fn new<S, E>(stream: S, encoding: Encoding) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let stream = Box::pin(stream.map_err(io::Error::other));
        Self { plain: Box::new(SyncIoBridge::new(StreamReader::new(stream))), encoding }
    }

    /// Blocks already, as unpacking reads its header first.
    pub(super) fn reader(self) -> Box<dyn Read + Send> {
        match self.encoding {
            Encoding::Identity => self.plain,
            Encoding::Gzip => Box::new(MultiGzDecoder::new(BufReader::new(self.plain))),
        }
    }
}
