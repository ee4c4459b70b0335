//! Calls the guest daemon from the host.
//!
//! # Limits
//!
//! Every call ends within the client's deadline (10 s unless set); uploads and downloads included.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    ACCESS_TOKEN_HEADER, Health, Init, Metrics, VERSION_HEADER,
    error::{EnvdError, shortened},
    transport::{AnswerBody, Connect, Transport},
};

/// Longest JSON answer that is read.
const JSON_MAX_BYTES: usize = 1 << 20;

/// Longest body of a refusal that is read.
const REFUSAL_MAX_BYTES: usize = 64 << 10;

/// Deadline of a call unless one is set.
const DEADLINE: Duration = Duration::from_secs(10);

/// Calls one sandbox's guest daemon; cheap to clone.
#[derive(Clone)]
pub struct EnvdClient {
    pub(crate) transport: Transport,
    pub(crate) token: Option<HeaderValue>,
    pub(crate) deadline: Duration,
}

impl fmt::Debug for EnvdClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvdClient")
            .field("token", &self.token.is_some())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// A file that the guest daemon wrote.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct WrittenFile {
    /// Its absolute path.
    pub path: String,
    /// Its last component.
    pub name: String,
}

/// The body of a refusal; also envd's own error shape.
#[derive(Debug, Deserialize)]
struct Refusal {
    message: String,
}

impl EnvdClient {
    /// A client without an access token and with a deadline of 10 s.
    pub fn new(connector: impl Connect) -> Self {
        Self { transport: Transport::new(Arc::new(connector)), token: None, deadline: DEADLINE }
    }

    /// The same client carrying an access token; one that no header can hold is left out.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = HeaderValue::from_str(token).ok().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        self
    }

    /// The same client with another deadline per call.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Asks whether the daemon answers.
    ///
    /// # Errors
    ///
    /// [`EnvdError`]; a guest that isn't up yet is [`EnvdError::Unreachable`].
    pub async fn health(&self) -> Result<Health, EnvdError> {
        const CALL: &str = "tell its health";
        let asked = self.plain(CALL, Method::GET, "/health".to_owned(), None, Bytes::new());
        let answer = self.bounded(CALL, asked).await?;
        Ok(Health { version: version(answer.headers()) })
    }

    /// Makes the sandbox unique and thaws it; done when this returns. Returns the version.
    ///
    /// # Errors
    ///
    /// [`EnvdError`]; the refusal names the step that failed, and the guest stays frozen.
    pub async fn init(&self, init: &Init) -> Result<Health, EnvdError> {
        const CALL: &str = "initialise";
        let body = serde_json::to_vec(init).map_err(|e| EnvdError::malformed(CALL, e))?;
        let json = Some("application/json");
        let asked = self.plain(CALL, Method::POST, "/init".to_owned(), json, body.into());
        let answer = self.bounded(CALL, asked).await?;
        Ok(Health { version: version(answer.headers()) })
    }

    /// Readies the guest for a snapshot: processes frozen, disks synced, secrets forgotten.
    ///
    /// # Errors
    ///
    /// [`EnvdError`]; after a refusal the guest runs as before.
    pub async fn quiesce(&self) -> Result<(), EnvdError> {
        const CALL: &str = "quiesce";
        let asked = self.plain(CALL, Method::POST, "/quiesce".to_owned(), None, Bytes::new());
        self.bounded(CALL, asked).await.map(drop)
    }

    /// Reads what the sandbox uses.
    ///
    /// # Errors
    ///
    /// [`EnvdError`].
    pub async fn metrics(&self) -> Result<Metrics, EnvdError> {
        const CALL: &str = "read metrics";
        self.bounded(CALL, async {
            let target = "/metrics".to_owned();
            json(CALL, self.plain(CALL, Method::GET, target, None, Bytes::new()).await?).await
        })
        .await
    }

    /// Reads a file of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`EnvdError`]; status 404 when there is no such file.
    pub async fn read_file(
        &self,
        path: &str,
        user: Option<&str>,
        limit: usize,
    ) -> Result<Bytes, EnvdError> {
        const CALL: &str = "read a file";
        let target = file_target("/files", path, user);
        self.bounded(CALL, async {
            let answer = self.plain(CALL, Method::GET, target, None, Bytes::new()).await?;
            collect(CALL, answer.into_body(), limit).await
        })
        .await
    }

    /// Writes a file, making missing directories; a file that exists is replaced.
    ///
    /// # Errors
    ///
    /// [`EnvdError`]; status 507 when the disk is full.
    pub async fn write_file(
        &self,
        path: &str,
        user: Option<&str>,
        content: Bytes,
    ) -> Result<WrittenFile, EnvdError> {
        const CALL: &str = "write a file";
        let target = file_target("/files", path, user);
        let kind = Some("application/octet-stream");
        let mut written: Vec<WrittenFile> = self
            .bounded(CALL, async {
                json(CALL, self.plain(CALL, Method::POST, target, kind, content).await?).await
            })
            .await?;
        written.pop().ok_or_else(|| EnvdError::malformed(CALL, "no file was written"))
    }

    /// Unpacks a tar.gz into a directory, which is made when missing.
    ///
    /// # Errors
    ///
    /// [`EnvdError`]; status 400 when the archive is malformed or would write outside.
    pub async fn extract_archive(
        &self,
        path: &str,
        user: Option<&str>,
        archive: Bytes,
    ) -> Result<(), EnvdError> {
        const CALL: &str = "unpack an archive";
        let target = file_target("/files/archive", path, user);
        let kind = Some("application/gzip");
        let asked = self.plain(CALL, Method::POST, target, kind, archive);
        self.bounded(CALL, asked).await.map(drop)
    }

    pub(crate) async fn bounded<T>(
        &self,
        call: &'static str,
        work: impl Future<Output = Result<T, EnvdError>>,
    ) -> Result<T, EnvdError> {
        tokio::time::timeout(self.deadline, work)
            .await
            .unwrap_or(Err(EnvdError::Timeout { call, waited: self.deadline }))
    }

    /// One plain HTTP call; anything but a 2xx is an error.
    async fn plain(
        &self,
        call: &'static str,
        method: Method,
        target: String,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Response<AnswerBody>, EnvdError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() =
            target.parse().map_err(|e: http::uri::InvalidUri| EnvdError::malformed(call, e))?;
        if let Some(kind) = content_type {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if let Some(token) = &self.token {
            request.headers_mut().insert(ACCESS_TOKEN_HEADER, token.clone());
        }
        let answer = self.transport.request(request).await;
        let answer = answer.map_err(|e| EnvdError::unreachable(call, e))?;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(call, answer).await) }
    }
}

async fn refusal(call: &'static str, answer: Response<AnswerBody>) -> EnvdError {
    let status = answer.status().as_u16();
    let message = match collect(call, answer.into_body(), REFUSAL_MAX_BYTES).await {
        Ok(body) => serde_json::from_slice::<Refusal>(&body)
            .map_or_else(|_| String::from_utf8_lossy(&body).into_owned(), |r| r.message),
        Err(error) => return error,
    };
    EnvdError::Refused { call, status, code: status.to_string(), message: shortened(&message) }
}

async fn json<T: DeserializeOwned>(
    call: &'static str,
    answer: Response<AnswerBody>,
) -> Result<T, EnvdError> {
    let body = collect(call, answer.into_body(), JSON_MAX_BYTES).await?;
    serde_json::from_slice(&body).map_err(|e| EnvdError::malformed(call, e))
}

async fn collect(call: &'static str, body: AnswerBody, limit: usize) -> Result<Bytes, EnvdError> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(EnvdError::malformed(call, format!("it is longer than {limit} bytes")))
        }
        Err(error) => Err(EnvdError::unreachable(call, error)),
    }
}

fn version(headers: &HeaderMap) -> Option<String> {
    headers.get(VERSION_HEADER).and_then(|v| v.to_str().ok()).map(shortened)
}

/// A request target with its query, percent-encoded.
fn file_target(endpoint: &str, path: &str, user: Option<&str>) -> String {
    let mut target = format!("{endpoint}?path={}", percent_encoded(path));
    if let Some(user) = user {
        target.push_str("&username=");
        target.push_str(&percent_encoded(user));
    }
    target
}

fn percent_encoded(text: &str) -> String {
    use fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_does_not_print_the_token() {
        let client = EnvdClient::new(|| async { Ok(tokio::io::empty()) }).with_token("hidden");
        let text = format!("{client:?}");
        assert!(!text.contains("hidden") && text.contains("token: true"), "{text}");
    }

    #[test]
    fn paths_are_percent_encoded_as_one_query_value() {
        assert_eq!(
            file_target("/files", "/a b/ü&x=1", Some("me")),
            "/files?path=/a%20b/%C3%BC%26x%3D1&username=me"
        );
    }

    #[tokio::test]
    async fn guest_that_never_answers_is_a_timeout() {
        let (near, _far) = tokio::io::duplex(64);
        let near = std::sync::Mutex::new(Some(near));
        let dial = move || {
            let near = near.lock().unwrap().take();
            async move { near.ok_or_else(|| std::io::Error::other("dialled twice")) }
        };
        let client = EnvdClient::new(dial).with_deadline(Duration::from_millis(50));
        assert!(matches!(client.health().await, Err(EnvdError::Timeout { .. })));
        assert!(matches!(client.health().await, Err(EnvdError::Unreachable { .. })));
        assert!(matches!(client.list().await, Err(EnvdError::Unreachable { .. })));
    }
}
