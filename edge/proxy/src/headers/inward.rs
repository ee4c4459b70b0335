//! A client's header fields on their way to an agent.

use std::net::IpAddr;

use edge_telemetry::digits;
use http::{HeaderMap, HeaderValue, header};
use pool_model::{FunctionId, IdText, Port, SandboxId};

use super::{
    added::Added,
    forwarded::{self, Origin, Said},
    seen::Seen,
    strip,
};
use crate::error::EdgeError;

/// How often a request may come through edges like this one: functions may call functions, but not
/// for ever.
const HOPS_MAX: usize = 16;

/// Who asks and for whom, as the guest may know it.
#[derive(Debug)]
pub(crate) struct Inward<'a> {
    pub(crate) host: &'a str,
    pub(crate) origin: Origin,
    pub(crate) peer: IpAddr,
    pub(crate) target: Aim,
    pub(crate) request_id: &'a IdText,
    /// The beginning of the path that the guest doesn't see.
    pub(crate) prefix: Option<&'a str>,
    pub(crate) websocket: bool,
    pub(crate) h2c: bool,
    /// Whether the request was made by the edge itself.
    pub(crate) from_inside: bool,
}

/// What the agent is to call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim {
    Function(FunctionId),
    Sandbox(SandboxId, Port),
}

impl Aim {
    /// `function/<fn id>` or `sandbox/<sb id>/<port>`.
    fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Function(id) => {
                out.extend_from_slice(b"function/");
                out.extend_from_slice(id.text().as_bytes());
            }
            Self::Sandbox(id, port) => {
                out.extend_from_slice(b"sandbox/");
                out.extend_from_slice(id.text().as_bytes());
                out.push(b'/');
                digits::number(out, port.get().into());
            }
        }
    }
}

/// Refuses what goes in a circle.
pub(crate) fn check_hops(headers: &HeaderMap) -> Result<(), EdgeError> {
    if !headers.keys().any(|name| *name == header::VIA) {
        return Ok(());
    }
    let hops = headers
        .get_all(header::VIA)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter(|hop| hop.trim_ascii().ends_with(b" wrenn"))
        .count();
    if hops < HOPS_MAX { Ok(()) } else { Err(EdgeError::Loop { hops }) }
}

/// Prepares a client's header fields for an agent, and says what comes in addition; the token is
/// added per attempt.
pub(crate) fn prepare(headers: &mut HeaderMap, inward: &Inward<'_>) -> Added {
    // Looked at anew: guards may have changed what there is.
    let seen = Seen::of(headers);
    let trailers = seen.has(Seen::TE) && headers.get(header::TE).is_some_and(asks_for_trailers);
    let doomed = Seen::OURS | Seen::EDGES | Seen::TE | Seen::EXPECT;
    let doomed = if inward.from_inside { doomed } else { doomed | Seen::OF_JOBS };
    if seen.has(doomed | Seen::HOP_BY_HOP) {
        strip(headers, |_, kind| kind.has(doomed));
    }
    let said = if seen.has(Seen::FORWARDED) {
        Said::take(headers, &inward.origin)
    } else {
        Said::default()
    };
    if seen.has(Seen::COOKIE) {
        join_cookies(headers);
    }
    if inward.websocket {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.entry(header::SEC_WEBSOCKET_KEY).or_insert_with(websocket_key);
    }
    let mut added = Added::new();
    set_host(headers, &mut added, inward.host);
    if trailers {
        added.ours("te", |out| out.extend_from_slice(b"trailers"));
    }
    tell(&mut added, inward);
    forwarded::add(&mut added, &said, &inward.origin, inward.peer, inward.host);
    added
}

/// Has the request name the host that counts; most do.
fn set_host(headers: &mut HeaderMap, added: &mut Added, host: &str) {
    let mut named = headers.get_all(header::HOST).iter();
    match (named.next(), named.next()) {
        (None, _) => added.text("host", |out| out.extend_from_slice(host.as_bytes())),
        (Some(named), None) if named == host => {}
        _ => {
            if let Ok(host) = HeaderValue::from_str(host) {
                headers.insert(header::HOST, host);
            }
        }
    }
}

/// What the edge says of the request itself.
fn tell(added: &mut Added, inward: &Inward<'_>) {
    let id = inward.request_id;
    added.ours("x-wrenn-target", |out| inward.target.write(out));
    added.ours("x-wrenn-request-id", |out| out.extend_from_slice(id.as_bytes()));
    added.ours("x-request-id", |out| out.extend_from_slice(id.as_bytes()));
    if inward.h2c {
        // The guest's server speaks HTTP/2 only.
        added.ours("x-wrenn-protocol", |out| out.extend_from_slice(b"h2c"));
    }
    if let Some(prefix) = inward.prefix {
        added.text("x-forwarded-prefix", |out| out.extend_from_slice(prefix.as_bytes()));
    }
    // Our name (RFC 9110 7.6.3), behind those of others.
    added.ours("via", |out| out.extend_from_slice(b"1.1 wrenn"));
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
    let doomed = Seen::OURS | Seen::EXPECT | Seen::TE | Seen::CONTENT_LENGTH | Seen::HOST;
    strip(&mut kept, |_, kind| kind.has(doomed));
    kept.remove("prefer");
    kept
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
        let added = prepare(
            &mut headers,
            &Inward {
                host: "x.fn.d:8443",
                origin: Origin { client, secure: true, trusted: false },
                peer: client,
                target: Aim::Function(FunctionId::from_u128(0)),
                request_id: &pool_model::RequestId::from_u128(1).text(),
                prefix: None,
                websocket: false,
                h2c: true,
                from_inside: false,
            },
        );
        added.append_to(&mut headers);
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
        assert_eq!(headers.get_all("x-request-id").iter().count(), 1);
        assert_eq!(headers["x-request-id"], headers["x-wrenn-request-id"]);
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["host"], "x.fn.d:8443");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-wrenn-target"], format!("function/{}", FunctionId::from_u128(0)));
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
            headers.append(header::VIA, HeaderValue::from_static("1.1 wrenn"));
        }
        assert!(check_hops(&headers).is_ok());
        headers.append(header::VIA, HeaderValue::from_static("1.1 other, 1.1 wrenn"));
        assert!(matches!(check_hops(&headers), Err(EdgeError::Loop { hops: 16 })));
    }
}
