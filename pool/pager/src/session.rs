//! One clone: reads its faults, has the unit filled, wakes it.
//!
//! ```text
//! poll(userfaultfd, pidfd, stop) ─► fault ─► Base::fill ─► UFFDIO_WAKE ─► Base::fill_ahead
//!                                     └─ can't ─► SIGKILL, then log why
//! ```
//!
//! A guest's balloon makes the VMM discard pages. The VMM waits until that event is read; nothing
//! else is to be done: a discarded page that is touched again has the snapshot's content, as it had
//! at first, and never another guest's.
//!
//! # Invariants
//!
//! - Between reading a fault and waking its thread nothing is allocated and nothing is logged,
//!   unless the object store has to be asked. That is bounded by the fault's deadline.
//! - A session ends only when its process is dead, or the whole pager stops.
//! - An event that a VMM couldn't cause by running a guest kills it.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use pool_model::SnapshotId;
use rustix::event::{PollFd, PollFlags, poll};

use crate::{
    base::Base,
    error::{FillError, chain},
    image::Buffers,
    memory::Identity,
    process::Process,
    protocol::Population,
    sys::{Copied, Event, Events, PAGE_BYTES, Uffd},
    totals::Counters,
};

/// What others may know of a session while it runs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
    pub(crate) snapshot: SnapshotId,
    pub(crate) base_identity: Identity,
    pub(crate) faults: AtomicU64,
    /// Those outside of what is filled ahead.
    pub(crate) faults_outside: AtomicU64,
    pub(crate) removed_bytes: AtomicU64,
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
    pub(crate) counters: Arc<Counters>,
    pub(crate) addr: u64,
    pub(crate) len: u64,
    pub(crate) population: Population,
}

/// Why a fault could not be answered.
#[derive(Debug, thiserror::Error)]
enum FaultError {
    #[error("cannot fill the page at offset {offset}")]
    Fill {
        offset: u64,
        #[source]
        source: FillError,
    },
    #[error("cannot copy the page at offset {offset}")]
    Copy {
        offset: u64,
        #[source]
        source: io::Error,
    },
    #[error("cannot wake who waits for the page at offset {offset}")]
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
                self.counters.killed.fetch_add(1, Ordering::Relaxed);
                self.base.set_last_error(&cause);
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
        let mut events = Events::default();
        let mut buffers = self.base.buffers();
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
            self.turn(&mut events, &mut buffers)?;
        }
    }

    fn turn(&self, events: &mut Events, buffers: &mut Buffers) -> Result<(), FaultError> {
        self.uffd.read(events).map_err(|source| FaultError::Wait { source })?;
        let read = Instant::now();
        for event in events.iter() {
            match event {
                Event::Fault(address) => {
                    self.counters.in_flight.fetch_add(1, Ordering::Relaxed);
                    let answered = self.answer(address, read, buffers);
                    self.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
                    answered?;
                }
                Event::Removed { start, end } => {
                    let bytes = end.saturating_sub(start);
                    self.shared.removed_bytes.fetch_add(bytes, Ordering::Relaxed);
                }
                Event::Other(event) => return Err(FaultError::Event { event }),
            }
        }
        Ok(())
    }

    /// Answers one fault that was `read` from the kernel at that time.
    fn answer(&self, address: u64, read: Instant, buffers: &mut Buffers) -> Result<(), FaultError> {
        let offset = address
            .checked_sub(self.addr)
            .filter(|offset| *offset < self.len)
            .ok_or(FaultError::Outside { address })?;
        for counter in [&self.shared.faults, &self.base.faults, &self.counters.faults] {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        match self.population {
            Population::Shared => self.answer_shared(offset, read, buffers),
            Population::Copy => self.answer_copy(offset, read, buffers),
        }
    }

    fn answer_shared(
        &self,
        offset: u64,
        read: Instant,
        buffers: &mut Buffers,
    ) -> Result<(), FaultError> {
        let unit = self.base.unit_at(offset);
        let is_outside = !self.base.working.count_fault(unit);
        self.shared.faults_outside.fetch_add(u64::from(is_outside), Ordering::Relaxed);
        let deadline = read + self.base.fault_deadline();
        let ahead = self.base.fill(unit, buffers, deadline);
        let ahead = ahead.map_err(|source| FaultError::Fill { offset, source })?;
        for range in self.base.ranges(unit) {
            let len = range.end.min(self.len).saturating_sub(range.start);
            if len > 0 {
                let woken = self.uffd.wake(self.addr + range.start, len);
                woken.map_err(|source| FaultError::Wake { offset, source })?;
            }
        }
        self.counters.latency.record(read.elapsed());
        if let Some(ahead) = ahead {
            // Nobody waits for these. Should one of them be damaged, its own fault says so.
            if let Err(error) = self.base.fill_ahead(&ahead, buffers, deadline) {
                self.base.set_last_error(&chain(&error));
            }
        }
        Ok(())
    }

    fn answer_copy(
        &self,
        offset: u64,
        read: Instant,
        buffers: &mut Buffers,
    ) -> Result<(), FaultError> {
        let page_bytes = PAGE_BYTES as u64;
        let offset = offset / page_bytes * page_bytes;
        let deadline = read + self.base.fault_deadline();
        let page = self.base.page(offset, buffers, deadline);
        let page = page.map_err(|source| FaultError::Fill { offset, source })?;
        let failed = |source| FaultError::Copy { offset, source };
        match self.uffd.copy(self.addr + offset, page).map_err(failed)? {
            Copied::Bytes(_) => {}
            // Another thread of the guest was first: let this one look again. Or pages are being
            // discarded: the kernel copies nothing until that event is read. The thread then
            // faults again, behind it.
            Copied::Present | Copied::Retry => {
                let woken = self.uffd.wake(self.addr + offset, page_bytes);
                woken.map_err(|source| FaultError::Wake { offset, source })?;
            }
        }
        self.counters.latency.record(read.elapsed());
        Ok(())
    }
}
