//! Who may call: the access token, file signatures, and the acting user.
//!
//! Pure decisions; the token comes in as an argument.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};

/// Why a call is turned away; the words are what E2B's clients compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccessDenied {
    /// The header is missing or wrong.
    #[error("unauthorized access, please provide a valid access token")]
    Token,
    /// Neither header nor signature came.
    #[error("missing signature query parameter")]
    NoSignature,
    /// The signature is of something else.
    #[error("invalid signature")]
    BadSignature,
    /// The signature's time is over.
    #[error("signature is already expired")]
    Expired,
}

/// Compares without telling by time how much of it was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

/// Whether the call carries the token, when there is one.
///
/// # Errors
///
/// [`AccessDenied::Token`].
pub(crate) fn check_token(token: Option<&str>, headers: &HeaderMap) -> Result<(), AccessDenied> {
    let Some(token) = token else { return Ok(()) };
    match headers.get(envd_api::ACCESS_TOKEN_HEADER) {
        Some(given) if same(given.as_bytes(), token.as_bytes()) => Ok(()),
        _ => Err(AccessDenied::Token),
    }
}

/// What a signed file address says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignedFile<'a> {
    /// `read` or `write`.
    pub(crate) operation: &'static str,
    /// The path exactly as in the query.
    pub(crate) path: &'a str,
    /// The user exactly as in the query; empty when absent.
    pub(crate) username: &'a str,
    /// The signature, when one came.
    pub(crate) signature: Option<&'a str>,
    /// When it ends, seconds since 1970, exactly as in the query.
    pub(crate) expiration: Option<&'a str>,
}

impl SignedFile<'_> {
    /// `v1_` and the unpadded base64 of the SHA-256 over what is signed.
    #[must_use]
    pub(crate) fn sign(&self, token: &str) -> String {
        let mut text = format!("{}:{}:{}:{token}", self.path, self.operation, self.username);
        if let Some(expiration) = self.expiration {
            text.push(':');
            text.push_str(expiration);
        }
        format!("v1_{}", STANDARD_NO_PAD.encode(Sha256::digest(text.as_bytes())))
    }

    /// Lets in who has the token, or a signature that only its holder could have made.
    ///
    /// # Errors
    ///
    /// [`AccessDenied`]; a token header, when there is one, must be right.
    pub(crate) fn check(
        &self,
        token: Option<&str>,
        headers: &HeaderMap,
        now_s: i64,
    ) -> Result<(), AccessDenied> {
        let Some(token) = token else { return Ok(()) };
        if headers.contains_key(envd_api::ACCESS_TOKEN_HEADER) {
            return check_token(Some(token), headers);
        }
        let signature = self.signature.ok_or(AccessDenied::NoSignature)?;
        if !same(signature.as_bytes(), self.sign(token).as_bytes()) {
            return Err(AccessDenied::BadSignature);
        }
        match self.expiration.map(str::parse::<i64>) {
            None => Ok(()),
            Some(Ok(end)) if end >= now_s => Ok(()),
            Some(_) => Err(AccessDenied::Expired),
        }
    }
}

/// The user that HTTP Basic names; the password is ignored, as E2B's clients send none.
#[must_use]
pub(crate) fn named_user(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let user = decoded.split(':').next().unwrap_or_default();
    (!user.is_empty()).then(|| user.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static(name),
            http::HeaderValue::from_str(value).unwrap(),
        )])
    }

    #[test]
    fn without_a_token_everyone_is_let_in() {
        assert_eq!(check_token(None, &HeaderMap::new()), Ok(()));
    }

    #[test]
    fn with_a_token_only_its_holder_is_let_in() {
        let given = |value| check_token(Some("secret"), &with("x-access-token", value));
        assert_eq!(given("secret"), Ok(()));
        for wrong in ["secre", "secret1", "Secret", ""] {
            assert_eq!(given(wrong), Err(AccessDenied::Token), "{wrong}");
        }
        assert_eq!(check_token(Some("secret"), &HeaderMap::new()), Err(AccessDenied::Token));
    }

    #[test]
    fn signature_is_checked_before_its_end() {
        let file = |signature, expiration| SignedFile {
            operation: "read",
            path: "/a",
            username: "",
            signature,
            expiration,
        };
        let none = HeaderMap::new();
        let good = file(None, Some("100")).sign("secret");
        let check = |signature, expiration, now| {
            file(signature, expiration).check(Some("secret"), &none, now)
        };
        assert_eq!(check(Some(&good), Some("100"), 100), Ok(()));
        assert_eq!(check(Some(&good), Some("100"), 101), Err(AccessDenied::Expired));
        assert_eq!(check(Some(&good), Some("101"), 100), Err(AccessDenied::BadSignature));
        assert_eq!(check(Some(&good), None, 100), Err(AccessDenied::BadSignature));
        assert_eq!(check(None, None, 100), Err(AccessDenied::NoSignature));
        // The header wins even over a good signature.
        let wrong = with("x-access-token", "wrong");
        let both = file(Some(&good), Some("100")).check(Some("secret"), &wrong, 100);
        assert_eq!(both, Err(AccessDenied::Token));
    }

    #[test]
    fn signature_is_the_one_that_clients_compute() {
        let file = SignedFile {
            operation: "write",
            path: "/home/user/x",
            username: "user",
            signature: None,
            expiration: None,
        };
        // printf '/home/user/x:write:user:tok' | sha256sum | xxd -r -p | base64 | tr -d =
        assert_eq!(file.sign("tok"), "v1_PpnbMOENGrg5iYaeVm9YOI9RV21tWgyD9WYu7qL1jK4");
    }

    #[test]
    fn basic_names_the_user_and_nothing_else_does() {
        let of = |value| named_user(&with("authorization", value));
        assert_eq!(of("Basic cm9vdDo=").as_deref(), Some("root"));
        assert_eq!(of("basic cm9vdA==").as_deref(), Some("root"));
        assert_eq!(of("Basic Og=="), None);
        assert_eq!(of("Bearer cm9vdDo="), None);
        assert_eq!(of("Basic !!"), None);
        assert_eq!(named_user(&HeaderMap::new()), None);
    }
}
