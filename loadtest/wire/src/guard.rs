//! Which addresses may be called.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crate::CallError;

/// Says which addresses may be called: a load test must not hit a stranger.
///
/// - Loopback always.
/// - A private or link-local address if it was given as such, not as a name.
/// - A public address if the user owns the target.
/// - Nothing else: no multicast, no broadcast, no unspecified address.
///
/// Asked for every connection, after the name was looked up. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    explicit: Arc<[IpAddr]>,
    owned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    Loopback,
    Private,
    Public,
    Nobody,
}

impl Guard {
    /// Allows loopback, private addresses among `explicit`, and public ones if they are `owned`.
    #[must_use]
    pub fn new(explicit: impl IntoIterator<Item = IpAddr>, owned: bool) -> Self {
        Self { explicit: explicit.into_iter().map(|ip| ip.to_canonical()).collect(), owned }
    }

    /// Refuses an address that must not be called.
    ///
    /// # Errors
    ///
    /// [`CallError::RefusedAddress`], which says what would allow it.
    pub fn check(&self, address: IpAddr) -> Result<(), CallError> {
        // An IPv4 address in an IPv6 one reaches the same machine.
        let canonical = address.to_canonical();
        let reason = match range(canonical) {
            Range::Loopback => return Ok(()),
            Range::Private if self.explicit.contains(&canonical) => return Ok(()),
            Range::Public if self.owned => return Ok(()),
            Range::Private => "it is private; to allow it, give the address instead of a name",
            Range::Public => "it is public; to allow it, say that you own the target",
            Range::Nobody => "it is no single machine's",
        };
        Err(CallError::RefusedAddress { address, reason })
    }
}

fn range(address: IpAddr) -> Range {
    match address {
        IpAddr::V4(v4) => range_v4(v4),
        IpAddr::V6(v6) => range_v6(v6),
    }
}

fn range_v4(address: Ipv4Addr) -> Range {
    let [a, b, ..] = address.octets();
    // Carriers' private range, RFC 6598.
    let shared = a == 100 && (64..128).contains(&b);
    if address.is_loopback() {
        Range::Loopback
    } else if address.is_private() || address.is_link_local() || shared {
        Range::Private
    } else if a == 0 || a >= 224 {
        Range::Nobody // this network, multicast, reserved, broadcast
    } else {
        Range::Public
    }
}

fn range_v6(address: Ipv6Addr) -> Range {
    if address.is_loopback() {
        Range::Loopback
    } else if address.is_unique_local() || address.is_unicast_link_local() {
        Range::Private
    } else if address.is_unspecified() || address.is_multicast() {
        Range::Nobody
    } else {
        Range::Public
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(guard: &Guard, address: &str) -> bool {
        guard.check(address.parse().unwrap()).is_ok()
    }

    #[test]
    fn loopback_needs_nobodys_leave() {
        let guard = Guard::default();
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(allows(&guard, address), "{address}");
        }
    }

    #[test]
    fn private_addresses_are_called_only_if_they_were_given() {
        let given = "10.0.0.1".parse().unwrap();
        for owned in [false, true] {
            let guard = Guard::new([given], owned);
            assert!(allows(&guard, "10.0.0.1") && allows(&guard, "::ffff:10.0.0.1"));
            for address in
                ["10.0.0.2", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"]
            {
                assert!(!allows(&guard, address), "{address}");
            }
            for address in ["fe80::1", "fd00::1", "::ffff:10.0.0.2"] {
                assert!(!allows(&guard, address), "{address}");
            }
        }
    }

    #[test]
    fn public_addresses_are_called_only_if_the_target_is_owned() {
        for address in ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "100.128.0.1"] {
            let given = address.parse().unwrap();
            let error = Guard::new([given], false).check(given).unwrap_err();
            assert_eq!(error.kind(), "refused_address");
            assert!(error.to_string().contains("own the target"), "{error}");
            assert!(allows(&Guard::new([], true), address), "{address}");
        }
    }

    #[test]
    fn addresses_of_no_single_machine_are_never_called() {
        for address in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1"] {
            let guard = Guard::new([address.parse().unwrap()], true);
            assert!(!allows(&guard, address), "{address}");
        }
    }
}
