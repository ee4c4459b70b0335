//! Who a request comes from, and how that is told to the guest (RFC 7239 and `X-Forwarded-*`).

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use super::insert_text;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Most addresses of a chain that are looked at.
const CHAIN_MAX: usize = 32;

/// Where a request came from, as far as it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The client: the last address of the chain that no trusted proxy has.
    pub(crate) client: IpAddr,
    /// Whether the client spoke TLS to the first trusted proxy, or to us.
    pub(crate) secure: bool,
    /// Whether the peer is a trusted proxy, so that what it says is kept.
    pub(crate) trusted: bool,
}

/// Looks at the peer, and past it if it is trusted.
pub(crate) fn origin(
    headers: &HeaderMap,
    peer: SocketAddr,
    secure: bool,
    trusted_proxies: &[IpNet],
) -> Origin {
    let peer = peer.ip().to_canonical();
    let is_trusted = |ip: IpAddr| trusted_proxies.iter().any(|net| net.contains(&ip));
    if trusted_proxies.is_empty() || !is_trusted(peer) {
        return Origin { client: peer, secure, trusted: false };
    }
    let mut client = peer;
    for hop in chain(headers).into_iter().rev().take(CHAIN_MAX) {
        let Some(hop) = hop else { break }; // what can't be read ends what can be believed
        client = hop;
        if !is_trusted(hop) {
            break;
        }
    }
    let proto = headers.get(X_FORWARDED_PROTO).map(HeaderValue::as_bytes);
    let secure = match proto {
        Some(proto) => proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss"),
        None => secure,
    };
    Origin { client, secure, trusted: true }
}

/// The addresses of `X-Forwarded-For`, in order.
fn chain(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|part| std::str::from_utf8(part).ok().and_then(|text| address(text.trim())))
        .collect()
}

/// An address, perhaps with a port or in brackets. IPv4 in IPv6 is IPv4.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let ip: IpAddr = bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(ip.to_canonical())
}

/// Tells the guest. Of an untrusted peer nothing is kept; what a trusted one said is continued.
pub(crate) fn set(headers: &mut HeaderMap, origin: &Origin, peer: IpAddr, host: &str) {
    let scheme = if origin.secure { "https" } else { "http" };
    let mut list = String::new();
    let mut forwarded = String::new();
    if origin.trusted {
        join(headers, &X_FORWARDED_FOR, &mut list);
        join(headers, &header::FORWARDED, &mut forwarded);
    } else {
        headers.remove(X_FORWARDED_PORT);
    }
    let said_host = origin.trusted && headers.contains_key(X_FORWARDED_HOST);
    let peer = peer.to_canonical();
    let peer_text = peer.to_string();
    for text in [&mut list, &mut forwarded] {
        if !text.is_empty() {
            text.push_str(", ");
        }
    }
    list.push_str(&peer_text);
    node(&mut forwarded, peer, &peer_text, host, scheme);
    insert_string(headers, X_FORWARDED_FOR, list);
    insert_string(headers, header::FORWARDED, forwarded);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    if !said_host {
        insert_text(headers, X_FORWARDED_HOST, host);
    }
    let client = if origin.client == peer { peer_text } else { origin.client.to_string() };
    insert_string(headers, X_REAL_IP, client);
}

/// One element of `Forwarded`; the `for` of an IPv6 address is quoted and in brackets (RFC 7239 6).
fn node(text: &mut String, peer: IpAddr, peer_text: &str, host: &str, scheme: &str) {
    text.reserve(peer_text.len() + host.len() + 40);
    let (open, close) = if peer.is_ipv6() { ("\"[", "]\"") } else { ("", "") };
    for part in ["for=", open, peer_text, close, ";host=\""] {
        text.push_str(part);
    }
    text.extend(host.split(['"', '\\']));
    for part in ["\";proto=", scheme] {
        text.push_str(part);
    }
}

/// Like [`insert_text`], without a copy.
fn insert_string(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

fn join(headers: &HeaderMap, name: &HeaderName, text: &mut String) {
    for value in headers.get_all(name) {
        if let Ok(value) = value.to_str() {
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn an_untrusted_peer_says_nothing_about_itself() {
        let mut headers = map(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-real-ip", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
        ]);
        let origin = origin(&headers, peer("192.0.2.1:5"), false, &["10.0.0.0/8".parse().unwrap()]);
        assert_eq!((origin.client, origin.secure), ("192.0.2.1".parse().unwrap(), false));
        set(&mut headers, &origin, "192.0.2.1".parse().unwrap(), "a.test:8443");
        for (name, value) in [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "a.test:8443"),
            ("x-real-ip", "192.0.2.1"),
            ("forwarded", "for=192.0.2.1;host=\"a.test:8443\";proto=http"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
    }

    #[test]
    fn a_trusted_chain_is_followed_to_the_first_stranger() {
        let mut headers = map(&[
            ("x-forwarded-for", "6.6.6.6, 203.0.113.9"),
            ("x-forwarded-for", "10.0.0.7"),
            ("x-forwarded-proto", "https"),
        ]);
        let nets = ["10.0.0.0/8".parse().unwrap()];
        let origin = origin(&headers, peer("[::ffff:10.0.0.8]:5"), false, &nets);
        assert_eq!(origin.client, "203.0.113.9".parse::<IpAddr>().unwrap());
        assert!(origin.secure && origin.trusted);
        set(&mut headers, &origin, "10.0.0.8".parse().unwrap(), "a.test");
        assert_eq!(headers["x-forwarded-for"], "6.6.6.6, 203.0.113.9, 10.0.0.7, 10.0.0.8");
        assert_eq!(headers["x-real-ip"], "203.0.113.9");
    }

    #[test]
    fn what_cannot_be_read_ends_the_chain() {
        let headers = map(&[("x-forwarded-for", "203.0.113.9, unknown")]);
        let nets = ["10.0.0.0/8".parse().unwrap()];
        let origin = origin(&headers, peer("10.0.0.8:5"), false, &nets);
        assert_eq!(origin.client, "10.0.0.8".parse::<IpAddr>().unwrap());
        assert_eq!(address("[2001:db8::1]:80"), "2001:db8::1".parse().ok());
        let mut text = String::new();
        node(&mut text, "2001:db8::1".parse().unwrap(), "2001:db8::1", "a\"b", "http");
        assert_eq!(text, "for=\"[2001:db8::1]\";host=\"ab\";proto=http");
    }
}
