//! What one can do with one object: every request to the object store, each with its retries.

use std::{
    fmt,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::StreamExt as _;
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use pool_model::SnapshotId;
use pool_store::{LayerId, LayerIndex};

use crate::{
    Cause, Credentials, Origin, RemoteConfig, RemoteError, SourceStats,
    keys::{self, Keys},
    retry::{Patience, retry},
};

/// The longest index that is accepted. At some 50 bytes an entry, of a layer of over 300 GB.
pub(crate) const INDEX_BYTES_MAX: u64 = 256 << 20;

/// Snapshots in one bucket below one prefix. Cheap to clone; all clones share connections and
/// counters. Futures must run in a tokio runtime with time and I/O.
#[derive(Clone)]
pub struct Remote {
    shared: Arc<Shared>,
}

struct Shared {
    config: RemoteConfig,
    keys: Keys,
    s3: AmazonS3,
    stats: Arc<SourceStats>,
}

/// An object that is there.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) key: Path,
    pub(crate) bytes: u64,
    /// Time since it was written, by the clocks of the server and this host.
    pub(crate) age: Duration,
}

impl From<object_store::ObjectMeta> for Object {
    fn from(meta: object_store::ObjectMeta) -> Self {
        let written = u64::try_from(meta.last_modified.timestamp()).unwrap_or(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = now.saturating_sub(Duration::from_secs(written));
        Self { key: meta.location, bytes: meta.size, age }
    }
}

impl Remote {
    /// Makes a client. Nothing is sent: [`Remote::probe`] shows whether it works.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Config`] names a setting, [`RemoteError::Client`] is the library's refusal.
    pub fn open(config: RemoteConfig, credentials: Credentials) -> Result<Self, RemoteError> {
        config.check()?;
        let (bucket, prefix) = config.location()?;
        // Attempts and time are counted here, so that an error can say how many there were.
        let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let client = ClientOptions::new()
            .with_timeout_disabled()
            .with_connect_timeout(config.attempt_timeout)
            .with_pool_max_idle_per_host(2 * config.parallel)
            .with_allow_http(config.allow_http);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(&config.region)
            .with_access_key_id(credentials.access_key_id)
            .with_secret_access_key(credentials.secret_access_key)
            .with_client_options(client)
            .with_retry(once)
            // Not every server has the bulk request.
            .with_disable_bulk_delete(true);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        if let Some(token) = credentials.session_token {
            builder = builder.with_token(token);
        }
        let s3 = builder.build().map_err(|error| RemoteError::Client(Box::new(error)))?;
        let keys = Keys::new(prefix);
        let stats = Arc::new(SourceStats::default());
        Ok(Self { shared: Arc::new(Shared { config, keys, s3, stats }) })
    }

    /// The settings it was opened with.
    #[must_use]
    pub fn config(&self) -> &RemoteConfig {
        &self.shared.config
    }

    /// Counters of all clones.
    #[must_use]
    pub fn stats(&self) -> &Arc<SourceStats> {
        &self.shared.stats
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.shared.keys
    }

    /// One cheap call that proves address, bucket and credentials. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Request`]: its [`Cause`] says which of them is wrong.
    pub async fn probe(&self) -> Result<(), RemoteError> {
        let prefix = self.keys().snapshots();
        let first = || async {
            match self.shared.s3.list(Some(&prefix)).next().await {
                Some(Err(error)) => Err(Cause::from(error)),
                Some(Ok(_)) | None => Ok(()),
            }
        };
        self.call("list", &prefix, 0, first).await
    }

    /// Whether the bucket has the whole snapshot. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Request`] if it cannot be known.
    pub async fn contains(&self, id: SnapshotId) -> Result<bool, RemoteError> {
        let key = self.keys().snapshot(id, keys::MANIFEST);
        Ok(self.head(&key).await?.is_some())
    }

    /// The bytes of a layer's index, verified against its id. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Request`], or [`RemoteError::Format`] if it is damaged in the bucket.
    pub async fn layer_index(&self, id: LayerId) -> Result<Vec<u8>, RemoteError> {
        let key = self.keys().index(id);
        let bytes = self.get(&key, INDEX_BYTES_MAX).await?;
        LayerIndex::from_bytes(id, &bytes)
            .map_err(|error| RemoteError::Format { key: key.to_string(), error })?;
        Ok(bytes.into())
    }

    /// One range of a layer's stored blocks, not verified. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Request`]; an answer of another length is one, too.
    pub async fn read(&self, layer: LayerId, range: Range<u64>) -> Result<Bytes, RemoteError> {
        self.range(&self.keys().blocks(layer), range).await
    }

    /// One range of an object, exactly as long as asked for.
    pub(crate) async fn range(&self, key: &Path, range: Range<u64>) -> Result<Bytes, RemoteError> {
        let expected = range.end.saturating_sub(range.start);
        if expected == 0 {
            return Ok(Bytes::new());
        }
        let start = Instant::now();
        let options = || GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let once = || async {
            let answer = self.shared.s3.get_opts(key, options()).await?;
            let found = answer.range.end.saturating_sub(answer.range.start);
            if found != expected {
                return Err(Cause::Length { expected, found });
            }
            body(answer, expected).await
        };
        let bytes = self.call("read", key, expected, once).await.inspect_err(|error| {
            if error.is_missing() {
                self.stats().count_failure();
            }
        })?;
        self.stats().origin(Origin::Remote).record(expected, start.elapsed());
        Ok(bytes)
    }

    /// A whole object of at most `max` bytes.
    pub(crate) async fn get(&self, key: &Path, max: u64) -> Result<Bytes, RemoteError> {
        let once = || async {
            let answer = self.shared.s3.get_opts(key, GetOptions::default()).await?;
            let expected = answer.meta.size;
            if expected > max {
                return Err(Cause::Length { expected: max, found: expected });
            }
            body(answer, expected).await
        };
        self.call("read", key, max.min(crate::PART_BYTES as u64), once).await
    }

    /// As [`Remote::get`], `None` if it is not there.
    pub(crate) async fn get_if_there(
        &self,
        key: &Path,
        max: u64,
    ) -> Result<Option<Bytes>, RemoteError> {
        match self.get(key, max).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An object's length in bytes, `None` if it is not there.
    pub(crate) async fn head(&self, key: &Path) -> Result<Option<u64>, RemoteError> {
        let once = || async { Ok(self.shared.s3.head(key).await?.size) };
        match self.call("look up", key, 0, once).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a whole object in one request.
    pub(crate) async fn put(&self, key: &Path, bytes: Bytes) -> Result<(), RemoteError> {
        let once = || async {
            self.shared.s3.put(key, PutPayload::from(bytes.clone())).await?;
            Ok(())
        };
        self.call("write", key, bytes.len() as u64, once).await
    }

    /// Deletes an object; one that is not there is none the worse.
    pub(crate) async fn remove(&self, key: &Path) -> Result<(), RemoteError> {
        let once = || async {
            match self.shared.s3.delete(key).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(Cause::from(error)),
            }
        };
        self.call("delete", key, 0, once).await
    }

    /// All objects below `prefix`. A page that fails is asked for again from where it failed.
    pub(crate) async fn list(&self, prefix: &Path) -> Result<Vec<Object>, RemoteError> {
        let mut found: Vec<Object> = Vec::new();
        loop {
            let last = found.last().map(|object| object.key.clone());
            let page = || async {
                let mut stream = match &last {
                    Some(last) => self.shared.s3.list_with_offset(Some(prefix), last),
                    None => self.shared.s3.list(Some(prefix)),
                };
                let mut page = Vec::new();
                while page.len() < PAGE
                    && let Some(meta) = stream.next().await
                {
                    page.push(Object::from(meta?));
                }
                Ok(page)
            };
            let page = self.call("list", prefix, 0, page).await?;
            let done = page.len() < PAGE;
            found.extend(page);
            if done {
                return Ok(found);
            }
        }
    }

    /// The low-level interface for uploads in parts.
    pub(crate) fn s3(&self) -> &AmazonS3 {
        &self.shared.s3
    }

    /// Runs a request with its retries; `bytes` that it moves give it time.
    pub(crate) async fn call<T, F: Future<Output = Result<T, Cause>>>(
        &self,
        what: &'static str,
        key: &Path,
        bytes: u64,
        attempt: impl FnMut() -> F,
    ) -> Result<T, RemoteError> {
        let patience = Patience::of(&self.shared.config, bytes);
        retry(patience, &self.shared.stats, what, key.as_ref(), attempt).await
    }
}

/// Objects per listing request. Source: S3's limit.
const PAGE: usize = 1000;

/// The body of an answer, which must be as long as announced.
async fn body(answer: object_store::GetResult, expected: u64) -> Result<Bytes, Cause> {
    let bytes = answer.bytes().await?;
    let found = bytes.len() as u64;
    if found == expected { Ok(bytes) } else { Err(Cause::Length { expected, found }) }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client would print its configuration.
        f.debug_struct("Remote").field("url", &self.shared.config.url).finish_non_exhaustive()
    }
}
