//! The part of a request's head that is between the edge and us, and the part that is not.

use agent_api::{
    Token,
    proxy::{self, Target},
};
use http::{HeaderMap, HeaderName, Method, Request, header};
use hyper::body::Incoming;
use pool_model::ErrorCode;

use super::error::Failure;

/// Headers that speak of one connection only (RFC 9110, 7.6.1), `Upgrade` apart.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A request from an edge, our headers taken out of it.
#[derive(Debug)]
pub(super) struct Ours {
    /// Where it is to go.
    pub(super) target: Target,
    /// Under which id it is logged.
    pub(super) request_id: Option<String>,
    /// The protocol it wants to switch to, e.g. `websocket`.
    pub(super) upgrade: Option<http::HeaderValue>,
    /// The guest speaks HTTP/2 without TLS.
    pub(super) h2c: bool,
    /// Trailers are welcome in the answer.
    pub(super) trailers: bool,
    /// What the guest will see.
    pub(super) request: Request<Incoming>,
}

impl Ours {
    /// Checks the token, reads the target, removes what must not reach the guest.
    pub(super) fn take(token: &Token, mut request: Request<Incoming>) -> Result<Self, Failure> {
        let headers = request.headers();
        let text =
            |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        if !text(proxy::TOKEN).is_some_and(|given| token.matches(given)) {
            return Err(Failure::new(ErrorCode::Unauthorized, "no agent token, or a wrong one"));
        }
        let target = text(proxy::TARGET).unwrap_or_default().parse::<Target>();
        let target = target.map_err(|bad| Failure::new(ErrorCode::InvalidArgument, bad))?;
        if request.method() == Method::CONNECT {
            let message = "CONNECT is not passed on to guests";
            return Err(Failure::new(ErrorCode::NotImplemented, message));
        }
        let h2c = match text(proxy::PROTOCOL) {
            None => false,
            Some(proxy::H2C) => true,
            Some(other) => {
                let message = format!("{}: `{other}` is not `{}`", proxy::PROTOCOL, proxy::H2C);
                return Err(Failure::new(ErrorCode::InvalidArgument, message));
            }
        };
        let trailers = text("te").is_some_and(asks_for_trailers);
        let request_id = text(proxy::REQUEST_ID).map(str::to_owned);
        let upgrade =
            headers.get(header::UPGRADE).filter(|_| !h2c && wants_upgrade(headers)).cloned();
        strip(request.headers_mut());
        Ok(Self { target, request_id, upgrade, h2c, trailers, request })
    }
}

/// Removes headers of ours and of the connection.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = connection_tokens(headers)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    strip_ours(headers);
}

/// Removes headers of ours.
pub(super) fn strip_ours(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(proxy::PREFIX)).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}

/// The one word of `TE` that crosses a proxy (RFC 9110, 10.1.4).
fn asks_for_trailers(te: &str) -> bool {
    te.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    connection_tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

fn connection_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn neither_our_headers_nor_the_connections_reach_a_guest() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
            ("x-wrenn-token", "secret"),
            ("x-wrenn-anything", "1"),
            ("accept", "*/*"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
