//! Fields that speak of one connection only (RFC 9110 7.6.1).

use http::{HeaderMap, HeaderName, header};

/// Never forwarded. `te` is handled apart; `trailer` is kept.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes them, and those that `Connection` names.
pub(super) fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<String> =
            connection_tokens(headers).filter(|name| !is_protected(name)).collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Whether the client asks for a WebSocket; every other upgrade is dropped, `h2c` above all.
pub(crate) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let upgrades = headers.get_all(header::UPGRADE);
    upgrades.iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && connection_tokens(headers).any(|token| token == "upgrade")
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
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

    #[test]
    fn what_connection_names_goes_but_not_what_routes() {
        let mut headers = map(&[
            ("connection", "close, X-Secret, host"),
            ("x-secret", "1"),
            ("host", "a"),
            ("upgrade", "h2c"),
        ]);
        strip(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["host"]);
    }
}
