//! Do good credentials, and only those, open a function?

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod https;
mod server;
mod tokens;

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use http::HeaderName;

use super::*;

pub(super) const TEAM: TeamId = TeamId::from_u128(5);

/// Knows two keys, counts questions, and may be down.
#[derive(Default)]
pub(super) struct Known {
    asked: AtomicUsize,
    down: bool,
}

#[async_trait]
impl Keys for Known {
    async fn team_of_key(&self, key: &str) -> Result<Option<TeamId>, KeysUnavailable> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match key {
            _ if self.down => Err(KeysUnavailable),
            "ours" => Ok(Some(TEAM)),
            "theirs" => Ok(Some(TeamId::from_u128(6))),
            _ => Ok(None),
        }
    }
}

pub(super) fn authenticator() -> Authenticator {
    let timeout = std::time::Duration::from_secs(2);
    Authenticator::new(JwksConfig { allow_private: true, timeout, bytes_max: 8192 })
}

pub(super) async fn ask(
    authenticator: &Authenticator,
    auths: &[Auth],
    uri: &str,
    fields: &[(&'static str, &str)],
    keys: &Known,
) -> Result<Identity, AuthError> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), value.parse().unwrap());
    }
    let uri = uri.parse().unwrap();
    let head = RequestHead { method: &Method::GET, uri: &uri, headers: &headers };
    let secret = SigningSecret::new("secret");
    authenticator.check(auths, TEAM, &head, keys, Some(&secret)).await
}

#[tokio::test]
async fn nothing_asked_for_is_anonymous_and_nothing_shown_is_missing() {
    let (auth, keys) = (authenticator(), Known::default());
    assert_eq!(ask(&auth, &[], "/", &[], &keys).await, Ok(Identity::Anonymous));
    let all = [Auth::Key, Auth::SignedUrl, Auth::Jwt(JwtAuth::default())];
    assert_eq!(ask(&auth, &all, "/", &[], &keys).await, Err(AuthError::Missing));
    let basic = [("authorization", "Basic b3Vycw==")];
    assert_eq!(ask(&auth, &all, "/", &basic, &keys).await, Err(AuthError::Missing));
    assert_eq!(keys.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn only_a_key_of_the_functions_team_opens_it() {
    let (auth, keys) = (authenticator(), Known::default());
    let good = ask(&auth, &[Auth::Key], "/", &[("x-api-key", "ours")], &keys).await;
    assert_eq!(good, Ok(Identity::Key { team: TEAM, credential: Credential::ApiKeyHeader }));
    let good = ask(&auth, &[Auth::Key], "/", &[("authorization", "bearer ours")], &keys).await;
    assert_eq!(good, Ok(Identity::Key { team: TEAM, credential: Credential::Bearer }));
    for bad in ["theirs", "nobodys", "", &"x".repeat(5000)] {
        let answer = ask(&auth, &[Auth::Key], "/", &[("x-api-key", bad)], &keys).await;
        assert_eq!(answer, Err(AuthError::UnknownKey), "{bad}");
    }
    let twice = [("x-api-key", "ours"), ("x-api-key", "theirs")];
    let answer = ask(&auth, &[Auth::Key], "/", &twice, &keys).await;
    assert_eq!(answer, Err(AuthError::Malformed { field: "x-api-key" }));
}

#[tokio::test]
async fn answers_are_believed_for_a_while_and_failures_are_not_kept() {
    let auth = authenticator();
    let down = Known { down: true, ..Known::default() };
    let field = [("x-api-key", "nobodys")];
    let answer = ask(&auth, &[Auth::Key], "/", &field, &down).await.unwrap_err();
    assert!(answer.is_unavailable());
    let keys = Known::default();
    for _ in 0..5 {
        let answer = ask(&auth, &[Auth::Key], "/", &field, &keys).await;
        assert_eq!(answer, Err(AuthError::UnknownKey));
    }
    assert_eq!(keys.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn one_good_way_is_enough_and_the_guest_sees_no_signature() {
    let (auth, keys) = (authenticator(), Known::default());
    let url = sign(&SigningSecret::new("secret"), Some(&Method::GET), "/a?x=1", i64::MAX);
    let both = [Auth::Key, Auth::SignedUrl];
    let answer = ask(&auth, &both, &url, &[("x-api-key", "theirs")], &keys).await;
    assert_eq!(answer, Ok(Identity::SignedUrl { path_and_query: "/a?x=1".to_owned() }));
    let old = sign(&SigningSecret::new("secret"), None, "/a", 1000);
    let answer = ask(&auth, &both, &old, &[], &keys).await;
    assert_eq!(answer, Err(AuthError::SignedUrl(SignedUrlError::Expired)));
}
