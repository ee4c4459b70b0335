//! Whose API key is this? A short memory before whoever knows.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use moka::future::Cache;
use pool_model::TeamId;

/// How long an answer is believed, also that there is no such key.
const BELIEVED_FOR: Duration = Duration::from_secs(5);
/// Answers kept.
const ANSWERS_MAX: u64 = 16_384;
/// Longest key that is looked up, bytes.
const KEY_BYTES_MAX: usize = 256;

/// Knows API keys.
#[async_trait]
pub trait Keys: Send + Sync {
    /// Whose `key` is; `None` if there is no such key. To be bounded in time by the implementer.
    async fn team_of_key(&self, key: &str) -> Result<Option<TeamId>, KeysUnavailable>;
}

/// Keys can't be looked up now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("API keys cannot be looked up now")]
pub struct KeysUnavailable;

/// Answers by the key's digest: no key is kept, and looking one up tells nothing by its time.
#[derive(Debug)]
pub(super) struct KeyCache(Cache<[u8; 32], Option<TeamId>>);

impl KeyCache {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(ANSWERS_MAX).time_to_live(BELIEVED_FOR).build())
    }

    /// Whose `key` is. Many who ask at once cause one look-up; failures are not kept.
    pub(super) async fn team(
        &self,
        key: &str,
        keys: &dyn Keys,
    ) -> Result<Option<TeamId>, KeysUnavailable> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Ok(None);
        }
        let found = self.0.try_get_with(sha256(key.as_bytes()), keys.team_of_key(key)).await;
        found.map_err(|error: Arc<KeysUnavailable>| *error)
    }
}

/// SHA-256 of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}
