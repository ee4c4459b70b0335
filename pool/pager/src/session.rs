//! One clone: reads its faults, has the block filled, wakes it.
//!
//! ```text
//! poll(userfaultfd, pidfd, stop) ─► fault ─► Base::fill ─► UFFDIO_WAKE
//!                                     └─ can't ─► SIGKILL, then log why
//! ```
//!
//! # Invariants
//!
//! - Between reading a fault and waking its thread nothing is allocated and nothing is logged.
//! - A session ends only when its process is dead, or the whole pager stops.
//! - An event that a VMM couldn't cause by running a guest kills it.

use std::{
    io,
    os::{fd::OwnedFd, unix::fs::FileExt as _},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use pool_model::SnapshotId;
use rustix::event::{PollFd, PollFlags, poll};

use crate::{
    base::{Base, Identity},
    process::Process,
    protocol::Population,
    sys::{Copied, Event, Events, PAGE_BYTES, Uffd},
};

/// What others may know of a session while it runs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
    pub(crate) snapshot: SnapshotId,
    pub(crate) base_identity: Identity,
    pub(crate) faults: AtomicU64,
    /// Set last: the thread is about to return.
    pub(crate) ended: AtomicBool,
}

/// Everything one session's thread owns.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) process: Arc<Process>,
    pub(crate) uffd: Arc<Uffd>,
    pub(crate) base: Arc<Base>,
    pub(crate) stop: Arc<OwnedFd>,
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) population: Population,
}

/// Why a fault could not be answered.
#[derive(Debug, thiserror::Error)]
enum FaultError {
    #[error("cannot fill block {block} of base memory")]
    Fill {
        block: usize,
        #[source]
        source: io::Error,
    },
    #[error("cannot copy the page at offset {offset}")]
    Copy {
        offset: u64,
        #[source]
        source: io::Error,
    },
    #[error("cannot wake the block at offset {offset}")]
    Wake {
        offset: u64,
        #[source]
        source: io::Error,
    },
    #[error("fault at {address:#x} is outside the attached range")]
    Outside { address: u64 },
    #[error("unexpected event {event:#x}")]
    Event { event: u8 },
    #[error("cannot wait for faults")]
    Wait {
        #[source]
        source: io::Error,
    },
    #[error("the userfaultfd is broken")]
    Broken,
}

enum Ended {
    Exited,
    Stopped,
}

/// Buffers of a session, allocated before the first fault.
struct Buffers {
    events: Events,
    staging: Box<[u8]>,
}

impl Session {
    /// Serves until the process is dead or the pager stops.
    pub(crate) fn run(self) {
        let pid = self.shared.pid;
        let snapshot = self.shared.snapshot;
        let outcome = self.serve();
        let killed = outcome.is_err().then(|| self.process.kill());
        let faults = self.shared.faults.load(Ordering::Relaxed);
        match outcome {
            Ok(Ended::Exited) => tracing::debug!(pid, %snapshot, faults, "clone has exited"),
            Ok(Ended::Stopped) => tracing::debug!(pid, %snapshot, faults, "session stopped"),
            Err(error) => {
                let cause = chain(&error);
                tracing::error!(pid, %snapshot, faults, cause, "clone killed: a fault can't be answered");
            }
        }
        if let Some(Err(error)) = killed {
            tracing::error!(pid, %snapshot, %error, "cannot kill a clone");
        }
        let shared = Arc::clone(&self.shared);
        drop(self); // base memory and descriptors go before anyone is told
        shared.ended.store(true, Ordering::Release);
    }

    fn serve(&self) -> Result<Ended, FaultError> {
        let staging = vec![0; self.base.block_bytes()].into_boxed_slice();
        let mut buffers = Buffers { events: Events::default(), staging };
        loop {
            let mut fds = [
                PollFd::new(&*self.uffd, PollFlags::IN),
                PollFd::new(&*self.process, PollFlags::IN),
                PollFd::new(&*self.stop, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(FaultError::Wait { source: error.into() }),
            }
            let [uffd, process, stop] = fds.map(|fd| fd.revents());
            if !process.is_empty() {
                return Ok(Ended::Exited);
            }
            if !stop.is_empty() {
                return Ok(Ended::Stopped);
            }
            if uffd.intersects(PollFlags::ERR | PollFlags::NVAL) {
                return Err(FaultError::Broken); // made blocking behind our back
            }
            self.turn(&mut buffers)?;
        }
    }

    fn turn(&self, buffers: &mut Buffers) -> Result<(), FaultError> {
        let Buffers { events, staging } = buffers;
        self.uffd.read(events).map_err(|source| FaultError::Wait { source })?;
        for event in events.iter() {
            match event {
                Event::Fault(address) => self.answer(address, staging)?,
                Event::Other(event) => return Err(FaultError::Event { event }),
            }
        }
        Ok(())
    }

    fn answer(&self, address: u64, staging: &mut [u8]) -> Result<(), FaultError> {
        let offset = address
            .checked_sub(self.addr)
            .filter(|offset| *offset < self.len)
            .ok_or(FaultError::Outside { address })?;
        self.shared.faults.fetch_add(1, Ordering::Relaxed);
        self.base.faults.fetch_add(1, Ordering::Relaxed);
        match self.population {
            Population::Shared => self.answer_shared(offset, staging),
            Population::Copy => self.answer_copy(offset, staging),
        }
    }

    fn answer_shared(&self, offset: u64, staging: &mut [u8]) -> Result<(), FaultError> {
        let block_bytes = staging.len();
        let block = usize::try_from(offset).expect("an offset into mapped memory") / block_bytes;
        self.base.fill(block, staging).map_err(|source| FaultError::Fill { block, source })?;
        let start = (block * block_bytes) as u64;
        let len = (block_bytes as u64).min(self.len - start);
        self.uffd
            .wake(self.addr + start, len)
            .map_err(|source| FaultError::Wake { offset: start, source })
    }

    fn answer_copy(&self, offset: u64, staging: &mut [u8]) -> Result<(), FaultError> {
        let page_bytes = PAGE_BYTES as u64;
        let offset = offset / page_bytes * page_bytes;
        let page = &mut staging[..PAGE_BYTES];
        let failed = |source| FaultError::Copy { offset, source };
        self.base.source().read_exact_at(page, offset).map_err(failed)?;
        loop {
            match self.uffd.copy(self.addr + offset, page).map_err(failed)? {
                Copied::Bytes(_) => return Ok(()),
                // Another thread of the guest was first: let this one look again.
                Copied::Present => {
                    return self
                        .uffd
                        .wake(self.addr + offset, page_bytes)
                        .map_err(|source| FaultError::Wake { offset, source });
                }
                Copied::Retry if self.process.has_exited().map_err(failed)? => return Ok(()),
                Copied::Retry => {}
            }
        }
    }
}

/// An error with its causes, for a log line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
