//! Was this URL signed by us, for this method, and until when?
//!
//! Version 1: `wrenn-expires` holds seconds since 1970, `wrenn-signature` holds
//! `v1.{key id}.{base64url of HMAC-SHA-256}` over lines of: `wrenn-url-v1`, key id, expiry, method or
//! `*`, path, and the other parameters sorted bytewise, all as they came (nothing is decoded).

use std::fmt;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use http::Method;

use super::keys::sha256;

const EXPIRES: &str = "wrenn-expires";
const SIGNATURE: &str = "wrenn-signature";
const VERSION: &str = "v1";

/// What a function's URLs are signed with. `Debug` doesn't show it.
#[derive(Clone)]
pub struct SigningSecret {
    id: String,
    key: hmac::Key,
}

impl SigningSecret {
    /// Makes the key and its id (of its digest) of a secret text.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        let named = sha256(&[b"wrenn-key-id:", secret.as_bytes()].concat());
        let id = BASE64.encode(&named[..6]);
        Self { id, key: hmac::Key::new(HMAC_SHA256, secret.as_bytes()) }
    }

    /// What tells this secret from earlier ones.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningSecret").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a URL is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignedUrlError {
    /// It has no signature.
    #[error("the URL is not signed")]
    Missing,
    /// Signature or expiry are not of a form we know.
    #[error("the URL's signature can't be understood")]
    Malformed,
    /// It was signed with another secret than the present one.
    #[error("the URL was signed with a key that is not in use")]
    UnknownKey,
    /// Something of it is not what was signed.
    #[error("the URL is not what was signed")]
    Tampered,
    /// It was good.
    #[error("the signed URL has expired")]
    Expired,
}

/// Signs `path_and_query` for `method`, for every one if `None`, until `expires`, seconds since
/// 1970; gives it back with the parameters added, without earlier ones.
#[must_use]
pub fn sign(
    secret: &SigningSecret,
    method: Option<&Method>,
    path_and_query: &str,
    expires: i64,
) -> String {
    let url = Parts::of(path_and_query);
    let expires = expires.to_string();
    let method = method.map_or("*", Method::as_str);
    let mac = hmac::sign(&secret.key, url.message(&secret.id, &expires, method).as_bytes());
    let joint = if url.rest.is_empty() { '?' } else { '&' };
    let mac = BASE64.encode(mac);
    format!("{}{joint}{EXPIRES}={expires}&{SIGNATURE}={VERSION}.{}.{mac}", url.cleaned(), secret.id)
}

/// Checks a signed URL at `now`, seconds since 1970; gives the path and query without our
/// parameters, the others as they came.
///
/// # Errors
///
/// [`SignedUrlError`]; that it expired is only said of a URL that we signed.
pub fn verify(
    secret: Option<&SigningSecret>,
    method: &Method,
    path_and_query: &str,
    now: i64,
) -> Result<String, SignedUrlError> {
    let url = Parts::of(path_and_query);
    let (expires, signature) = match (url.expires.as_slice(), url.signature.as_slice()) {
        ([], []) => return Err(SignedUrlError::Missing),
        ([expires], [signature]) => (*expires, *signature),
        _ => return Err(SignedUrlError::Malformed),
    };
    let secret = secret.ok_or(SignedUrlError::UnknownKey)?;
    let until: i64 = expires.parse().map_err(|_| SignedUrlError::Malformed)?;
    let mut parts = signature.splitn(3, '.');
    let (Some(VERSION), Some(id), Some(mac)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(SignedUrlError::Malformed);
    };
    let mac = BASE64.decode(mac).map_err(|_| SignedUrlError::Malformed)?;
    if id != secret.id {
        return Err(SignedUrlError::UnknownKey);
    }
    let good = [method.as_str(), "*"].into_iter().any(|method| {
        hmac::verify(&secret.key, url.message(id, expires, method).as_bytes(), &mac).is_ok()
    });
    match (good, now < until) {
        (false, _) => Err(SignedUrlError::Tampered),
        (true, false) => Err(SignedUrlError::Expired),
        (true, true) => Ok(url.cleaned()),
    }
}

/// A URL's parts: ours and the rest.
struct Parts<'a> {
    path: &'a str,
    rest: Vec<&'a str>,
    expires: Vec<&'a str>,
    signature: Vec<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(path_and_query: &'a str) -> Self {
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path_and_query, None),
        };
        let (rest, expires, signature) = (Vec::new(), Vec::new(), Vec::new());
        let mut parts = Self { path, rest, expires, signature };
        for pair in query.into_iter().flat_map(|query| query.split('&')) {
            match pair.split_once('=') {
                Some((EXPIRES, value)) => parts.expires.push(value),
                Some((SIGNATURE, value)) => parts.signature.push(value),
                _ => parts.rest.push(pair),
            }
        }
        parts
    }

    fn message(&self, id: &str, expires: &str, method: &str) -> String {
        let mut sorted = self.rest.clone();
        sorted.sort_unstable();
        let query = sorted.join("&");
        format!("wrenn-url-{VERSION}\n{id}\n{expires}\n{method}\n{}\n{query}", self.path)
    }

    fn cleaned(&self) -> String {
        if self.rest.is_empty() {
            self.path.to_owned()
        } else {
            format!("{}?{}", self.path, self.rest.join("&"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> SigningSecret {
        SigningSecret::new("of one function")
    }

    fn check(method: &Method, url: &str, now: i64) -> Result<String, SignedUrlError> {
        verify(Some(&secret()), method, url, now)
    }

    #[test]
    fn a_signed_url_is_good_until_it_expires_and_comes_back_clean() {
        for url in ["/", "/a%20b", "/a?x=1&y=%2F&x=0", "/a?flag&&z="] {
            let signed = sign(&secret(), Some(&Method::GET), url, 1000);
            assert_eq!(check(&Method::GET, &signed, 999).as_deref(), Ok(url));
            assert_eq!(check(&Method::GET, &signed, 1000), Err(SignedUrlError::Expired));
        }
    }

    #[test]
    fn other_methods_are_tampering_unless_all_are_meant() {
        let one = sign(&secret(), Some(&Method::GET), "/a", 1000);
        assert_eq!(check(&Method::POST, &one, 1), Err(SignedUrlError::Tampered));
        let all = sign(&secret(), None, "/a", 1000);
        assert!(check(&Method::POST, &all, 1).is_ok());
    }

    #[test]
    fn the_order_of_parameters_does_not_count_but_their_content_does() {
        let signed = sign(&secret(), None, "/a?x=1&y=2", 1000);
        let (_, tail) = signed.split_once("&wrenn-expires").unwrap();
        let turned = format!("/a?y=2&wrenn-expires{tail}&x=1");
        assert_eq!(check(&Method::GET, &turned, 1).as_deref(), Ok("/a?y=2&x=1"));
        for (from, to) in [("x=1", "x=2"), ("/a?", "/b?"), ("=1000", "=9999"), ("x=1&", "")] {
            let changed = signed.replacen(from, to, 1);
            assert_eq!(check(&Method::GET, &changed, 1), Err(SignedUrlError::Tampered), "{to}");
        }
        let added = format!("{signed}&z=3");
        assert_eq!(check(&Method::GET, &added, 1), Err(SignedUrlError::Tampered));
    }

    #[test]
    fn missing_malformed_and_foreign_signatures_are_told_apart() {
        let signed = sign(&secret(), None, "/a", 1000);
        assert_eq!(check(&Method::GET, "/a?b", 1), Err(SignedUrlError::Missing));
        let half = "/a?wrenn-expires=1000";
        assert_eq!(check(&Method::GET, half, 1), Err(SignedUrlError::Malformed));
        let twice = format!("{signed}&wrenn-expires=5000");
        assert_eq!(check(&Method::GET, &twice, 1), Err(SignedUrlError::Malformed));
        let newer = signed.replace("=v1.", "=v2.");
        assert_eq!(check(&Method::GET, &newer, 1), Err(SignedUrlError::Malformed));
        let other = SigningSecret::new("of another");
        let foreign = verify(Some(&other), &Method::GET, &signed, 1);
        assert_eq!(foreign, Err(SignedUrlError::UnknownKey));
        assert_eq!(verify(None, &Method::GET, &signed, 1), Err(SignedUrlError::UnknownKey));
        assert!(!format!("{:?}", secret()).contains("function"));
    }
}
