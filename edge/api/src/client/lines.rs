//! Reads an answer line by line as it comes.

use bytes::BytesMut;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::ClientError;

/// Longest line that is taken.
const MAX_LINE_BYTES: usize = 4 << 20;

/// The lines of an answer. Dropping it hangs up.
#[derive(Debug)]
pub(super) struct Lines {
    status: StatusCode,
    body: Incoming,
    /// Received and not yet handed out.
    buffer: BytesMut,
    ended: bool,
}

impl Lines {
    pub(super) fn new(response: Response<Incoming>) -> Self {
        let status = response.status();
        Self { status, body: response.into_body(), buffer: BytesMut::new(), ended: false }
    }

    /// The next line without its end; `None` once the answer has ended and everything was read.
    /// What comes after the last line's end is a line too, unless it is nothing.
    ///
    /// Cancel-safe: what was received stays.
    pub(super) async fn next(&mut self) -> Result<Option<BytesMut>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(end + 1);
                line.truncate(end);
                return Ok(Some(line));
            }
            if self.ended {
                let rest = std::mem::take(&mut self.buffer);
                return Ok(Some(rest).filter(|rest| !rest.is_empty()));
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                return Err(self.bad("a line is too long"));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame.map_err(ClientError::Http)?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None => self.ended = true,
            }
        }
    }

    /// What came was not understood.
    pub(super) fn bad(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ClientError {
        ClientError::BadAnswer { status: self.status, source: source.into() }
    }
}
