//! May this client address come in, and which addresses count as one client?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What counts as one client: an IPv4 address or an IPv6 /64 (what one customer gets at least,
/// RFC 6177).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientNet {
    /// An IPv4 address, also one that came mapped into IPv6.
    V4(Ipv4Addr),
    /// The upper 64 bits of an IPv6 address.
    V6(u64),
}

impl ClientNet {
    /// The client behind `ip`.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Self::V6(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

/// Whether `ip` may come in: it is in no network of `deny` and in one of `allow`, if that has any.
/// IPv4-mapped IPv6 counts as IPv4, in addresses as in networks.
#[must_use]
pub fn allowed(allow: &[IpNet], deny: &[IpNet], ip: IpAddr) -> bool {
    if allow.is_empty() && deny.is_empty() {
        return true;
    }
    let ip = ip.to_canonical();
    let inside = |net: &IpNet| contains(net, ip);
    !deny.iter().any(inside) && (allow.is_empty() || allow.iter().any(inside))
}

fn contains(net: &IpNet, ip: IpAddr) -> bool {
    match (net, ip) {
        (IpNet::V6(net), IpAddr::V4(ip)) => {
            // Shorter prefixes speak of IPv6: `::/0` is no statement about IPv4.
            net.prefix_len() >= 96 && net.contains(&ip.to_ipv6_mapped())
        }
        _ => net.contains(&ip),
    }
}

/// Whether `ip` is outside of the public Internet: loopback, private, link-local, shared,
/// documentation, multicast or reserved, also wrapped into IPv6 (mapped, NAT64, 6to4).
#[must_use]
pub fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => private_v4(ip),
        IpAddr::V6(ip) => private_v6(ip),
    }
}

fn private_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || a == 0
        || a >= 224
        || (a == 100 && (b & 0xc0) == 64)
        || (a == 198 && (b & 0xfe) == 18)
        || (a == 192 && b == 0 && c == 0)
}

fn private_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        private_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        // Only 2000::/3 is given out (IANA), without documentation and Teredo.
        _ => {
            (s[0] & 0xe000) != 0x2000
                || (s[0] == 0x2001 && (s[1] == 0x0db8 || s[1] == 0))
                || (s[0] == 0x3fff && s[1] < 0x1000)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn empty_lists_let_everybody_in() {
        assert!(allowed(&[], &[], ip("203.0.113.9")));
    }

    #[test]
    fn a_denied_network_wins_over_an_allowed_one() {
        let (allow, deny) = (nets(&["10.0.0.0/8"]), nets(&["10.1.0.0/16"]));
        assert!(allowed(&allow, &deny, ip("10.2.3.4")));
        assert!(!allowed(&allow, &deny, ip("10.1.3.4")));
        assert!(!allowed(&allow, &deny, ip("192.0.2.1")));
    }

    #[test]
    fn mapped_addresses_and_networks_are_ipv4() {
        assert!(!allowed(&[], &nets(&["10.0.0.0/8"]), ip("::ffff:10.1.2.3")));
        assert!(!allowed(&[], &nets(&["::ffff:10.0.0.0/104"]), ip("10.1.2.3")));
        assert!(allowed(&[], &nets(&["::/0"]), ip("10.1.2.3")));
    }

    #[test]
    fn one_ipv6_client_is_a_slash_64() {
        assert_eq!(ClientNet::of(ip("2001:db8::1")), ClientNet::of(ip("2001:db8::ffff:1:2:3")));
        assert_ne!(ClientNet::of(ip("2001:db8::1")), ClientNet::of(ip("2001:db8:0:1::1")));
        assert_eq!(ClientNet::of(ip("::ffff:1.2.3.4")), ClientNet::of(ip("1.2.3.4")));
        assert_ne!(ClientNet::of(ip("1.2.3.4")), ClientNet::of(ip("1.2.3.5")));
    }

    #[test]
    fn private_addresses_are_found_in_every_disguise() {
        for text in [
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "ff02::1",
            "192.0.0.8",
            "198.19.0.1",
            "192.0.2.1",
            "224.0.0.1",
            "255.255.255.255",
            "::127.0.0.1",
            "2001:db8::1",
            "2001::1",
            "3fff::1",
        ] {
            assert!(is_private(ip(text)), "{text}");
        }
        for text in ["8.8.8.8", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808"] {
            assert!(!is_private(ip(text)), "{text}");
        }
    }
}
