//! How does an invocation get into the queue, or back into it, and how large may it be?

use std::sync::Arc;

use bytes::Bytes;
use edge_store::{
    InvocationId, InvocationRecord, InvocationSource, NewInvocation, Store, StoreError,
};
use http::{HeaderMap, HeaderName, header};
use jiff::Timestamp;
use pool_model::{AsyncPolicy, FunctionId, TeamId};
use tokio::sync::Notify;

/// Most bytes of a request's body: 6 MiB.
pub const BODY_BYTES_MAX: usize = 6 << 20;
/// Most bytes of an answer's body that are kept: 6 MiB.
pub const ANSWER_BYTES_MAX: usize = 6 << 20;
/// Most bytes of all header fields, names and values together: 32 KiB.
pub const HEADERS_BYTES_MAX: usize = 32 << 10;

/// Fields that belong to a connection, or that whoever sends the request makes anew.
const NOT_KEPT: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// The queue, as who fills it sees it. Cheap to clone; all clones wake the same runner.
#[derive(Debug, Clone)]
pub struct Jobs {
    pub(crate) store: Store,
    pub(crate) wake: Arc<Wake>,
}

/// Who is to look at the store again.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    /// There may be something to run.
    pub(crate) runner: Notify,
    /// There may be something to post.
    pub(crate) poster: Notify,
}

/// What is to be invoked.
#[derive(Debug, Clone)]
pub struct Target {
    /// The function.
    pub function: FunctionId,
    /// Whose it is.
    pub team: TeamId,
    /// Its name.
    pub name: String,
    /// The tag that the request named.
    pub tag: Option<String>,
    /// How it is attempted, from the function's policy.
    pub policy: AsyncPolicy,
}

/// Why an invocation was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// As many wait as may.
    #[error("{pending_max} invocations of this function wait already, which is as many as may")]
    Full {
        /// The function's limit.
        pending_max: u32,
    },
    /// The body is over its limit.
    #[error("the body has {bytes} bytes, more than {BODY_BYTES_MAX}")]
    Body {
        /// Its size.
        bytes: usize,
    },
    /// The header fields are over their limit.
    #[error("the header fields have {bytes} bytes, more than {HEADERS_BYTES_MAX}")]
    Headers {
        /// Their size, names and values.
        bytes: usize,
    },
    /// It could not be recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Jobs {
    /// The queue in this store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, wake: Arc::default() }
    }

    /// Takes an invocation. It is on disk when this returns.
    ///
    /// # Errors
    ///
    /// [`SubmitError`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped the invocation may have been taken.
    pub async fn submit(
        &self,
        target: &Target,
        parts: &http::request::Parts,
        body: &Bytes,
    ) -> Result<InvocationId, SubmitError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(SubmitError::Body { bytes: body.len() });
        }
        let mut headers = pairs(&parts.headers);
        // What the edge says about a request a caller can't.
        headers.retain(|(name, _)| !name.starts_with("x-wrenn-") && name != "prefer");
        let bytes = weight(&headers);
        if bytes > HEADERS_BYTES_MAX {
            return Err(SubmitError::Headers { bytes });
        }
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let request = (parts.method.as_str(), path, headers, body.to_vec());
        let new = new_invocation(target, InvocationSource::Async, request, Timestamp::now());
        let pending_max = target.policy.pending_max;
        if !self.store.submit_invocation(&new, pending_max).await? {
            return Err(SubmitError::Full { pending_max });
        }
        self.wake.runner.notify_one();
        Ok(new.id)
    }

    /// Puts a team's dead letter back into the queue with all its attempts, and has the runner look
    /// for it. `None` if it isn't there or isn't dead.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped it may be in the queue; the runner finds it within a second.
    pub async fn retry(
        &self,
        team: TeamId,
        id: InvocationId,
    ) -> Result<Option<InvocationRecord>, StoreError> {
        let record = self.store.retry_invocation(team, id, Timestamp::now()).await?;
        if record.is_some() {
            self.wake.runner.notify_one();
        }
        Ok(record)
    }
}

/// Method, path, header fields, body.
pub(crate) type Request<'r> = (&'r str, &'r str, Vec<(String, Vec<u8>)>, Vec<u8>);

pub(crate) fn new_invocation(
    target: &Target,
    source: InvocationSource,
    (method, path, headers, body): Request<'_>,
    at: Timestamp,
) -> NewInvocation {
    NewInvocation {
        id: InvocationId::generate(at),
        team: target.team,
        function: target.function,
        name: target.name.clone(),
        tag: target.tag.clone(),
        source,
        method: method.to_owned(),
        path: path.to_owned(),
        headers,
        body,
        attempts_max: target.policy.attempts_max.max(1),
        backoff_ms: target.policy.backoff_ms,
        result_ttl_ms: target.policy.result_ttl_s.saturating_mul(1000),
        webhook: target.policy.webhook.clone(),
        at,
    }
}

/// The fields that are kept, in their order.
pub(crate) fn pairs(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let kept = headers.iter().filter(|(name, _)| !NOT_KEPT.contains(name));
    kept.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

pub(crate) fn weight(headers: &[(String, Vec<u8>)]) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

    use edge_store::{ApiKey, End};

    use super::*;

    /// Whether the runner is told to look, by now.
    async fn is_woken(jobs: &Jobs) -> bool {
        let mut notified = pin!(jobs.wake.runner.notified());
        poll_fn(|cx| Poll::Ready(notified.as_mut().poll(cx).is_ready())).await
    }

    #[tokio::test]
    async fn only_a_dead_letter_that_is_retried_wakes_the_runner() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("wrenn.db")).await.unwrap();
        let (team, function, now) =
            (TeamId::from_u128(1), FunctionId::from_u128(1), Timestamp::now());
        store.create_team(team, "t", &ApiKey::generate(), now).await.unwrap();
        let jobs = Jobs::new(store.clone());
        let policy = AsyncPolicy::default();
        let target = Target { function, team, name: "hello".to_owned(), tag: None, policy };
        let (parts, ()) = http::Request::post("/").body(()).unwrap().into_parts();
        let id = jobs.submit(&target, &parts, &Bytes::new()).await.unwrap();
        assert!(is_woken(&jobs).await && !is_woken(&jobs).await);

        assert!(jobs.retry(team, id).await.unwrap().is_none(), "it waits");
        assert!(!is_woken(&jobs).await);
        let lease = Duration::from_secs(60);
        let claim = store.claim_invocations(Timestamp::now(), lease, 1).await.unwrap().remove(0).0;
        assert!(store.end_attempt(&claim, End::Dead, None, None, now).await.unwrap());
        // By another clone, as the control plane has one.
        assert!(jobs.clone().retry(team, id).await.unwrap().is_some());
        assert!(is_woken(&jobs).await);
    }
}
