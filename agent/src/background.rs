//! What background processes of a sandbox wrote last and how they ended, for whoever waits for a
//! server to be ready.
//!
//! # Limits
//!
//! The last 16 processes of a sandbox, 4096 bytes of output each, followed for
//! [`FOLLOW_MAX`].

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use envd_api::{End, ProcessEvent, ProcessStream};
use futures::StreamExt as _;

/// Processes remembered per sandbox.
const KEPT: usize = 16;
/// Output remembered per process.
const TAIL_BYTES: usize = 4096;
/// How long a process is followed: longer than anybody may wait for it.
pub const FOLLOW_MAX: Duration = Duration::from_secs(900);

/// The background processes of one sandbox.
#[derive(Debug, Default)]
pub struct Background {
    processes: Mutex<BTreeMap<u32, Arc<Process>>>,
}

/// One process.
#[derive(Debug, Default)]
pub struct Process {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    tail: VecDeque<u8>,
    end: Option<End>,
}

impl Background {
    /// Remembers a process that was just started.
    pub fn add(&self, pid: u32) -> Arc<Process> {
        let process = Arc::new(Process::default());
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        processes.insert(pid, Arc::clone(&process));
        while processes.len() > KEPT {
            processes.pop_first();
        }
        process
    }

    /// A process by its id in the guest.
    #[must_use]
    pub fn get(&self, pid: u32) -> Option<Arc<Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).get(&pid).cloned()
    }
}

impl Process {
    /// Reads a process's events to their end.
    pub async fn follow(&self, mut events: ProcessStream) {
        while let Some(Ok(event)) = events.next().await {
            match event {
                ProcessEvent::Stdout(bytes) | ProcessEvent::Stderr(bytes) => self.wrote(&bytes),
                ProcessEvent::Ended(end) => self.lock().end = Some(end),
                ProcessEvent::Started { .. } | ProcessEvent::Keepalive => {}
            }
        }
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.lock().end.clone()
    }

    /// The last of what it wrote.
    #[must_use]
    pub fn tail(&self) -> String {
        let bytes: Vec<u8> = self.lock().tail.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn wrote(&self, bytes: &[u8]) {
        let tail = &mut self.lock().tail;
        tail.extend(bytes);
        let over = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..over);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_output_and_the_last_processes_are_kept() {
        let background = Background::default();
        for pid in 0..20 {
            background.add(pid).wrote(&vec![b'a'; 3000]);
        }
        assert!(background.get(0).is_none());
        let last = background.get(19).unwrap();
        last.wrote(&vec![b'b'; 3000]);
        assert_eq!(last.tail().len(), TAIL_BYTES);
        assert!(last.tail().ends_with('b'));
    }
}
