//! What crosses the edge: hop-by-hop fields go, forwarding fields are set, ours are not forged.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pool_model::RequestId;

use crate::routes::AgentToken;

/// What the agent wants to see.
pub(crate) const TOKEN: HeaderName = HeaderName::from_static("x-wrenn-token");
/// `function/<fn id>` or `sandbox/<sb id>/<port>`.
pub(crate) const TARGET: HeaderName = HeaderName::from_static("x-wrenn-target");
/// The request's id on its way inwards.
pub(crate) const INNER_REQUEST_ID: HeaderName = HeaderName::from_static("x-wrenn-request-id");
/// The request's id on its way outwards.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The code of an error made by an agent or by the edge.
pub(crate) const ERROR: HeaderName = HeaderName::from_static("x-wrenn-error");
/// Which sandbox answered.
pub(crate) const SANDBOX: HeaderName = HeaderName::from_static("x-wrenn-sandbox");
/// Whether the sandbox serves this request only: `never`, or `sequential; request=2; max=10`. From
/// the agent, which lets none of a guest's through.
pub(crate) const REUSE: HeaderName = HeaderName::from_static("x-wrenn-reuse");
/// Where the time went.
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Never forwarded (RFC 9110 7.6.1). `te` is handled apart; `trailer` is kept.
const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// Who asks and for whom, as the guest may know it.
#[derive(Debug)]
pub(crate) struct Inward<'a> {
    pub(crate) host: &'a str,
    pub(crate) client: IpAddr,
    pub(crate) scheme: &'static str,
    pub(crate) target: &'a str,
    pub(crate) request_id: RequestId,
    pub(crate) websocket: bool,
}

/// Prepares a client's header fields for an agent; the token is added per attempt.
pub(crate) fn inward(headers: &mut HeaderMap, inward: &Inward<'_>) {
    let trailers = headers
        .get(header::TE)
        .and_then(|te| te.to_str().ok())
        .is_some_and(|te| te.split(',').any(|part| part.trim().eq_ignore_ascii_case("trailers")));
    strip_hop_by_hop(headers);
    strip_ours(headers, |_| false);
    for name in [header::TE, header::EXPECT, header::FORWARDED] {
        headers.remove(name);
    }
    join_cookies(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if inward.websocket {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    insert_text(headers, header::HOST, inward.host);
    insert_text(headers, TARGET, inward.target);
    insert_text(headers, INNER_REQUEST_ID, &inward.request_id.to_string());
    // Nothing before the edge is trusted, so what the client says about itself is replaced.
    insert_text(headers, HeaderName::from_static("x-forwarded-for"), &inward.client.to_string());
    insert_text(headers, HeaderName::from_static("x-forwarded-host"), inward.host);
    let scheme = HeaderValue::from_static(inward.scheme);
    headers.insert(HeaderName::from_static("x-forwarded-proto"), scheme);
}

/// Adds what only the agent may see.
pub(crate) fn authorize(headers: &mut HeaderMap, token: &AgentToken) {
    headers.insert(TOKEN, token.header());
}

/// Prepares an agent's header fields for the client. `upgraded` answers keep their upgrade.
pub(crate) fn outward(headers: &mut HeaderMap, upgraded: bool) {
    strip_hop_by_hop(headers);
    strip_ours(headers, |name| [SANDBOX, ERROR, REUSE].contains(name));
    headers.remove(header::ALT_SVC); // a guest does not say where else the edge listens
    if upgraded {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
}

/// Puts the edge's own entry before those of the agent.
pub(crate) fn add_timing(headers: &mut HeaderMap, route_ms: f64) {
    let mut timing = format!("route;dur={route_ms:.3}");
    for entry in headers.get_all(&SERVER_TIMING) {
        if let Ok(entry) = entry.to_str() {
            timing.push_str(", ");
            timing.push_str(entry);
        }
    }
    insert_text(headers, SERVER_TIMING, &timing);
}

/// Whether the client asks for a WebSocket; every other upgrade is dropped, `h2c` above all.
pub(crate) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let mut tokens = connection_tokens(headers);
    let upgrades = headers.get_all(header::UPGRADE);
    tokens.any(|token| token == "upgrade")
        && upgrades.iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = String> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|token| token.trim().to_ascii_lowercase())
}

/// Named by `Connection`, yet never dropped because of it: they decide where the request goes.
fn is_protected(name: &str) -> bool {
    matches!(name, "host" | "content-length" | "content-type" | "cookie" | "authorization")
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> =
        connection_tokens(headers).filter(|name| !is_protected(name)).collect();
    for name in named.iter().map(String::as_str).chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn strip_ours(headers: &mut HeaderMap, keep: impl Fn(&HeaderName) -> bool) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-wrenn-") && !keep(name))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

/// HTTP/2 and HTTP/3 may split `Cookie`; HTTP/1.1 wants one (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() < 2 {
        return;
    }
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn client_cannot_forge_our_fields_or_keep_hop_by_hop_ones() {
        let mut headers = map(&[
            ("x-wrenn-token", "forged"),
            ("x-wrenn-anything", "forged"),
            ("x-forwarded-for", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("connection", "close, X-Secret, host"),
            ("x-secret", "1"),
            ("upgrade", "h2c"),
            ("te", "gzip, trailers"),
            ("cookie", "a=1"),
            ("x-mine", "stays"),
        ]);
        headers.append(header::COOKIE, HeaderValue::from_static("b=2"));
        let inward = Inward {
            host: "x.fn.d:8443",
            client: IpAddr::from([127, 0, 0, 1]),
            scheme: "https",
            target: "function/fn_0",
            request_id: RequestId::from_u128(1),
            websocket: false,
        };
        super::inward(&mut headers, &inward);
        for gone in
            ["x-wrenn-token", "x-wrenn-anything", "forwarded", "connection", "x-secret", "upgrade"]
        {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["host"], "x.fn.d:8443");
        assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-wrenn-target"], "function/fn_0");
        assert_eq!(headers["cookie"], "a=1; b=2");
        assert_eq!(headers["x-mine"], "stays");
    }

    #[test]
    fn client_sees_of_our_fields_only_what_is_told_to_it() {
        let mut headers = map(&[
            ("x-wrenn-reuse", "sequential; request=2; max=10"),
            ("x-wrenn-sandbox", "sb_1"),
            ("x-wrenn-error", "pool_empty"),
            ("x-wrenn-token", "secret"),
            ("x-wrenn-reused", "not ours to tell"),
            ("x-mine", "stays"),
        ]);
        outward(&mut headers, false);
        assert_eq!(headers["x-wrenn-reuse"], "sequential; request=2; max=10");
        for stays in ["x-wrenn-sandbox", "x-wrenn-error", "x-mine"] {
            assert!(headers.contains_key(stays), "{stays}");
        }
        for gone in ["x-wrenn-token", "x-wrenn-reused"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        // A client can't say it to the agent either.
        let mut headers = map(&[("x-wrenn-reuse", "forged")]);
        strip_ours(&mut headers, |_| false);
        assert!(headers.is_empty());
    }

    #[test]
    fn route_comes_before_the_agents_timings() {
        let mut headers = map(&[("server-timing", "lease;dur=0.1, upstream;dur=3")]);
        add_timing(&mut headers, 0.25);
        assert_eq!(headers["server-timing"], "route;dur=0.250, lease;dur=0.1, upstream;dur=3");
    }

    #[test]
    fn only_websocket_upgrades_count() {
        assert!(asks_for_websocket(&map(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket")
        ])));
        assert!(!asks_for_websocket(&map(&[("connection", "upgrade"), ("upgrade", "h2c")])));
        assert!(!asks_for_websocket(&map(&[("upgrade", "websocket")])));
    }
}
