//! Checks a request's head before anything is done with it, and says which host it asks for.
//!
//! Stricter than the protocol libraries: what two parsers could read differently is refused.

use http::{HeaderMap, HeaderName, Method, Version, header, request::Parts, uri::Authority};

use crate::{
    error::EdgeError,
    headers::{asks_for_websocket, seen::Seen},
};

/// Whether and how a request wants a tunnel instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tunnel {
    No,
    /// `Upgrade: websocket` over HTTP/1.1 (RFC 6455).
    Upgrade,
    /// Extended CONNECT over HTTP/2 or HTTP/3 (RFC 8441, RFC 9220).
    Connect,
}

/// Checks the head and returns the authority it names. `protocol` is that of an extended CONNECT.
pub(crate) fn check(
    parts: &Parts,
    protocol: Option<&str>,
    max_header_bytes: u32,
) -> Result<(String, Tunnel), EdgeError> {
    let headers = &parts.headers;
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > max_header_bytes as usize {
        return Err(EdgeError::HeadersTooLarge { limit_bytes: max_header_bytes });
    }
    let seen = Seen::of(headers);
    let tunnel = tunnel(parts, protocol, seen)?;
    let path = parts.uri.path();
    let is_asterisk = path == "*" && parts.method == Method::OPTIONS;
    if !path.starts_with('/') && !is_asterisk {
        return Err(malformed("the path does not start with a slash"));
    }
    if seen.has(Seen::CONTENT_LENGTH) {
        check_framing(headers, seen)?;
    }
    match parts.version {
        Version::HTTP_2 | Version::HTTP_3 => check_connection_specific(headers, seen)?,
        _ if seen.has(Seen::TRANSFER_ENCODING) => check_transfer_encoding(headers)?,
        _ => {}
    }
    if seen.has(Seen::EXPECT) {
        check_expectation(headers)?;
    }
    Ok((authority(parts, seen)?, tunnel))
}

fn tunnel(parts: &Parts, protocol: Option<&str>, seen: Seen) -> Result<Tunnel, EdgeError> {
    if parts.method != Method::CONNECT {
        let h1 = !matches!(parts.version, Version::HTTP_2 | Version::HTTP_3);
        let upgrade = h1
            && parts.method == Method::GET
            && seen.has(Seen::UPGRADE)
            && asks_for_websocket(&parts.headers);
        return Ok(if upgrade { Tunnel::Upgrade } else { Tunnel::No });
    }
    match protocol {
        Some(protocol) if protocol.eq_ignore_ascii_case("websocket") => Ok(Tunnel::Connect),
        Some(_) => Err(EdgeError::NotImplemented { what: "an extended CONNECT but for WebSocket" }),
        None => Err(EdgeError::NotImplemented { what: "CONNECT" }),
    }
}

/// RFC 9110 10.1.1: the only expectation there is.
fn check_expectation(headers: &HeaderMap) -> Result<(), EdgeError> {
    let known = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(header::EXPECT).iter().all(known) {
        Ok(())
    } else {
        Err(EdgeError::Expectation)
    }
}

/// One Host. Where the target has an authority, over HTTP/1.1 it counts instead of Host (RFC 9112
/// 3.2.2), and over HTTP/2 and HTTP/3 the two have to be the same (RFC 9113 8.3.1, RFC 9114 4.3.1).
fn authority(parts: &Parts, seen: Seen) -> Result<String, EdgeError> {
    let host = if seen.has(Seen::HOST) {
        single(&parts.headers, &header::HOST, "there is more than one Host")?
    } else {
        None
    };
    let in_target = parts.uri.authority().map(Authority::as_str);
    let h1 = !matches!(parts.version, Version::HTTP_2 | Version::HTTP_3);
    match (in_target, host) {
        (Some(target), Some(host)) if !h1 && !target.eq_ignore_ascii_case(host) => {
            Err(malformed("Host differs from the request's authority"))
        }
        (Some(_), None) if h1 => Err(malformed("Host is missing")),
        (Some(target), _) if target.contains('@') => Err(malformed("the authority has user data")),
        (Some(target), _) => Ok(target.to_owned()),
        (None, Some(host)) => Ok(host.to_owned()),
        (None, None) => Err(malformed("Host is missing")),
    }
}

fn check_framing(headers: &HeaderMap, seen: Seen) -> Result<(), EdgeError> {
    let length = single(headers, &header::CONTENT_LENGTH, "there is more than one Content-Length")?;
    let Some(length) = length else { return Ok(()) };
    if seen.has(Seen::TRANSFER_ENCODING) {
        return Err(malformed("both Content-Length and Transfer-Encoding are given"));
    }
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    if digits && length.parse::<u64>().is_ok() {
        Ok(())
    } else {
        Err(malformed("Content-Length is not a number"))
    }
}

fn check_transfer_encoding(headers: &HeaderMap) -> Result<(), EdgeError> {
    let coding =
        single(headers, &header::TRANSFER_ENCODING, "there is more than one Transfer-Encoding")?;
    match coding {
        Some(coding) if !coding.eq_ignore_ascii_case("chunked") => {
            Err(malformed("Transfer-Encoding is not `chunked`"))
        }
        _ => Ok(()),
    }
}

fn check_connection_specific(headers: &HeaderMap, seen: Seen) -> Result<(), EdgeError> {
    if seen.has(Seen::CONNECTION_SPECIFIC) {
        return Err(malformed("a connection-specific header field is present"));
    }
    match seen.has(Seen::TE).then(|| headers.get(header::TE)).flatten() {
        Some(te) if te != "trailers" => Err(malformed("TE is not `trailers`")),
        _ => Ok(()),
    }
}

fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    twice: &'static str,
) -> Result<Option<&'a str>, EdgeError> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed(twice));
    }
    first.to_str().map(Some).map_err(|_| malformed("a header value is not ASCII"))
}

fn malformed(reason: &'static str) -> EdgeError {
    EdgeError::Malformed { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn host_rules_hold_for_each_protocol() {
        let h1 = Version::HTTP_11;
        let ok = [
            (h1, "/", vec![("host", "a")]),
            (h1, "http://a/", vec![("host", "A")]),
            (h1, "http://a/", vec![("host", "b")]),
            (Version::HTTP_2, "https://a/", vec![]),
            (Version::HTTP_3, "https://a/", vec![("host", "a")]),
        ];
        for (version, uri, headers) in ok {
            let (authority, _) = check(&request(version, uri, &headers), None, 1024).unwrap();
            assert!(authority.eq_ignore_ascii_case("a"));
        }
        let refused = [
            (h1, "/", vec![]),
            (h1, "/", vec![("host", "a"), ("host", "a")]),
            (h1, "http://a/", vec![]),
            (h1, "http://user@a/", vec![("host", "a")]),
            (Version::HTTP_2, "https://a/", vec![("host", "b")]),
            (Version::HTTP_3, "/", vec![]),
        ];
        for (version, uri, headers) in refused {
            assert!(
                check(&request(version, uri, &headers), None, 1024).is_err(),
                "{uri} {headers:?}"
            );
        }
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        let refused = [
            (Version::HTTP_11, vec![("content-length", "5"), ("transfer-encoding", "chunked")]),
            (Version::HTTP_11, vec![("transfer-encoding", "chunked, chunked")]),
            (Version::HTTP_11, vec![("transfer-encoding", "gzip")]),
            (Version::HTTP_11, vec![("content-length", "5"), ("content-length", "5")]),
            (Version::HTTP_11, vec![("content-length", "+5")]),
            (Version::HTTP_3, vec![("connection", "close")]),
            (Version::HTTP_3, vec![("transfer-encoding", "chunked")]),
            (Version::HTTP_3, vec![("te", "gzip")]),
        ];
        for (version, mut headers) in refused {
            headers.push(("host", "a"));
            assert!(check(&request(version, "/", &headers), None, 1024).is_err(), "{headers:?}");
        }
    }

    #[test]
    fn tunnels_are_for_websockets_only() {
        let connect = |protocol| {
            let mut request = request(Version::HTTP_2, "https://a/chat", &[]);
            request.method = Method::CONNECT;
            check(&request, protocol, 1024).map(|(_, tunnel)| tunnel)
        };
        assert!(matches!(connect(Some("websocket")), Ok(Tunnel::Connect)));
        for refused in [None, Some("connect-udp")] {
            assert!(matches!(connect(refused), Err(EdgeError::NotImplemented { .. })));
        }
        let upgrade = [("host", "a"), ("connection", "Upgrade"), ("upgrade", "websocket")];
        let (_, tunnel) = check(&request(Version::HTTP_11, "/", &upgrade), None, 1024).unwrap();
        assert_eq!(tunnel, Tunnel::Upgrade);
        let strange = request(Version::HTTP_11, "/", &[("host", "a"), ("expect", "the best")]);
        assert!(matches!(check(&strange, None, 1024), Err(EdgeError::Expectation)));
    }

    #[test]
    fn large_heads_are_refused_with_their_own_code() {
        let large = "x".repeat(2000);
        let head = request(Version::HTTP_11, "/", &[("host", "a"), ("x", &large)]);
        let error = check(&head, None, 1024).unwrap_err();
        assert_eq!(error.code().http_status(), 431);
    }
}
