//! How do results get to webhooks: which, when again, and when no more?

mod message;
mod send;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use edge_store::{InvocationBody, InvocationRecord, Store, StoreError, WebhookState};
use jiff::Timestamp;
use pool_model::{FunctionId, TeamId};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub use message::{SIGNATURE_HEADER, signature};

use crate::{Jobs, backoff, runner::complain, submit::Wake};
use send::{SendError, Sender};

/// Posts at a time: each holds a result, at most 6 MiB and its base64.
const POSTS_MAX: usize = 8;
/// Longest time between two looks at the store.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long posts under way may go on once the poster is to stop.
const GRACE: Duration = Duration::from_secs(5);

/// How a poster works.
#[derive(Debug, Clone, Copy)]
pub struct PosterConfig {
    /// Whether webhooks may be on private addresses, and without TLS on loopback.
    pub allow_private: bool,
    /// The longest that one post may take, its answer's head included.
    pub timeout: Duration,
    /// Tries before a result is not posted any more.
    pub attempts_max: u32,
    /// Pause after the first; doubles, at most 5 minutes.
    pub pause: Duration,
}

impl Default for PosterConfig {
    fn default() -> Self {
        Self {
            allow_private: false,
            timeout: Duration::from_secs(10),
            attempts_max: 5,
            pause: Duration::from_secs(5),
        }
    }
}

/// Knows what results are signed with.
#[async_trait]
pub trait Secrets: fmt::Debug + Send + Sync + 'static {
    /// The function's signing secret; `None` if the function is gone.
    async fn secret(
        &self,
        function: FunctionId,
        team: TeamId,
        name: &str,
    ) -> Result<Option<Arc<str>>, StoreError>;
}

#[async_trait]
impl Secrets for Store {
    async fn secret(
        &self,
        function: FunctionId,
        _: TeamId,
        _: &str,
    ) -> Result<Option<Arc<str>>, StoreError> {
        let secret = self.signing_secret(function).await?;
        Ok(secret.map(|secret| Arc::clone(secret.expose())))
    }
}

/// Posts results.
#[derive(Debug)]
pub struct Poster {
    store: Store,
    wake: Arc<Wake>,
    post: Arc<Post>,
}

#[derive(Debug)]
struct Post {
    store: Store,
    secrets: Arc<dyn Secrets>,
    sender: Sender,
    config: PosterConfig,
}

impl Poster {
    /// A poster of this queue's results.
    #[must_use]
    pub fn new(jobs: &Jobs, secrets: Arc<dyn Secrets>, config: PosterConfig) -> Self {
        let Jobs { store, wake } = jobs.clone();
        let sender = Sender::new(config.allow_private, config.timeout);
        let post = Arc::new(Post { store: store.clone(), secrets, sender, config });
        Self { store, wake, post }
    }

    /// Posts until `stop`; what is under way then has 5 s.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the posts under way; they are tried again later.
    pub async fn run(self, stop: CancellationToken) {
        let mut posting = JoinSet::new();
        while !stop.is_cancelled() {
            while posting.try_join_next().is_some() {}
            let free = POSTS_MAX - posting.len();
            let taken = if free == 0 { 0 } else { self.take(free, &mut posting).await };
            if taken > 0 {
                continue;
            }
            let pause = if free == 0 { LOOK_EVERY } else { self.pause().await };
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.wake.poster.notified() => {}
                Some(_) = posting.join_next() => {}
                () = sleep(pause) => {}
            }
        }
        let until = Instant::now() + GRACE;
        let rest = async { while posting.join_next().await.is_some() {} };
        // What is cut here is due again when its lease is over.
        drop(timeout_at(until, rest).await);
    }

    async fn take(&self, free: usize, posting: &mut JoinSet<()>) -> usize {
        // A post ends before its lease does.
        let lease = self.post.config.timeout * 3;
        let limit = u32::try_from(free).unwrap_or(u32::MAX);
        match self.store.claim_posts(Timestamp::now(), lease, limit).await {
            Ok(claimed) => {
                let taken = claimed.len();
                for (record, answer) in claimed {
                    posting.spawn(Arc::clone(&self.post).run(record, answer));
                }
                taken
            }
            Err(error) => {
                complain(&error, "the results to post cannot be read");
                0
            }
        }
    }

    async fn pause(&self) -> Duration {
        match self.store.next_post_due().await {
            Ok(None) => LOOK_EVERY,
            Ok(Some(due)) => {
                let wait = due.duration_since(Timestamp::now());
                Duration::try_from(wait).unwrap_or(Duration::ZERO).min(LOOK_EVERY)
            }
            Err(error) => {
                complain(&error, "the results to post cannot be read");
                LOOK_EVERY
            }
        }
    }
}

impl Post {
    async fn run(self: Arc<Self>, record: InvocationRecord, answer: InvocationBody) {
        let result = self.try_once(&record, &answer).await;
        let attempt = record.webhook_attempts;
        let (state, next) = match &result {
            Ok(()) => (WebhookState::Delivered, None),
            Err(error) if error.is_final() || attempt >= self.config.attempts_max => {
                (WebhookState::Failed, None)
            }
            Err(_) => {
                let pause = backoff::pause(self.config.pause, attempt);
                let now = Timestamp::now();
                (WebhookState::Due, Some(now.checked_add(pause).unwrap_or(now)))
            }
        };
        let error = result.err().map(|error| error.to_string());
        let noted = self.store.end_post(record.id, attempt, state, next, error.as_deref()).await;
        if let Err(error) = noted {
            complain(&error, "how a post went cannot be written");
        }
    }

    async fn try_once(
        &self,
        record: &InvocationRecord,
        answer: &InvocationBody,
    ) -> Result<(), SendError> {
        let to = record.webhook.as_deref().ok_or(SendError::BadUrl)?;
        let secret = self.secrets.secret(record.function, record.team, &record.name).await;
        let secret = match secret {
            Ok(secret) => secret.ok_or(SendError::NoSecret)?,
            Err(error) => {
                complain(&error, "a signing secret cannot be read");
                return Err(SendError::Internal);
            }
        };
        let body = message::body(record, answer);
        let signed = signature(&secret, Timestamp::now().as_second(), &body);
        self.sender.post(to, &signed, body.into()).await
    }
}
