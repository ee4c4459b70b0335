//! How much of the host is promised: sandboxes and guest memory, counted by guards.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::AgentError;

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
}

/// One sandbox's share. Gives it back when dropped.
#[derive(Debug)]
pub struct Share {
    memory_bytes: u64,
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

    /// Takes a share for a running sandbox.
    ///
    /// # Errors
    ///
    /// [`AgentError::NoCapacity`] with the sum that did not fit.
    pub fn take(&self, memory_bytes: u64) -> Result<Share, AgentError> {
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
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
        promised.sandboxes += 1;
        promised.memory_bytes = wanted;
        Ok(Share { memory_bytes, promised: Arc::clone(&self.promised) })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        promised.sandboxes -= 1;
        promised.memory_bytes -= self.memory_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_back_when_dropped() {
        let capacity = Capacity::new(2, 512 << 20);
        let first = capacity.take(256 << 20).unwrap();
        let _second = capacity.take(256 << 20).unwrap();
        assert!(capacity.take(0).unwrap_err().to_string().contains("2 of 2 sandboxes"));
        drop(first);
        assert!(capacity.take(512 << 20).unwrap_err().to_string().contains("of 512 MiB"));
        capacity.take(256 << 20).unwrap();
    }
}
