//! Which bases and sessions there are, and what a client's call does to them.
//!
//! # Invariants
//!
//! - A session is only made over the very memfd that its process maps, told by device and inode: after
//!   a restart there may be two for one snapshot, and each is served to its own clones.
//! - Every session thread is joined: by the next call after its end, or when the pager stops.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    thread::JoinHandle,
};

use pool_model::SnapshotId;
use rustix::{event::EventfdFlags, fs::OFlags};

use crate::{
    base::{Base, BaseError, Identity},
    process::{Process, link_of},
    protocol::{Attach, BaseStats, Call, CloneStats, Outcome, RefusalCode, STATS_PAGE, Stats},
    server::Limits,
    session::{Session, Shared, chain},
    sys::{PAGE_BYTES, Uffd},
};

/// What the kernel calls a userfaultfd.
const UFFD_LINK: &str = "anon_inode:[userfaultfd]";

/// Stack of a session's thread: it calls shallow code with buffers on the heap.
const SESSION_STACK_BYTES: usize = 128 << 10;

/// A refusal, in the words that go to the client.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    code: RefusalCode,
    message: String,
}

impl Refusal {
    pub(crate) fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn into_outcome(self) -> Outcome {
        Outcome::Refused { code: self.code, message: self.message }
    }
}

impl From<BaseError> for Refusal {
    fn from(error: BaseError) -> Self {
        let code = match &error {
            BaseError::Length { .. } | BaseError::Open { .. } => RefusalCode::MemoryFile,
            BaseError::NotOurs { .. } => RefusalCode::BadDescriptor,
            BaseError::Pages { .. } => RefusalCode::BadRequest,
            BaseError::Io { .. } => RefusalCode::Host,
        };
        Self::new(code, chain(&error))
    }
}

fn host(step: &'static str) -> impl Fn(io::Error) -> Refusal {
    move |error| Refusal::new(RefusalCode::Host, format!("cannot {step}: {error}"))
}

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    base: Weak<Base>,
    process: Arc<Process>,
    uffd: Weak<Uffd>,
    addr: u64,
    len: u64,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    /// The base that new clones of a snapshot get.
    current: HashMap<SnapshotId, Arc<Base>>,
    sessions: Vec<Running>,
}

/// All bases and sessions of this process.
#[derive(Debug)]
pub(crate) struct Pager {
    limits: Limits,
    state: Mutex<State>,
    stop: Arc<OwnedFd>,
}

impl Pager {
    pub(crate) fn new(limits: Limits) -> io::Result<Self> {
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Self { limits, state: Mutex::default(), stop: Arc::new(stop) })
    }

    /// Carries out one call; the descriptor goes with the reply.
    pub(crate) fn carry_out(&self, call: Call) -> Result<(Outcome, Option<OwnedFd>), Refusal> {
        match call {
            Call::Base { snapshot, memory_file, memory_bytes } => {
                let base = self.base(snapshot, &memory_file, memory_bytes)?;
                let fd = base.for_reading().map_err(host("open base memory for reading"))?;
                return Ok((Outcome::Done, Some(fd.into())));
            }
            Call::Attach(attach) => self.attach(&attach)?,
            Call::Detach { pid } => self.detach(pid)?,
            Call::DropBase { snapshot } => {
                self.state().current.remove(&snapshot);
            }
            Call::Stats { skip_bases, skip_clones } => {
                return Ok((self.stats(skip_bases, skip_clones), None));
            }
        }
        Ok((Outcome::Done, None))
    }

    /// Ends all sessions without killing their guests: a successor takes them over.
    pub(crate) fn stop(&self) {
        if rustix::io::write(&*self.stop, &1u64.to_ne_bytes()).is_err() {
            return; // can't happen to an eventfd; then there is nothing to wait for
        }
        let sessions = std::mem::take(&mut self.state().sessions);
        for session in sessions {
            let _ = session.thread.join();
        }
    }

    /// The state, without the sessions that have ended.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = |session: &mut Running| session.shared.ended.load(Ordering::Acquire);
        for session in state.sessions.extract_if(.., ended) {
            let _ = session.thread.join(); // a panic has ended the process before this
        }
        state
    }

    fn base(
        &self,
        snapshot: SnapshotId,
        memory_file: &std::path::Path,
        memory_bytes: u64,
    ) -> Result<Arc<Base>, Refusal> {
        let mut state = self.state();
        if let Some(base) = state.current.get(&snapshot) {
            if base.bytes() != memory_bytes {
                let message = format!("base memory of {snapshot} has {} bytes", base.bytes());
                return Err(Refusal::new(RefusalCode::BadRequest, message));
            }
            return Ok(Arc::clone(base));
        }
        self.check_bases(&state)?;
        let block_bytes = self.limits.block_bytes;
        let base = Arc::new(Base::create(snapshot, memory_file, memory_bytes, block_bytes)?);
        state.current.insert(snapshot, Arc::clone(&base));
        tracing::info!(%snapshot, memory_bytes, "base memory made");
        Ok(base)
    }

    fn attach(&self, attach: &Attach) -> Result<(), Refusal> {
        let mut state = self.state();
        let (pid, start_ticks) = (attach.pid, attach.pid_start_ticks);
        let same = |shared: &Shared| (shared.pid, shared.start_ticks) == (pid, start_ticks);
        if let Some(known) = state.sessions.iter().find(|session| same(&session.shared)) {
            if (known.addr, known.len) != (attach.addr, attach.len) {
                let message = format!("process {pid} is attached with another range");
                return Err(Refusal::new(RefusalCode::BadRequest, message));
            }
            return wake_all(known.uffd.upgrade().as_deref(), attach);
        }
        if state.sessions.len() >= self.limits.clones {
            let message = format!("{} clones are attached", self.limits.clones);
            return Err(Refusal::new(RefusalCode::Limit, message));
        }
        let process = Process::find(pid, start_ticks)
            .map_err(host("open the process"))?
            .ok_or_else(|| Refusal::new(RefusalCode::NoSuchProcess, format!("no process {pid}")))?;
        let process = Arc::new(process);
        let uffd = Arc::new(fetch_uffd(&process, attach.uffd_fd)?);
        let base = self.base_of(&mut state, &process, attach)?;
        check_range(attach, base.bytes())?;
        let shared = Arc::new(Shared {
            pid,
            start_ticks,
            snapshot: attach.snapshot,
            base_identity: base.identity(),
            faults: 0.into(),
            ended: false.into(),
        });
        let weak_base = Arc::downgrade(&base);
        let session = Session {
            shared: Arc::clone(&shared),
            process: Arc::clone(&process),
            uffd: Arc::clone(&uffd),
            base,
            stop: Arc::clone(&self.stop),
            addr: attach.addr,
            len: attach.len,
            population: attach.population,
        };
        let thread = std::thread::Builder::new()
            .name(format!("clone-{pid}"))
            .stack_size(SESSION_STACK_BYTES)
            .spawn(move || session.run())
            .map_err(host("start a session's thread"))?;
        let woken = wake_all(Some(&uffd), attach);
        let (uffd, base) = (Arc::downgrade(&uffd), weak_base);
        let (addr, len) = (attach.addr, attach.len);
        state.sessions.push(Running { shared, base, process, uffd, addr, len, thread });
        tracing::debug!(pid, snapshot = %attach.snapshot, "clone attached");
        woken
    }

    /// The base that the process maps: known by its identity, or taken over from the process.
    fn base_of(
        &self,
        state: &mut State,
        process: &Process,
        attach: &Attach,
    ) -> Result<Arc<Base>, Refusal> {
        let held = fetch(process, attach.base_fd)?;
        let identity = Identity::of(&held).map_err(host("identify the base"))?;
        let known =
            |base: &Arc<Base>| base.snapshot == attach.snapshot && base.identity() == identity;
        let mut bases = state
            .current
            .values()
            .cloned()
            .chain(state.sessions.iter().filter_map(|session| session.base.upgrade()));
        if let Some(base) = bases.find(known) {
            return Ok(base);
        }
        drop(bases);
        self.check_bases(state)?;
        let block_bytes = self.limits.block_bytes;
        let base =
            Arc::new(Base::recover(attach.snapshot, &held, &attach.memory_file, block_bytes)?);
        state.current.entry(attach.snapshot).or_insert_with(|| Arc::clone(&base));
        let (snapshot, blocks) = (attach.snapshot, base.populated());
        tracing::info!(%snapshot, blocks, pid = attach.pid, "base memory taken over");
        Ok(base)
    }

    fn check_bases(&self, state: &State) -> Result<(), Refusal> {
        if state.current.len() < self.limits.bases {
            return Ok(());
        }
        let message = format!("{} snapshots have base memory", self.limits.bases);
        Err(Refusal::new(RefusalCode::Limit, message))
    }

    fn detach(&self, pid: i32) -> Result<(), Refusal> {
        let state = self.state();
        for session in state.sessions.iter().filter(|session| session.shared.pid == pid) {
            session.process.kill().map_err(host("kill the process"))?;
        }
        Ok(())
    }

    fn stats(&self, skip_bases: usize, skip_clones: usize) -> Outcome {
        let state = self.state();
        let mut bases: Vec<_> = state.current.values().cloned().collect();
        bases.extend(state.sessions.iter().filter_map(|session| session.base.upgrade()));
        bases.sort_by_key(|base| (base.snapshot, base.identity()));
        bases.dedup_by_key(|base| (base.snapshot, base.identity()));
        let clones_of = |base: &Base| {
            let sessions = state.sessions.iter();
            sessions.filter(|session| session.shared.base_identity == base.identity()).count()
                as u64
        };
        let page = bases.iter().skip(skip_bases).take(STATS_PAGE);
        let page = page.map(|base| BaseStats {
            snapshot: base.snapshot,
            resident_bytes: base.resident_bytes(),
            blocks_populated: base.populated(),
            clones: clones_of(base),
            faults: base.faults.load(Ordering::Relaxed),
        });
        let clones = state.sessions.iter().skip(skip_clones).take(STATS_PAGE);
        let clones = clones.map(|session| CloneStats {
            pid: session.shared.pid,
            snapshot: session.shared.snapshot,
            faults: session.shared.faults.load(Ordering::Relaxed),
        });
        let stats = Stats { bases: page.collect(), clones: clones.collect() };
        let more = bases.len() > skip_bases + STATS_PAGE
            || state.sessions.len() > skip_clones + STATS_PAGE;
        Outcome::Stats { stats, more }
    }
}

fn fetch(process: &Process, number: i32) -> Result<OwnedFd, Refusal> {
    process.descriptor(number).map_err(|error| {
        let message = format!("cannot fetch descriptor {number}: {error}");
        Refusal::new(RefusalCode::BadDescriptor, message)
    })
}

fn fetch_uffd(process: &Process, number: i32) -> Result<Uffd, Refusal> {
    let fd = fetch(process, number)?;
    let link = link_of(fd.as_fd()).map_err(host("identify the userfaultfd"))?;
    if link != UFFD_LINK {
        let message = format!("descriptor {number} is {link}, not a userfaultfd");
        return Err(Refusal::new(RefusalCode::BadDescriptor, message));
    }
    rustix::fs::fcntl_getfl(&fd)
        .and_then(|flags| rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK))
        .map_err(|error| host("make the userfaultfd non-blocking")(error.into()))?;
    Ok(Uffd::from_fd(fd))
}

fn check_range(attach: &Attach, base_bytes: u64) -> Result<(), Refusal> {
    let page = PAGE_BYTES as u64;
    let whole = attach.addr.is_multiple_of(page) && attach.len.is_multiple_of(page);
    let inside = attach.len > 0 && attach.len <= base_bytes;
    if whole && inside && attach.addr.checked_add(attach.len).is_some() {
        return Ok(());
    }
    let message =
        format!("{} bytes at {:#x} are no mapping of {base_bytes} bytes", attach.len, attach.addr);
    Err(Refusal::new(RefusalCode::BadRequest, message))
}

/// Faults that a predecessor read and never answered are raised again by this.
fn wake_all(uffd: Option<&Uffd>, attach: &Attach) -> Result<(), Refusal> {
    uffd.map_or(Ok(()), |uffd| uffd.wake(attach.addr, attach.len))
        .map_err(host("wake the waiting threads"))
}
