//! `Location` of a guest that redirects to an address that only it knows.
//!
//! A server in a guest builds absolute URLs from what it believes to be: `http://localhost:8080/x`,
//! `http://<host>/x` because it sees no TLS. Both would lead a client astray.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Uri, header, uri::Authority};
use pool_model::Port;

/// What a client calls the target by.
#[derive(Clone, Copy)]
pub(crate) struct Public<'a> {
    /// `https` or `http`.
    pub(crate) scheme: &'static str,
    /// The authority that the client used.
    pub(crate) authority: &'a str,
    /// The beginning of the path that the guest doesn't see.
    pub(crate) prefix: Option<&'a str>,
    /// For a sandbox: the authority of another of its ports.
    pub(crate) other_port: Option<&'a dyn Fn(Port) -> String>,
}

/// Rewrites `Location` and `Content-Location` where they name the guest's own address.
pub(crate) fn rewrite(headers: &mut HeaderMap, own_port: Option<Port>, public: &Public<'_>) {
    // Most answers name neither: a glance at the names costs less than asking for the two.
    if !headers.keys().any(|n| *n == header::LOCATION || *n == header::CONTENT_LOCATION) {
        return;
    }
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let Some(value) = headers.get(&name) else { continue };
        let rewritten = value.to_str().ok().and_then(|text| rewritten(text, own_port, public));
        if let Some(value) = rewritten.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(name, value);
        }
    }
}

/// The new value, or `None` if the old one is right.
fn rewritten(text: &str, own_port: Option<Port>, public: &Public<'_>) -> Option<String> {
    if text.starts_with('/') && !text.starts_with("//") {
        return public.prefix.map(|prefix| format!("{prefix}{text}"));
    }
    let uri: Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let Public { scheme, prefix, .. } = *public;
    let prefix = prefix.unwrap_or_default();
    if authority.as_str().eq_ignore_ascii_case(public.authority) {
        let same = prefix.is_empty() && uri.scheme_str().is_none_or(|given| given == scheme);
        return (!same).then(|| format!("{scheme}://{}{prefix}{path}", public.authority));
    }
    if !is_own_address(authority) {
        return None;
    }
    match (authority.port_u16(), own_port) {
        (Some(port), Some(own)) if port != own.get() => {
            let other = public.other_port?;
            let authority = other(Port::try_from(port).ok()?);
            Some(format!("{scheme}://{authority}{path}"))
        }
        _ => Some(format!("{scheme}://{}{prefix}{path}", public.authority)),
    }
}

/// Loopback and "any" addresses: from outside, a guest can mean only itself by them.
fn is_own_address(authority: &Authority) -> bool {
    let host = authority.host();
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    match host.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_unspecified() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u16) -> Port {
        Port::try_from(number).unwrap()
    }

    #[test]
    fn a_guests_own_address_becomes_the_public_one() {
        let other = |port: Port| format!("{port}-id.d:8443");
        let public = Public {
            scheme: "https",
            authority: "8080-id.d:8443",
            prefix: None,
            other_port: Some(&other),
        };
        let at = |text| rewritten(text, Some(port(8080)), &public);
        let own = Some("https://8080-id.d:8443/a?b=c".to_owned());
        for text in [
            "http://localhost:8080/a?b=c",
            "http://127.0.0.1:8080/a?b=c",
            "http://0.0.0.0:8080/a?b=c",
            "http://[::1]:8080/a?b=c",
            "http://localhost/a?b=c",
            "http://8080-ID.d:8443/a?b=c",
        ] {
            assert_eq!(at(text), own, "{text}");
        }
        assert_eq!(at("http://localhost:9000/x").as_deref(), Some("https://9000-id.d:8443/x"));
        let stay =
            ["/x", "x/y", "https://8080-id.d:8443/x", "https://example.org/", "", "//[", "a b"];
        for stays in stay {
            assert_eq!(at(stays), None, "{stays}");
        }
    }

    #[test]
    fn a_path_prefix_comes_back() {
        let public =
            Public { scheme: "https", authority: "d", prefix: Some("/fn/hello"), other_port: None };
        let at = |text| rewritten(text, None, &public);
        assert_eq!(at("/login").as_deref(), Some("/fn/hello/login"));
        assert_eq!(at("http://d/login").as_deref(), Some("https://d/fn/hello/login"));
        assert_eq!(at("http://localhost/x").as_deref(), Some("https://d/fn/hello/x"));
        assert_eq!(at("https://example.org/"), None);
    }
}
