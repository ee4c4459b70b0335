//! Fields that speak of one connection only (RFC 9110 7.6.1).

use http::{HeaderMap, HeaderName, header};

/// What `Connection` names.
pub(super) fn named(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    connection_tokens(headers)
        .filter(|name| !is_protected(name))
        .filter_map(|name| HeaderName::try_from(name).ok())
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
        crate::headers::strip(&mut headers, |_, _| false);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["host"]);
    }
}
