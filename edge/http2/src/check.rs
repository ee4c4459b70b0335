//! Which requests are malformed (RFC 9113 8) though the `h2` crate lets them through?
//!
//! The crate itself refuses: upper case, illegal bytes, connection-specific fields, a `te` other than
//! `trailers`, doubled, unknown or missing pseudo-fields (but those below), a Content-Length that does
//! not fit. It drops fragments of `:path` and pseudo-fields in trailers without a word.

use http::{HeaderMap, Method, header, request};

/// Fields that speak of an HTTP/1.1 connection (RFC 9113 8.2.2): the crate refuses to send them.
const OF_A_CONNECTION: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

/// Takes fields off an answer that mean nothing in HTTP/2.
pub(crate) fn strip(headers: &mut HeaderMap) {
    for name in OF_A_CONNECTION {
        headers.remove(name);
    }
}

/// What is wrong with a request; `extended`: it is an extended CONNECT (RFC 8441 4).
pub(crate) fn fault(parts: &request::Parts, extended: bool) -> Option<&'static str> {
    let authority = parts.uri.authority();
    if authority.is_some_and(|authority| authority.as_str().contains('@')) {
        return Some("`:authority` has userinfo");
    }
    if parts.method == Method::CONNECT {
        if authority.is_none() {
            return Some("CONNECT without `:authority`");
        }
        if !extended {
            return fault_of_fields(&parts.headers, authority.map(http::uri::Authority::as_str));
        }
    }
    match parts.uri.path_and_query().map(http::uri::PathAndQuery::as_str) {
        Some("*") if parts.method != Method::OPTIONS => return Some("`*` is for OPTIONS alone"),
        Some(path) if path == "*" || path.starts_with('/') => {}
        _ => return Some("`:path` is missing"),
    }
    fault_of_fields(&parts.headers, authority.map(http::uri::Authority::as_str))
}

fn fault_of_fields(headers: &HeaderMap, authority: Option<&str>) -> Option<&'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Some("there is more than one `host`");
    }
    if let (Some(host), Some(authority)) = (host, authority)
        && !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())
    {
        return Some("`host` differs from `:authority`");
    }
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let padded = headers.values().any(|value| {
        let value = value.as_bytes();
        blank(value.first()) || blank(value.last())
    });
    padded.then_some("a value begins or ends with a blank")
}
