//! Has the caller shown in one of the accepted ways that it may invoke?

mod fetch;
mod jwks;
mod jwt;
mod keys;
mod signed_url;

use http::{HeaderMap, Method, Uri};
use pool_model::{Auth, JwtAuth, TeamId};

use self::{jwks::JwksCache, keys::KeyCache};
pub use self::{
    jwks::{JwksConfig, JwksError},
    jwt::{Claims, JwtError},
    keys::{Keys, KeysUnavailable},
    signed_url::{SignedUrlError, SigningSecret, sign, verify},
};

/// The header field of an API key.
const API_KEY: &str = "x-api-key";

/// What of a request authentication looks at.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query.
    pub uri: &'a Uri,
    /// The header fields.
    pub headers: &'a HeaderMap,
}

/// What showed that the caller may; not for the guest's eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// `X-API-Key`.
    ApiKeyHeader,
    /// `Authorization: Bearer`.
    Bearer,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq)]
pub enum Identity {
    /// Anybody: nothing is asked for.
    Anonymous,
    /// Someone with an API key of the team.
    Key {
        /// The function's team.
        team: TeamId,
        /// Where the key stood.
        credential: Credential,
    },
    /// Someone who was given a signed URL.
    SignedUrl {
        /// The path and query for the guest, without signature.
        path_and_query: String,
    },
    /// The bearer of a JSON Web Token.
    Jwt(Claims),
}

/// Why the caller may not. Nothing in here is secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No credential that is accepted came along.
    #[error("this function asks for authentication")]
    Missing,
    /// A credential's field is there more than once or is no text.
    #[error("the request's `{field}` can't be understood")]
    Malformed {
        /// Which field.
        field: &'static str,
    },
    /// No key of the function's team.
    #[error("the API key is not one of this function's team")]
    UnknownKey,
    /// The keys can't be looked up now.
    #[error("API keys cannot be checked now")]
    Keys(#[from] KeysUnavailable),
    /// The signed URL is not good.
    #[error("the signed URL is not good")]
    SignedUrl(#[from] SignedUrlError),
    /// The token is not good.
    #[error("the token is not good")]
    Jwt(#[from] JwtError),
}

impl AuthError {
    /// Whether the fault is ours or a key server's, so that the caller may try again (503, not 401).
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Keys(_) | Self::Jwt(JwtError::KeySet(_)))
    }
}

/// Checks credentials; keeps what it learnt about keys and key sets, in bounds. Shared by all threads.
#[derive(Debug)]
pub struct Authenticator {
    keys: KeyCache,
    sets: JwksCache,
}

impl Authenticator {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(config: JwksConfig) -> Self {
        Self { keys: KeyCache::new(), sets: JwksCache::new(config) }
    }

    /// Checks `request` against the accepted ways of a function of `team`: one is enough, nobody is
    /// asked if there are none. Waits for `keys` and key servers at most as long as those may take.
    /// Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`AuthError`]: of several failures the one that says most.
    pub async fn check(
        &self,
        auths: &[Auth],
        team: TeamId,
        request: &RequestHead<'_>,
        keys: &dyn Keys,
        signing: Option<&SigningSecret>,
    ) -> Result<Identity, AuthError> {
        if auths.is_empty() {
            return Ok(Identity::Anonymous);
        }
        let mut worst = AuthError::Missing;
        for auth in auths {
            let outcome = match auth {
                Auth::Key => self.key(team, request, keys).await,
                Auth::SignedUrl => signed_url(request, signing),
                Auth::Jwt(policy) => self.token(policy, request).await,
            };
            match outcome {
                Ok(identity) => return Ok(identity),
                Err(error) if weight(&error) > weight(&worst) => worst = error,
                Err(_) => {}
            }
        }
        Err(worst)
    }

    async fn key(
        &self,
        team: TeamId,
        request: &RequestHead<'_>,
        keys: &dyn Keys,
    ) -> Result<Identity, AuthError> {
        let (key, credential) = match one(request.headers, API_KEY)? {
            Some(key) => (key, Credential::ApiKeyHeader),
            None => (bearer(request.headers)?.ok_or(AuthError::Missing)?, Credential::Bearer),
        };
        // A token is no key: nobody needs to look it up.
        if credential == Credential::Bearer && key.contains('.') {
            return Err(AuthError::Missing);
        }
        match self.keys.team(key, keys).await? {
            Some(owner) if owner == team => Ok(Identity::Key { team, credential }),
            _ => Err(AuthError::UnknownKey),
        }
    }

    async fn token(
        &self,
        policy: &JwtAuth,
        request: &RequestHead<'_>,
    ) -> Result<Identity, AuthError> {
        let token = bearer(request.headers)?.ok_or(AuthError::Missing)?;
        if !token.contains('.') {
            return Err(AuthError::Missing);
        }
        Ok(Identity::Jwt(jwt::check(token, policy, &self.sets).await?))
    }
}

fn signed_url(
    request: &RequestHead<'_>,
    signing: Option<&SigningSecret>,
) -> Result<Identity, AuthError> {
    let text = request.uri.path_and_query().map_or("/", |text| text.as_str());
    let now = jiff::Timestamp::now().as_second();
    match verify(signing, request.method, text, now) {
        Ok(path_and_query) => Ok(Identity::SignedUrl { path_and_query }),
        Err(SignedUrlError::Missing) => Err(AuthError::Missing),
        Err(error) => Err(error.into()),
    }
}

/// A failure that others overrule has less weight.
fn weight(error: &AuthError) -> u8 {
    match error {
        AuthError::Missing => 0,
        AuthError::UnknownKey | AuthError::Malformed { .. } => 1,
        AuthError::SignedUrl(_) | AuthError::Jwt(_) if !error.is_unavailable() => 2,
        _ => 3,
    }
}

/// The only value of a field; `None` if there is none.
fn one<'a>(headers: &'a HeaderMap, field: &'static str) -> Result<Option<&'a str>, AuthError> {
    let mut values = headers.get_all(field).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (values.next(), value.to_str()) {
        (None, Ok(text)) => Ok(Some(text)),
        _ => Err(AuthError::Malformed { field }),
    }
}

/// The token of `Authorization: Bearer` (RFC 6750); `None` for another scheme.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, AuthError> {
    let Some(value) = one(headers, "authorization")? else { return Ok(None) };
    let Some((scheme, token)) = value.split_once(' ') else { return Ok(None) };
    let token = token.trim_matches(' ');
    Ok((scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token))
}

#[cfg(test)]
mod tests;
