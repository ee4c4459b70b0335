//! Who a request comes from, and how that is told to the guest (RFC 7239 and `X-Forwarded-*`).

use std::net::{IpAddr, SocketAddr};

use edge_telemetry::digits;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use super::added::Added;

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

/// What a trusted peer said, to be continued. Of an untrusted one nothing is kept.
#[derive(Debug, Default)]
pub(crate) struct Said {
    list: String,
    forwarded: String,
    host: bool,
}

impl Said {
    /// Takes it out of a request's fields. What is not to be continued is gone, too, but what a trusted
    /// peer said of the port and the host: that stays as it is.
    pub(crate) fn take(headers: &mut HeaderMap, origin: &Origin) -> Self {
        let mut said = Self::default();
        if origin.trusted {
            join(headers, &X_FORWARDED_FOR, &mut said.list);
            join(headers, &header::FORWARDED, &mut said.forwarded);
            said.host = headers.contains_key(X_FORWARDED_HOST);
        } else {
            headers.remove(X_FORWARDED_PORT);
        }
        if !said.host {
            headers.remove(X_FORWARDED_HOST);
        }
        for name in [X_FORWARDED_FOR, header::FORWARDED, X_FORWARDED_PROTO, X_REAL_IP] {
            headers.remove(name);
        }
        said
    }
}

/// Tells the guest, behind what was said before.
pub(crate) fn add(added: &mut Added, said: &Said, origin: &Origin, peer: IpAddr, host: &str) {
    let scheme = if origin.secure { "https" } else { "http" };
    let peer = peer.to_canonical();
    added.text("x-forwarded-for", |out| {
        begin(out, &said.list);
        digits::ip(out, peer);
    });
    added.text("forwarded", |out| {
        begin(out, &said.forwarded);
        node(out, peer, host, scheme);
    });
    added.ours("x-forwarded-proto", |out| out.extend_from_slice(scheme.as_bytes()));
    if !said.host {
        added.text("x-forwarded-host", |out| out.extend_from_slice(host.as_bytes()));
    }
    added.ours("x-real-ip", |out| digits::ip(out, origin.client));
}

/// Begins a list with what stood in it before.
fn begin(out: &mut Vec<u8>, before: &str) {
    if !before.is_empty() {
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(b", ");
    }
}

/// One element of `Forwarded`; the `for` of an IPv6 address is quoted and in brackets (RFC 7239 6).
fn node(out: &mut Vec<u8>, peer: IpAddr, host: &str, scheme: &str) {
    let (open, close) =
        if peer.is_ipv6() { (&b"for=\"["[..], &b"]\""[..]) } else { (&b"for="[..], &b""[..]) };
    out.extend_from_slice(open);
    digits::ip(out, peer);
    out.extend_from_slice(close);
    out.extend_from_slice(b";host=\"");
    if host.bytes().any(|byte| matches!(byte, b'"' | b'\\')) {
        out.extend(host.bytes().filter(|byte| !matches!(byte, b'"' | b'\\')));
    } else {
        out.extend_from_slice(host.as_bytes());
    }
    out.extend_from_slice(b"\";proto=");
    out.extend_from_slice(scheme.as_bytes());
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

    /// What the guest is told.
    fn told(headers: &HeaderMap, origin: &Origin, peer: &str, host: &str) -> HeaderMap {
        let (mut added, mut told) = (Added::new(), headers.clone());
        let said = Said::take(&mut told, origin);
        add(&mut added, &said, origin, peer.parse().unwrap(), host);
        added.append_to(&mut told);
        told
    }

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
        let headers = map(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-real-ip", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
        ]);
        let origin = origin(&headers, peer("192.0.2.1:5"), false, &["10.0.0.0/8".parse().unwrap()]);
        assert_eq!((origin.client, origin.secure), ("192.0.2.1".parse().unwrap(), false));
        let told = told(&headers, &origin, "192.0.2.1", "a.test:8443");
        for (name, value) in [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "a.test:8443"),
            ("x-real-ip", "192.0.2.1"),
            ("forwarded", "for=192.0.2.1;host=\"a.test:8443\";proto=http"),
        ] {
            assert_eq!(told.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
        }
    }

    #[test]
    fn a_trusted_chain_is_followed_to_the_first_stranger() {
        let headers = map(&[
            ("x-forwarded-for", "6.6.6.6, 203.0.113.9"),
            ("x-forwarded-for", "10.0.0.7"),
            ("x-forwarded-proto", "https"),
        ]);
        let nets = ["10.0.0.0/8".parse().unwrap()];
        let origin = origin(&headers, peer("[::ffff:10.0.0.8]:5"), false, &nets);
        assert_eq!(origin.client, "203.0.113.9".parse::<IpAddr>().unwrap());
        assert!(origin.secure && origin.trusted);
        let told = told(&headers, &origin, "10.0.0.8", "a.test");
        assert_eq!(told["x-forwarded-for"], "6.6.6.6, 203.0.113.9, 10.0.0.7, 10.0.0.8");
        assert_eq!(told["x-real-ip"], "203.0.113.9");
    }

    #[test]
    fn what_cannot_be_read_ends_the_chain() {
        let headers = map(&[("x-forwarded-for", "203.0.113.9, unknown")]);
        let nets = ["10.0.0.0/8".parse().unwrap()];
        let origin = origin(&headers, peer("10.0.0.8:5"), false, &nets);
        assert_eq!(origin.client, "10.0.0.8".parse::<IpAddr>().unwrap());
        assert_eq!(address("[2001:db8::1]:80"), "2001:db8::1".parse().ok());
        let mut text = Vec::new();
        node(&mut text, "2001:db8::1".parse().unwrap(), "a\"b", "http");
        assert_eq!(text, b"for=\"[2001:db8::1]\";host=\"ab\";proto=http");
    }
}
