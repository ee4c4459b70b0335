//! What does a webhook get, and how can it tell that it is from here?

use std::fmt::Write as _;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use edge_store::{InvocationBody, InvocationRecord};
use serde_json::json;

/// The field with the signature: `t=<Unix time>,v1=<HMAC-SHA-256 of "<t>.<body>", hex>`.
pub const SIGNATURE_HEADER: &str = "wrenn-signature";

/// The value of [`SIGNATURE_HEADER`] for a body that is sent at `unix_s`.
#[must_use]
pub fn signature(secret: &str, unix_s: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut signing = hmac::Context::with_key(&key);
    signing.update(format!("{unix_s}.").as_bytes());
    signing.update(body);
    let mut text = format!("t={unix_s},v1=");
    for byte in signing.sign().as_ref() {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The result of an invocation as JSON.
pub(super) fn body(record: &InvocationRecord, answer: &InvocationBody) -> Vec<u8> {
    let headers: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| json!([name, String::from_utf8_lossy(value)]))
        .collect();
    let message = json!({
        "id": record.id.to_string(),
        "function": record.name,
        "source": record.source.as_str(),
        "state": record.state.as_str(),
        "status": record.status,
        "headers": headers,
        "body": STANDARD.encode(&answer.body),
        "truncated": record.truncated,
        "error": record.error,
        "attempts": record.attempts,
        "created_at": record.created_at,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
    });
    message.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_hmac_of_time_and_body() {
        // Computed with `printf '1700000000.{}' | openssl dgst -sha256 -hmac key`.
        let expected = concat!(
            "t=1700000000,v1=",
            "9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae"
        );
        assert_eq!(signature("key", 1_700_000_000, b"{}"), expected);
        assert_ne!(signature("key", 1_700_000_001, b"{}"), expected);
        assert_ne!(signature("kez", 1_700_000_000, b"{}"), expected);
    }
}
