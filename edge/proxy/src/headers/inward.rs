//! A client's header fields on their way to an agent.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, header};
use pool_model::RequestId;

use super::{
    APP_PROTOCOL, FORWARDED_PREFIX, INNER_REQUEST_ID, OF_JOBS, REQUEST_ID, TARGET, TOKEN,
    forwarded::{self, Origin},
    hop, insert_text, strip_ours,
};
use crate::{error::EdgeError, routes::AgentToken};

/// How often a request may come through edges like this one: functions may call functions, but not
/// for ever.
const HOPS_MAX: usize = 16;
/// What is added here and per attempt.
const FIELDS_ADDED: usize = 12;
/// Our name in `Via` (RFC 9110 7.6.3).
const VIA: HeaderValue = HeaderValue::from_static("1.1 wrenn");

/// Who asks and for whom, as the guest may know it.
#[derive(Debug)]
pub(crate) struct Inward<'a> {
    pub(crate) host: &'a str,
    pub(crate) origin: Origin,
    pub(crate) peer: IpAddr,
    pub(crate) target: HeaderValue,
    pub(crate) request_id: RequestId,
    /// The beginning of the path that the guest doesn't see.
    pub(crate) prefix: Option<&'a str>,
    pub(crate) websocket: bool,
    pub(crate) h2c: bool,
    /// Whether the request was made by the edge itself.
    pub(crate) from_inside: bool,
}

/// Refuses what goes in a circle.
pub(crate) fn check_hops(headers: &HeaderMap) -> Result<(), EdgeError> {
    let hops = headers
        .get_all(header::VIA)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter(|hop| hop.trim_ascii().ends_with(b" wrenn"))
        .count();
    if hops < HOPS_MAX { Ok(()) } else { Err(EdgeError::Loop { hops }) }
}

/// Prepares a client's header fields for an agent; the token is added per attempt.
pub(crate) fn prepare(headers: &mut HeaderMap, inward: Inward<'_>) {
    headers.reserve(FIELDS_ADDED);
    let trailers = headers.get(header::TE).is_some_and(asks_for_trailers);
    hop::strip(headers);
    strip_ours(headers, |_| false);
    if !inward.from_inside {
        for name in OF_JOBS {
            headers.remove(name);
        }
    }
    headers.remove(header::TE);
    headers.remove(header::EXPECT);
    headers.remove(FORWARDED_PREFIX);
    join_cookies(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if inward.websocket {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.entry(header::SEC_WEBSOCKET_KEY).or_insert_with(websocket_key);
    }
    insert_text(headers, header::HOST, inward.host);
    headers.insert(TARGET, inward.target);
    if let Ok(id) = HeaderValue::from_str(&inward.request_id.to_string()) {
        headers.insert(INNER_REQUEST_ID, id.clone());
        headers.insert(REQUEST_ID, id);
    }
    if inward.h2c {
        headers.insert(APP_PROTOCOL, HeaderValue::from_static("h2c"));
    }
    if let Some(prefix) = inward.prefix {
        insert_text(headers, FORWARDED_PREFIX, prefix);
    }
    headers.append(header::VIA, VIA);
    forwarded::set(headers, &inward.origin, inward.peer, inward.host);
}

/// A nonce for who asked by CONNECT, where there is none (RFC 8441 5): 16 bytes, of which the last
/// two bits are 0, in base64 (RFC 6455 4.1).
fn websocket_key() -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut key = *b"AAAAAAAAAAAAAAAAAAAAAA==";
    for digit in &mut key[..21] {
        *digit = DIGITS[rand::random_range(0..DIGITS.len())];
    }
    HeaderValue::from_bytes(&key).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// What of a request's fields is kept for an invocation that nobody waits for.
pub(crate) fn for_later(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    hop::strip(&mut kept);
    strip_ours(&mut kept, |_| false);
    for name in [header::EXPECT, header::TE, header::CONTENT_LENGTH, header::HOST] {
        kept.remove(name);
    }
    kept.remove("prefer");
    kept
}

/// Adds what only the agent may see.
pub(crate) fn authorize(headers: &mut HeaderMap, token: &AgentToken) {
    headers.insert(TOKEN, token.header());
}

fn asks_for_trailers(te: &HeaderValue) -> bool {
    te.as_bytes()
        .split(|byte| *byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// HTTP/2 and HTTP/3 may split `Cookie`; HTTP/1.1 wants one (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn client_cannot_forge_our_fields_or_keep_hop_by_hop_ones() {
        let mut headers = map(&[
            ("x-wrenn-token", "forged"),
            ("x-wrenn-anything", "forged"),
            ("x-forwarded-prefix", "/forged"),
            ("x-request-id", "forged"),
            ("wrenn-trigger", "cron/forged"),
            ("connection", "close, X-Secret, host"),
            ("x-secret", "1"),
            ("upgrade", "h2c"),
            ("te", "gzip, trailers"),
            ("via", "1.1 other"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-mine", "stays"),
        ]);
        let client = IpAddr::from([127, 0, 0, 1]);
        prepare(
            &mut headers,
            Inward {
                host: "x.fn.d:8443",
                origin: Origin { client, secure: true, trusted: false },
                peer: client,
                target: HeaderValue::from_static("function/fn_0"),
                request_id: RequestId::from_u128(1),
                prefix: None,
                websocket: false,
                h2c: true,
                from_inside: false,
            },
        );
        for gone in [
            "x-wrenn-token",
            "x-wrenn-anything",
            "connection",
            "x-secret",
            "upgrade",
            "wrenn-trigger",
        ] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert!(!headers.contains_key("x-forwarded-prefix"));
        assert_eq!(headers["x-request-id"], headers["x-wrenn-request-id"]);
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["host"], "x.fn.d:8443");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-wrenn-target"], "function/fn_0");
        assert_eq!(headers["x-wrenn-protocol"], "h2c");
        assert_eq!(headers["cookie"], "a=1; b=2");
        assert_eq!(headers["x-mine"], "stays");
        let via: Vec<_> = headers.get_all("via").iter().collect();
        assert_eq!(via, ["1.1 other", "1.1 wrenn"]);
    }

    #[test]
    fn circles_end() {
        let mut headers = HeaderMap::new();
        for _ in 0..HOPS_MAX - 1 {
            headers.append(header::VIA, VIA);
        }
        assert!(check_hops(&headers).is_ok());
        headers.append(header::VIA, HeaderValue::from_static("1.1 other, 1.1 wrenn"));
        assert!(matches!(check_hops(&headers), Err(EdgeError::Loop { hops: 16 })));
    }
}
