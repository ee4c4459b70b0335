//! Is this JSON Web Token good (RFC 7519, with the advice of RFC 8725)?

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, Validation, decode, decode_header, errors::ErrorKind,
};
use pool_model::JwtAuth;

use super::jwks::{JwksCache, JwksError, Wanted};

/// Longest token, bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What a good token says, all of it.
pub type Claims = serde_json::Map<String, serde_json::Value>;

/// Why a token is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// It is no token, is too long, or says what we don't understand (`crit`).
    #[error("this is not a token that can be understood")]
    Malformed,
    /// Its algorithm is not asymmetric.
    #[error("the token's algorithm is not accepted")]
    BadAlgorithm,
    /// No key of the set has its `kid` and fits its algorithm.
    #[error("the token's key is not in the key set")]
    UnknownKey,
    /// It was not signed with that key.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("the token is not valid yet")]
    NotYet,
    /// A claim is missing or is not what is asked for.
    #[error("the token's claim `{claim}` is not what is asked for")]
    Claim {
        /// Which.
        claim: String,
    },
    /// There is no key set now.
    #[error("the token's keys cannot be had now")]
    KeySet(#[from] JwksError),
}

/// Checks `token`; waits for the key set if that has to be fetched.
pub(super) async fn check(
    token: &str,
    policy: &JwtAuth,
    sets: &JwksCache,
) -> Result<Claims, JwtError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(JwtError::Malformed);
    }
    let header = decode_header(token).map_err(|_| JwtError::Malformed)?;
    if header.alg.family() == AlgorithmFamily::Hmac {
        return Err(JwtError::BadAlgorithm);
    }
    // We understand no extension, so a critical one is a refusal (RFC 7515 section 4.1.11).
    if header.crit.is_some() {
        return Err(JwtError::Malformed);
    }
    let wanted = Wanted { kid: header.kid.as_deref(), alg: header.alg };
    let keys = sets.keys(policy, &wanted).await?;
    let validation = validation(header.alg, policy);
    let mut last = JwtError::UnknownKey;
    for key in keys.fitting(&wanted) {
        match decode::<Claims>(token, key, &validation) {
            Ok(good) => return Ok(good.claims),
            Err(error) => last = reason(error.into_kind()),
        }
        if last != JwtError::BadSignature {
            break;
        }
    }
    Err(last)
}

fn validation(alg: Algorithm, policy: &JwtAuth) -> Validation {
    let mut validation = Validation::new(alg);
    validation.leeway = u64::from(policy.leeway_s);
    validation.validate_nbf = true;
    let mut required = vec!["exp"];
    if let Some(issuer) = &policy.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    validation.validate_aud = !policy.audience.is_empty();
    if validation.validate_aud {
        validation.set_audience(&policy.audience);
        required.push("aud");
    }
    validation.set_required_spec_claims(&required);
    validation
}

fn reason(kind: ErrorKind) -> JwtError {
    let claim = |claim: &str| JwtError::Claim { claim: claim.to_owned() };
    match kind {
        ErrorKind::InvalidSignature => JwtError::BadSignature,
        ErrorKind::ExpiredSignature => JwtError::Expired,
        ErrorKind::ImmatureSignature => JwtError::NotYet,
        ErrorKind::InvalidIssuer => claim("iss"),
        ErrorKind::InvalidAudience => claim("aud"),
        ErrorKind::MissingRequiredClaim(name) | ErrorKind::InvalidClaimFormat(name) => claim(&name),
        ErrorKind::InvalidAlgorithm => JwtError::BadAlgorithm,
        ErrorKind::InvalidKeyFormat | ErrorKind::InvalidRsaKey(_) => JwtError::UnknownKey,
        _ => JwtError::Malformed,
    }
}
