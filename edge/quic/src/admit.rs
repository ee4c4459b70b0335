//! Is a new connection taken, asked to prove its address first, or refused?

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::Incoming;

/// Limits on connections of one process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdmissionLimits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address (IPv4) or one /64 network (IPv6, where one customer has at least that).
    pub per_address: usize,
    /// Load (0 to 1) from which an address has to be proved with a Retry (RFC 9000 section 8.1.2).
    pub retry_load: f32,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self { connections: 65_536, per_address: 1024, retry_load: 0.5 }
    }
}

/// What to do with a connection attempt.
#[derive(Debug)]
#[must_use]
pub enum Admit {
    /// Accept it, and keep the permit for as long as the connection lives.
    Accept(Permit),
    /// Answer with a Retry: [`Incoming::retry`].
    Retry,
    /// Refuse it: [`Incoming::refuse`].
    Refuse,
}

/// Counts connections; shared by all workers of a process.
#[derive(Debug)]
pub struct Admission {
    limits: AdmissionLimits,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// Has at most as many entries as there are connections.
    by_address: HashMap<IpAddr, usize>,
}

/// One connection that counts; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Admission {
    /// Nothing is open yet.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Arc<Self> {
        Arc::new(Self { limits, open: Mutex::default() })
    }

    /// Decides on `incoming`. `load` is how busy the process is, 0 to 1, whatever the caller measures; from the share of
    /// connections that are open we add our own.
    pub fn admit(self: &Arc<Self>, incoming: &Incoming, load: f32) -> Admit {
        let proved = incoming.remote_address_validated() || !incoming.may_retry();
        self.decide(incoming.remote_address().ip(), proved, load)
    }

    fn decide(self: &Arc<Self>, address: IpAddr, proved: bool, load: f32) -> Admit {
        let address = network(address);
        let mut open = self.open();
        let of_address = open.by_address.get(&address).copied().unwrap_or(0);
        if open.all >= self.limits.connections || of_address >= self.limits.per_address {
            return Admit::Refuse;
        }
        if !proved && self.load(open.all, load) >= self.limits.retry_load {
            return Admit::Retry;
        }
        open.all += 1;
        *open.by_address.entry(address).or_default() += 1;
        Admit::Accept(Permit { admission: Arc::clone(self), address })
    }

    #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 24 bits")]
    fn load(&self, open: usize, load: f32) -> f32 {
        load.max(open as f32 / self.limits.connections.max(1) as f32)
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open().all
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.admission.open();
        open.all -= 1;
        if let Some(n) = open.by_address.get_mut(&self.address) {
            *n -= 1;
            if *n == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(connections: usize, per_address: usize) -> Arc<Admission> {
        Admission::new(AdmissionLimits { connections, per_address, retry_load: 0.5 })
    }

    fn accepted(admit: Admit) -> Permit {
        match admit {
            Admit::Accept(permit) => permit,
            other => panic!("not accepted: {other:?}"),
        }
    }

    #[test]
    fn an_address_over_its_limit_is_refused_until_it_closes_one() {
        let admission = admission(100, 2);
        let ip = |n: u8| IpAddr::from([10, 0, 0, n]);
        let first = accepted(admission.decide(ip(1), false, 0.0));
        let _second = accepted(admission.decide(ip(1), false, 0.0));
        assert!(matches!(admission.decide(ip(1), true, 0.0), Admit::Refuse));
        let _other = accepted(admission.decide(ip(2), false, 0.0));
        drop(first);
        let _third = accepted(admission.decide(ip(1), false, 0.0));
        assert_eq!(admission.connections(), 3);
    }

    #[test]
    fn a_full_process_refuses_everybody_and_forgets_closed_addresses() {
        let admission = admission(4, 4);
        let permits: Vec<_> = (0..4)
            .map(|n| accepted(admission.decide(IpAddr::from([10, 0, 0, n]), true, 0.0)))
            .collect();
        assert!(matches!(admission.decide(IpAddr::from([1, 1, 1, 1]), true, 0.0), Admit::Refuse));
        drop(permits);
        assert_eq!(admission.connections(), 0);
        assert!(admission.open().by_address.is_empty());
    }

    #[test]
    fn under_load_only_who_proved_the_address_is_accepted() {
        let admission = admission(100, 100);
        let ip = IpAddr::from([10, 0, 0, 1]);
        assert!(matches!(admission.decide(ip, false, 0.4), Admit::Accept(_)));
        assert!(matches!(admission.decide(ip, false, 0.5), Admit::Retry));
        assert!(matches!(admission.decide(ip, true, 1.0), Admit::Accept(_)));
    }

    #[test]
    fn open_connections_count_as_load() {
        let admission = admission(4, 4);
        let ip = IpAddr::from([10, 0, 0, 1]);
        let _held = [(); 2].map(|()| accepted(admission.decide(ip, false, 0.0)));
        assert!(matches!(admission.decide(ip, false, 0.0), Admit::Retry));
    }

    #[test]
    fn one_network_of_ipv6_is_one_address_and_mapped_ipv4_is_ipv4() {
        let ip = |text: &str| network(text.parse().unwrap());
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::ffff:1"));
        assert_ne!(ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        assert_eq!(ip("::ffff:10.0.0.1"), ip("10.0.0.1"));
    }
}
