//! How much of the host is promised: sandboxes and guest memory, counted by guards.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{error::AgentError, journal::Purpose};

/// The host's limits and what is promised of them.
#[derive(Debug, Clone)]
pub struct Capacity {
    sandboxes_max: u32,
    memory_bytes_max: u64,
    promised: Arc<Mutex<Promised>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Promised {
    sandboxes: u32,
    memory_bytes: u64,
    /// Of that, to sandboxes that no pool made.
    outside_pools_bytes: u64,
}

/// One sandbox's share. Gives it back when dropped.
#[derive(Debug)]
pub struct Share {
    memory_bytes: u64,
    outside_pools: bool,
    promised: Arc<Mutex<Promised>>,
}

impl Capacity {
    /// Limits of a host.
    #[must_use]
    pub fn new(sandboxes_max: u32, memory_bytes_max: u64) -> Self {
        Self { sandboxes_max, memory_bytes_max, promised: Arc::default() }
    }

    /// The memory that may be promised.
    #[must_use]
    pub fn memory_bytes_max(&self) -> u64 {
        self.memory_bytes_max
    }

    /// What the pools may share among themselves now: everything that is not promised to others.
    #[must_use]
    pub fn for_pools_bytes(&self) -> u64 {
        self.memory_bytes_max.saturating_sub(lock(&self.promised).outside_pools_bytes)
    }

    /// Takes a share for a running sandbox.
    ///
    /// # Errors
    ///
    /// [`AgentError::NoCapacity`] with the sum that did not fit.
    pub fn take(&self, memory_bytes: u64, purpose: Purpose) -> Result<Share, AgentError> {
        let mut promised = lock(&self.promised);
        if promised.sandboxes >= self.sandboxes_max {
            let reason = format!("{} of {} sandboxes run", promised.sandboxes, self.sandboxes_max);
            return Err(AgentError::NoCapacity { reason });
        }
        let wanted = promised.memory_bytes + memory_bytes;
        if wanted > self.memory_bytes_max {
            let reason = format!(
                "{} MiB promised and {} MiB asked for, of {} MiB",
                promised.memory_bytes >> 20,
                memory_bytes >> 20,
                self.memory_bytes_max >> 20
            );
            return Err(AgentError::NoCapacity { reason });
        }
        let outside_pools = !matches!(purpose, Purpose::Warm(_));
        promised.sandboxes += 1;
        promised.memory_bytes = wanted;
        promised.outside_pools_bytes += if outside_pools { memory_bytes } else { 0 };
        Ok(Share { memory_bytes, outside_pools, promised: Arc::clone(&self.promised) })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut promised = lock(&self.promised);
        promised.sandboxes -= 1;
        promised.memory_bytes -= self.memory_bytes;
        promised.outside_pools_bytes -= if self.outside_pools { self.memory_bytes } else { 0 };
    }
}

fn lock(promised: &Mutex<Promised>) -> MutexGuard<'_, Promised> {
    promised.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use pool_model::FunctionId;

    use super::*;

    #[test]
    fn shares_come_back_when_dropped() {
        let capacity = Capacity::new(2, 512 << 20);
        let first = capacity.take(256 << 20, Purpose::Sandbox).unwrap();
        let _second = capacity.take(256 << 20, Purpose::Sandbox).unwrap();
        let refused = capacity.take(0, Purpose::Sandbox).unwrap_err().to_string();
        assert!(refused.contains("2 of 2 sandboxes"), "{refused}");
        drop(first);
        let refused = capacity.take(512 << 20, Purpose::Sandbox).unwrap_err().to_string();
        assert!(refused.contains("of 512 MiB"), "{refused}");
        capacity.take(256 << 20, Purpose::Sandbox).unwrap();
    }

    #[test]
    fn pools_share_what_no_other_sandbox_was_promised() {
        let capacity = Capacity::new(8, 1024 << 20);
        let sandbox = capacity.take(256 << 20, Purpose::Sandbox).unwrap();
        let warm = Purpose::Warm(FunctionId::from_u128(1));
        let _warm = capacity.take(512 << 20, warm).unwrap();
        assert_eq!(capacity.for_pools_bytes(), 768 << 20);
        drop(sandbox);
        assert_eq!(capacity.for_pools_bytes(), 1024 << 20);
    }
}
