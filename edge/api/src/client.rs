//! A client of the API: one connection per call, every call with a deadline.

mod capsules;
mod connect;
mod error;
mod functions;
mod jobs;
mod lines;
mod pools;
mod stream;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use pool_model::{SandboxId, SnapshotId};
use serde::{Serialize, de::DeserializeOwned};

pub use error::ClientError;
pub use stream::{ExecStream, PoolEvents};

use crate::{
    API_KEY_HEADER, Capsule, CreateCapsule, CreateSnapshot, DeployConfig, ErrorBody, ExecRequest,
    Function, FunctionName, Health, List, SetTimeout, SnapshotInfo, TemplateInfo,
};

/// Deadline of calls that only look things up or change a record.
const SHORT: Duration = Duration::from_secs(30);
/// Deadline of calls that boot, restore or write out a virtual machine.
const LONG: Duration = Duration::from_secs(300);
/// Most bytes of an answer that is read whole.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Separates the parts of a deploy. No archive holds it by chance: 128 bits of it are random-looking.
const BOUNDARY: &str = "wrenn-6f0b7d5ae1c94c2f8a3372d94be0c155";

/// Where the API is.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `http://api.wrenn.localhost:8080` or the `https` form; a path is ignored.
    pub url: Uri,
    /// Connect here whatever the name resolves to. (Names under `.localhost` are loopback anyway.)
    pub connect: Option<SocketAddr>,
    /// How to check the server; needed for `https`.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// Calls the API.
#[derive(Clone)]
pub struct Client {
    endpoint: Endpoint,
    key: Option<HeaderValue>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("url", &self.endpoint.url).finish_non_exhaustive()
    }
}

type Answer<T> = Result<T, ClientError>;

impl Client {
    /// Makes a client with a key. A key that can't be a header's value is as good as none.
    #[must_use]
    pub fn new(endpoint: Endpoint, key: &str) -> Self {
        let key = HeaderValue::from_str(key.trim()).ok().map(|mut key| {
            key.set_sensitive(true);
            key
        });
        Self { endpoint, key }
    }

    /// Asks whether the edge is up. Needs no key.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn health(&self) -> Answer<Health> {
        self.get("/healthz").await
    }

    /// Deploys `code` (a tar.gz) as a function; answers when it serves.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn deploy(&self, config: &DeployConfig, code: &[u8]) -> Answer<Function> {
        let json = to_json(config)?;
        let mut body = Vec::with_capacity(code.len() + json.len() + 512);
        for (head, content) in [
            ("name=\"config\"\r\ncontent-type: application/json", &json[..]),
            ("name=\"code\"; filename=\"code.tar.gz\"\r\ncontent-type: application/gzip", code),
        ] {
            body.extend_from_slice(
                format!("--{BOUNDARY}\r\ncontent-disposition: form-data; {head}\r\n\r\n")
                    .as_bytes(),
            );
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        let request = self
            .request(Method::POST, "/v1/functions")
            .header(header::CONTENT_TYPE, format!("multipart/form-data; boundary={BOUNDARY}"));
        let deadline = LONG + Duration::from_millis(config.ready_timeout_ms);
        self.json(request, Bytes::from(body), deadline).await
    }

    /// Lists the functions.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn functions(&self) -> Answer<Vec<Function>> {
        self.list("/v1/functions").await
    }

    /// Looks a function up.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn function(&self, name: &FunctionName) -> Answer<Function> {
        self.get(&format!("/v1/functions/{name}")).await
    }

    /// Deletes a function, its pool and its snapshot.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn delete_function(&self, name: &FunctionName) -> Answer<()> {
        self.delete(&format!("/v1/functions/{name}")).await
    }

    /// Creates a capsule; answers when it runs.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn create_capsule(&self, body: &CreateCapsule) -> Answer<Capsule> {
        self.post("/v1/capsules", Some(body), LONG).await
    }

    /// Lists the capsules.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn capsules(&self) -> Answer<Vec<Capsule>> {
        self.list("/v1/capsules").await
    }

    /// Looks a capsule up.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn capsule(&self, id: SandboxId) -> Answer<Capsule> {
        self.get(&format!("/v1/capsules/{id}")).await
    }

    /// Destroys a capsule.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn delete_capsule(&self, id: SandboxId) -> Answer<()> {
        self.delete(&format!("/v1/capsules/{id}")).await
    }

    /// Writes a capsule to disk and frees its memory.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn pause(&self, id: SandboxId) -> Answer<Capsule> {
        self.post(&format!("/v1/capsules/{id}/pause"), None::<&()>, LONG).await
    }

    /// Brings a paused capsule back.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn resume(&self, id: SandboxId) -> Answer<Capsule> {
        self.post(&format!("/v1/capsules/{id}/resume"), None::<&()>, LONG).await
    }

    /// Makes a snapshot of a capsule, which goes on.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn snapshot(&self, id: SandboxId, body: &CreateSnapshot) -> Answer<SnapshotInfo> {
        self.post(&format!("/v1/capsules/{id}/snapshot"), Some(body), LONG).await
    }

    /// Sets a capsule's timeout, from now.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn set_timeout(&self, id: SandboxId, body: &SetTimeout) -> Answer<Capsule> {
        self.post(&format!("/v1/capsules/{id}/timeout"), Some(body), SHORT).await
    }

    /// Runs a command in a capsule and follows it.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn exec(&self, id: SandboxId, body: &ExecRequest) -> Answer<ExecStream> {
        let request = self
            .request(Method::POST, &format!("/v1/capsules/{id}/exec"))
            .header(header::CONTENT_TYPE, "application/json");
        let body = Bytes::from(to_json(body)?);
        let response = self.send(request, body, LONG).await?;
        Ok(ExecStream::new(checked(response).await?))
    }

    /// Lists the templates.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn templates(&self) -> Answer<Vec<TemplateInfo>> {
        self.list("/v1/templates").await
    }

    /// Lists the snapshots.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn snapshots(&self) -> Answer<Vec<SnapshotInfo>> {
        self.list("/v1/snapshots").await
    }

    /// Deletes a snapshot that nothing uses.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`].
    pub async fn delete_snapshot(&self, id: SnapshotId) -> Answer<()> {
        self.delete(&format!("/v1/snapshots/{id}")).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Answer<T> {
        self.json(self.request(Method::GET, path), Bytes::new(), SHORT).await
    }

    async fn list<T: DeserializeOwned>(&self, path: &str) -> Answer<Vec<T>> {
        Ok(self.get::<List<T>>(path).await?.items)
    }

    async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&B>,
        deadline: Duration,
    ) -> Answer<T> {
        let mut request = self.request(Method::POST, path);
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(to_json(body)?)
            }
            None => Bytes::new(),
        };
        self.json(request, body, deadline).await
    }

    async fn delete(&self, path: &str) -> Answer<()> {
        let request = self.request(Method::DELETE, path);
        let response = self.send(request, Bytes::new(), LONG).await?;
        checked(response).await.map(|_| ())
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let host = self.endpoint.url.authority().map_or("", |authority| authority.as_str());
        let request = Request::builder().method(method).uri(path).header(header::HOST, host);
        match &self.key {
            Some(key) => request.header(API_KEY_HEADER, key.clone()),
            None => request,
        }
    }

    async fn json<T: DeserializeOwned>(
        &self,
        request: http::request::Builder,
        body: Bytes,
        deadline: Duration,
    ) -> Answer<T> {
        within(deadline, async {
            let response = checked(self.send(request, body, deadline).await?).await?;
            let status = response.status();
            let bytes = whole(response).await?;
            serde_json::from_slice(&bytes)
                .map_err(|source| ClientError::BadAnswer { status, source: source.into() })
        })
        .await
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Bytes,
        deadline: Duration,
    ) -> Answer<Response<Incoming>> {
        let request =
            request.body(Full::new(body)).map_err(|error| ClientError::BadRequest(error.into()))?;
        within(deadline, async {
            let mut sender = connect::connect(&self.endpoint).await?;
            sender.send_request(request).await.map_err(ClientError::Http)
        })
        .await
    }
}

async fn within<T>(deadline: Duration, work: impl Future<Output = Answer<T>>) -> Answer<T> {
    tokio::time::timeout(deadline, work).await.unwrap_or(Err(ClientError::Deadline(deadline)))
}

/// Turns an answer that isn't a success into the error it describes.
async fn checked(response: Response<Incoming>) -> Answer<Response<Incoming>> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let bytes = within(SHORT, whole(response)).await?;
    match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(body) => Err(ClientError::Refused(body, status)),
        Err(source) => Err(ClientError::BadAnswer { status, source: source.into() }),
    }
}

async fn whole(response: Response<Incoming>) -> Answer<Bytes> {
    let status = response.status();
    match Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(source) => Err(ClientError::BadAnswer { status, source }),
    }
}

fn to_json<T: Serialize + ?Sized>(value: &T) -> Answer<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| ClientError::BadRequest(error.into()))
}
