//! Which keys may have signed a token, and are they known, fresh, stale or not to be had?

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use moka::future::Cache;
use pool_model::JwtAuth;
use tokio::{sync::Mutex, time::Instant};

use super::{
    fetch::{Fetched, Fetcher},
    keys::sha256,
};

/// Key sets kept, fetched and given as text.
const SETS_MAX: u64 = 1024;
/// A set that nobody asked for so long is forgotten.
const IDLE: Duration = Duration::from_hours(24);
/// Keys of a set that count.
const KEYS_MAX: usize = 64;
/// Keys that are tried if a token doesn't say which.
const TRIES_MAX: usize = 4;
/// Bounds of how long a fetched set is fresh.
const FRESH_MIN: Duration = Duration::from_mins(1);
const FRESH_MAX: Duration = Duration::from_hours(24);
/// Pause after a fetch that failed.
const FAILED_PAUSE: Duration = Duration::from_secs(10);
/// Pause between fetches because of keys that the set doesn't have.
const UNKNOWN_PAUSE: Duration = Duration::from_mins(1);
/// How long a set that can't be fetched again is served.
const STALE_MAX: Duration = Duration::from_hours(24);
/// Shortest RSA modulus, bytes (2048 bits: RFC 7518 section 3.3).
const RSA_BYTES_MIN: usize = 256;

/// How key sets are fetched.
#[derive(Debug, Clone, Copy)]
pub struct JwksConfig {
    /// Whether servers on private addresses may be asked, and loopback ones without TLS.
    pub allow_private: bool,
    /// Longest fetch, redirects and body included.
    pub timeout: Duration,
    /// Largest key set, bytes.
    pub bytes_max: usize,
}

impl Default for JwksConfig {
    fn default() -> Self {
        Self { allow_private: false, timeout: Duration::from_secs(5), bytes_max: 256 * 1024 }
    }
}

/// Why there is no key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// The policy names neither text nor URL, or the text is no key set.
    #[error("the policy has no usable key set")]
    BadPolicy,
    /// The URL, or one that it redirects to, may not be asked.
    #[error("the key set's URL may not be asked: https to a public address is needed")]
    Forbidden,
    /// The server can't be reached or doesn't answer in time.
    #[error("the key set's server does not answer")]
    Unreachable,
    /// The answer is no key set.
    #[error("the key set's server answers something else")]
    BadAnswer,
    /// The answer is larger than a key set may be.
    #[error("the key set is too large")]
    TooLarge,
}

/// Which key a token asks for.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) kid: Option<&'a str>,
    pub(super) alg: Algorithm,
}

/// Keys that may verify.
pub(super) struct KeySet(Vec<Key>);

struct Key {
    kid: Option<String>,
    algorithms: &'static [Algorithm],
    only: Option<Algorithm>,
    key: DecodingKey,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.kid)).finish()
    }
}

impl KeySet {
    /// Reads a JWK set (RFC 7517); keys that are of no use are passed over.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Raw {
            keys: Vec<serde_json::Value>,
        }
        let raw: Raw = serde_json::from_slice(text).ok()?;
        let jwks = raw.keys.into_iter().take(KEYS_MAX);
        Some(Self(jwks.filter_map(|raw| usable(&serde_json::from_value(raw).ok()?)).collect()))
    }

    /// The keys that a token may have been signed with, at most a few.
    pub(super) fn fitting(&self, wanted: &Wanted<'_>) -> impl Iterator<Item = &DecodingKey> {
        let fits = |key: &&Key| {
            wanted.kid.is_none_or(|kid| key.kid.as_deref() == Some(kid))
                && key.algorithms.contains(&wanted.alg)
                && key.only.is_none_or(|only| only == wanted.alg)
        };
        self.0.iter().filter(fits).take(TRIES_MAX).map(|key| &key.key)
    }

    fn has(&self, wanted: &Wanted<'_>) -> bool {
        self.fitting(wanted).next().is_some()
    }
}

fn usable(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    let signs = common.public_key_use.as_ref().is_none_or(|u| *u == PublicKeyUse::Signature);
    let verifies =
        common.key_operations.as_ref().is_none_or(|ops| ops.contains(&KeyOperations::Verify));
    let algorithms: &'static [Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if BASE64.decode(&rsa.n).ok()?.len() >= RSA_BYTES_MIN => {
            use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
            &[RS256, RS384, RS512, PS256, PS384, PS512]
        }
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            &[Algorithm::ES256]
        }
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => {
            &[Algorithm::ES384]
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            &[Algorithm::EdDSA]
        }
        _ => return None,
    };
    let only = match common.key_algorithm {
        None => None,
        Some(named) => Some(Algorithm::try_from(named).ok()?),
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    (signs && verifies).then(|| Key { kid: common.key_id.clone(), algorithms, only, key })
}

/// Key sets, by their text or URL.
#[derive(Debug)]
pub(super) struct JwksCache {
    pub(super) fetcher: Fetcher,
    texts: Cache<[u8; 32], Option<Arc<KeySet>>>,
    sources: Cache<String, Arc<Source>>,
}

/// What is known of one URL.
#[derive(Debug, Default)]
struct Source {
    current: ArcSwapOption<Current>,
    // Held while fetching: one fetch at a time.
    history: Mutex<History>,
}

#[derive(Debug)]
struct Current {
    keys: Arc<KeySet>,
    fresh_until: Instant,
}

#[derive(Debug, Default)]
struct History {
    failed: Option<(Instant, JwksError)>,
    unknown: Option<Instant>,
}

impl JwksCache {
    pub(super) fn new(config: JwksConfig) -> Self {
        let texts = Cache::builder().max_capacity(SETS_MAX).time_to_idle(IDLE).build();
        let sources = Cache::builder().max_capacity(SETS_MAX).time_to_idle(IDLE).build();
        Self { fetcher: Fetcher::new(config), texts, sources }
    }

    /// The key set of a policy; `wanted` may lead to its being fetched again.
    pub(super) async fn keys(
        &self,
        policy: &JwtAuth,
        wanted: &Wanted<'_>,
    ) -> Result<Arc<KeySet>, JwksError> {
        if let Some(text) = &policy.jwks {
            let parse = async { KeySet::parse(text.as_bytes()).map(Arc::new) };
            let parsed = self.texts.get_with(sha256(text.as_bytes()), parse).await;
            return parsed.ok_or(JwksError::BadPolicy);
        }
        let url = policy.jwks_url.as_ref().ok_or(JwksError::BadPolicy)?;
        let source = match self.sources.get(url).await {
            Some(source) => source,
            None => self.sources.get_with(url.clone(), async { Arc::default() }).await,
        };
        let Some(current) = source.current.load_full() else {
            return self.first(url, &source).await;
        };
        let now = Instant::now();
        let known = current.keys.has(wanted);
        if known && now < current.fresh_until {
            return Ok(Arc::clone(&current.keys));
        }
        self.again(url, &source, &current, known).await
    }

    /// Fetches a set that never was there; all wait for the one who does.
    async fn first(&self, url: &str, source: &Source) -> Result<Arc<KeySet>, JwksError> {
        let mut history = source.history.lock().await;
        if let Some(current) = source.current.load_full() {
            return Ok(Arc::clone(&current.keys));
        }
        history.may_try()?;
        self.fetch(url, source, &mut history).await
    }

    /// Fetches a set again that is stale or lacks a key. Who finds another at it takes what there
    /// is, unless it is the key that is lacking.
    async fn again(
        &self,
        url: &str,
        source: &Source,
        current: &Arc<Current>,
        known: bool,
    ) -> Result<Arc<KeySet>, JwksError> {
        let now = Instant::now();
        let old = Ok(Arc::clone(&current.keys));
        let expired = now >= current.fresh_until + STALE_MAX;
        let mut history = match source.history.try_lock() {
            Ok(history) => history,
            Err(_) if known && !expired => return old,
            Err(_) => source.history.lock().await,
        };
        let newest = source.current.load_full();
        if let Some(newest) = newest.filter(|newest| !Arc::ptr_eq(newest, current)) {
            return Ok(Arc::clone(&newest.keys));
        }
        if !known && now < current.fresh_until {
            if history.unknown.is_some_and(|at| now.saturating_duration_since(at) < UNKNOWN_PAUSE) {
                return old;
            }
            history.unknown = Some(now);
        }
        let fetched = match history.may_try() {
            Ok(()) => self.fetch(url, source, &mut history).await,
            Err(error) => Err(error),
        };
        match fetched {
            Err(_) if !expired => old,
            fetched => fetched,
        }
    }

    async fn fetch(
        &self,
        url: &str,
        source: &Source,
        history: &mut History,
    ) -> Result<Arc<KeySet>, JwksError> {
        let parsed = self.fetcher.fetch(url).await.and_then(|Fetched { body, max_age }| {
            Ok((KeySet::parse(&body).ok_or(JwksError::BadAnswer)?, max_age))
        });
        match parsed {
            Ok((keys, max_age)) => {
                let fresh = max_age.unwrap_or(FRESH_MIN * 5).clamp(FRESH_MIN, FRESH_MAX);
                let keys = Arc::new(keys);
                let current =
                    Current { keys: Arc::clone(&keys), fresh_until: Instant::now() + fresh };
                source.current.store(Some(Arc::new(current)));
                history.failed = None;
                Ok(keys)
            }
            Err(error) => {
                tracing::warn!(url, %error, "a key set could not be fetched");
                history.failed = Some((Instant::now(), error));
                Err(error)
            }
        }
    }
}

#[cfg(test)]
impl JwksCache {
    /// Makes every fetched set stale, for tests: its shortest life is a minute.
    pub(super) fn expire_all(&self) {
        for (_, source) in &self.sources {
            let Some(current) = source.current.load_full() else { continue };
            let keys = Arc::clone(&current.keys);
            source.current.store(Some(Arc::new(Current { keys, fresh_until: Instant::now() })));
        }
    }
}

impl History {
    fn may_try(&self) -> Result<(), JwksError> {
        match self.failed {
            Some((at, error)) if at.elapsed() < FAILED_PAUSE => Err(error),
            _ => Ok(()),
        }
    }
}
