//! How many connections may one client have open?

use std::{net::IpAddr, sync::Arc};

use crate::{ip::ClientNet, shards::Shards};

/// Counts open connections per client (an IPv6 /64 is one). Only clients with an open connection
/// take memory.
#[derive(Debug, Clone)]
pub struct Connections {
    max: u32,
    open: Arc<Shards<ClientNet, u32>>,
}

/// One open connection; dropping it closes it for the count.
#[derive(Debug)]
pub struct ConnectionGuard(Option<(Arc<Shards<ClientNet, u32>>, ClientNet)>);

impl Connections {
    /// At most `max` connections per client; 0: no limit.
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self { max, open: Arc::new(Shards::new()) }
    }

    /// Counts a connection of `ip`; `None` if its client has as many as it may.
    #[must_use]
    pub fn try_open(&self, ip: IpAddr) -> Option<ConnectionGuard> {
        if self.max == 0 {
            return Some(ConnectionGuard(None));
        }
        let client = ClientNet::of(ip);
        let mut open = self.open.lock(&client);
        let count = open.entry(client).or_insert(0);
        if *count >= self.max {
            return None;
        }
        *count += 1;
        drop(open);
        Some(ConnectionGuard(Some((Arc::clone(&self.open), client))))
    }

    /// How many clients have a connection open.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.open.len()
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let Some((open, client)) = self.0.take() else { return };
        let mut open = open.lock(&client);
        match open.get_mut(&client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                open.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_and_gets_more_when_one_closes() {
        let connections = Connections::new(2);
        let ip: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        let other: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        let first = connections.try_open(ip).unwrap();
        let _second = connections.try_open(neighbour).unwrap();
        assert!(connections.try_open(ip).is_none());
        assert!(connections.try_open(other).is_some());
        drop(first);
        assert!(connections.try_open(neighbour).is_some());
    }

    #[test]
    fn closed_clients_leave_nothing_and_zero_is_no_limit() {
        let connections = Connections::new(1);
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        drop(connections.try_open(ip).unwrap());
        assert_eq!(connections.clients(), 0);
        let open = Connections::new(0);
        let guards: Vec<_> = (0..100).filter_map(|_| open.try_open(ip)).collect();
        assert_eq!(guards.len(), 100);
    }

    #[test]
    fn threads_together_get_no_more_than_one_would() {
        let connections = Connections::new(10);
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let open = || (0..100).filter_map(|_| connections.try_open(ip)).collect::<Vec<_>>();
        let guards = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(guards.len(), 10);
        drop(guards);
        assert_eq!(connections.clients(), 0);
    }
}
