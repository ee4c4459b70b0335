//! Reads the lines of an exec answer as they come.

use bytes::BytesMut;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::ClientError;
use crate::ExecEvent;

/// Longest line that is taken.
const MAX_LINE_BYTES: usize = 4 << 20;

/// The events of a running command. Dropping it ends the command (unless it is in the background).
#[derive(Debug)]
pub struct ExecStream {
    status: http::StatusCode,
    body: Incoming,
    /// Received and not yet handed out.
    buffer: BytesMut,
    ended: bool,
}

impl ExecStream {
    pub(super) fn new(response: Response<Incoming>) -> Self {
        let status = response.status();
        Self { status, body: response.into_body(), buffer: BytesMut::new(), ended: false }
    }

    /// The next event; `None` once the command has ended and everything was read.
    ///
    /// Waits as long as the command is silent: the server bounds how long it runs.
    ///
    /// # Errors
    ///
    /// [`ClientError`] if the connection broke or a line was not understood.
    pub async fn next(&mut self) -> Result<Option<ExecEvent>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                if !line.trim_ascii().is_empty() {
                    return self.parse(&line).map(Some);
                }
                continue;
            }
            if self.ended {
                let rest = std::mem::take(&mut self.buffer);
                return if rest.trim_ascii().is_empty() {
                    Ok(None)
                } else {
                    self.parse(&rest).map(Some)
                };
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                return Err(self.bad("a line is too long".into()));
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

    fn parse(&self, line: &[u8]) -> Result<ExecEvent, ClientError> {
        serde_json::from_slice(line).map_err(|error| self.bad(error.into()))
    }

    fn bad(&self, source: Box<dyn std::error::Error + Send + Sync>) -> ClientError {
        ClientError::BadAnswer { status: self.status, source }
    }
}
