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
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    thread::JoinHandle,
};

use pool_model::{Prefetch, SnapshotId};
use pool_remote::LayerSource;
use rustix::event::EventfdFlags;

use crate::{
    base::Base,
    error::BaseError,
    image::Image,
    limits::Limits,
    memory::Identity,
    pagemap::touched_windows,
    prefetch::Prefetcher,
    process::Process,
    protocol::{Attach, BaseStats, Call, CloneStats, Outcome, RefusalCode, STATS_PAGE, Stats},
    refusal::{Refusal, check_range, fetch, fetch_uffd, host, wake_all},
    session::{Session, Shared},
    sys::Uffd,
    totals::Counters,
    working,
};

/// Stack of a session's thread: it calls shallow code with buffers on the heap.
const SESSION_STACK_BYTES: usize = 256 << 10;

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
    source: LayerSource,
    counters: Arc<Counters>,
    prefetcher: Prefetcher,
    state: Mutex<State>,
    stop: Arc<OwnedFd>,
}

impl Pager {
    pub(crate) fn new(limits: Limits, source: LayerSource) -> io::Result<Self> {
        let stop = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?);
        let prefetcher = Prefetcher::start(limits.prefetch_threads)?;
        let (state, counters) = (Mutex::default(), Arc::default());
        Ok(Self { limits, source, counters, prefetcher, state, stop })
    }

    /// Carries out one call; the descriptor goes with the reply.
    pub(crate) fn carry_out(&self, call: Call) -> Result<(Outcome, Option<OwnedFd>), Refusal> {
        match call {
            Call::Base { snapshot, snapshot_dir, memory_bytes, prefetch } => {
                let base = self.base(snapshot, &snapshot_dir, memory_bytes)?;
                self.prefetch(&base, prefetch);
                let fd = base.for_reading().map_err(host("open base memory for reading"))?;
                return Ok((Outcome::Done, Some(fd.into())));
            }
            Call::Attach(attach) => self.attach(&attach)?,
            Call::Detach { pid } => self.detach(pid)?,
            Call::DropBase { snapshot } => {
                self.state().current.remove(&snapshot);
            }
            Call::Record { pid } => self.record(pid)?,
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
        self.prefetcher.stop();
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

    /// The base that a snapshot's new clones get.
    fn base(
        &self,
        snapshot: SnapshotId,
        snapshot_dir: &Path,
        memory_bytes: u64,
    ) -> Result<Arc<Base>, Refusal> {
        let known = |state: &State| state.current.get(&snapshot).map(Arc::clone);
        let state = self.state();
        let (found, room) = (known(&state), self.check_bases(&state));
        drop(state);
        if let Some(base) = found {
            return of_length(base, memory_bytes);
        }
        room?;
        // Without the lock: the object store may have to be asked.
        let image = self.image(snapshot, snapshot_dir)?;
        let (expected, found) = (memory_bytes, image.bytes());
        if expected != found {
            return Err(BaseError::Length { snapshot, expected, found }.into());
        }
        let base = Arc::new(Base::create(snapshot, image, self.limits)?);
        let mut state = self.state();
        if let Some(first) = known(&state) {
            return of_length(first, memory_bytes); // of two calls at once the first one counts
        }
        self.check_bases(&state)?;
        state.current.insert(snapshot, Arc::clone(&base));
        drop(state);
        let units = base.units();
        tracing::info!(%snapshot, memory_bytes, units, "base memory made");
        Ok(base)
    }

    fn image(&self, snapshot: SnapshotId, dir: &Path) -> Result<Image, BaseError> {
        Image::open(snapshot, dir, &self.source, Arc::clone(&self.counters))
    }

    /// Begins to fill ahead of faults, unless that was begun before.
    fn prefetch(&self, base: &Arc<Base>, prefetch: Prefetch) {
        let units = working::begin(base, prefetch);
        if !units.is_empty() {
            tracing::debug!(snapshot = %base.snapshot, %prefetch, units = units.len(), "filling ahead");
            self.prefetcher.fill(base, units);
        }
    }

    /// A clone has given its first response: looks at what it touched if it is time to.
    fn record(&self, pid: i32) -> Result<(), Refusal> {
        let gone =
            || Refusal::new(RefusalCode::NoSuchProcess, format!("no clone {pid} is attached"));
        let state = self.state();
        let session = state.sessions.iter().find(|session| session.shared.pid == pid);
        let session = session.ok_or_else(gone)?;
        let (process, shared) = (Arc::clone(&session.process), Arc::clone(&session.shared));
        let (addr, len) = (session.addr, session.len);
        let base = session.base.upgrade().ok_or_else(gone)?;
        drop(state); // the disk is written: others need not wait for that
        let is_dead = || process.has_exited().unwrap_or(true);
        if is_dead() {
            return Err(gone());
        }
        let outside = shared.faults_outside.load(Ordering::Relaxed);
        working::record(&base, outside, || {
            let touched = touched_windows(pid, addr, len)?;
            // If it still lives the pid was its own all the time.
            if is_dead() { Err(io::ErrorKind::NotFound.into()) } else { Ok(touched) }
        })
        .map_err(|error| if is_dead() { gone() } else { host("record a working set")(error) })
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
            faults_outside: 0.into(),
            removed_bytes: 0.into(),
            ended: false.into(),
        });
        let weak_base = Arc::downgrade(&base);
        let session = Session {
            shared: Arc::clone(&shared),
            process: Arc::clone(&process),
            uffd: Arc::clone(&uffd),
            base,
            stop: Arc::clone(&self.stop),
            counters: Arc::clone(&self.counters),
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
        let image = || self.image(attach.snapshot, &attach.snapshot_dir);
        let base = Arc::new(Base::recover(attach.snapshot, &held, image, self.limits)?);
        state.current.entry(attach.snapshot).or_insert_with(|| Arc::clone(&base));
        let (snapshot, present) = (attach.snapshot, base.present());
        tracing::info!(%snapshot, present, pid = attach.pid, "base memory taken over");
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
        let page = page.map(|base| base_stats(base, clones_of(base)));
        let clones = state.sessions.iter().skip(skip_clones).take(STATS_PAGE);
        let clones = clones.map(|session| CloneStats {
            pid: session.shared.pid,
            snapshot: session.shared.snapshot,
            faults: session.shared.faults.load(Ordering::Relaxed),
            removed_bytes: session.shared.removed_bytes.load(Ordering::Relaxed),
        });
        let (bases_page, clones) = (page.collect(), clones.collect());
        let stats = Stats { bases: bases_page, clones, totals: self.counters.totals() };
        let more = bases.len() > skip_bases + STATS_PAGE
            || state.sessions.len() > skip_clones + STATS_PAGE;
        Outcome::Stats { stats: Box::new(stats), more }
    }
}

fn of_length(base: Arc<Base>, expected: u64) -> Result<Arc<Base>, Refusal> {
    if base.bytes() == expected {
        return Ok(base);
    }
    let message = format!("base memory of {} has {} bytes", base.snapshot, base.bytes());
    Err(Refusal::new(RefusalCode::BadRequest, message))
}

fn base_stats(base: &Base, clones: u64) -> BaseStats {
    let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let working = &base.working;
    BaseStats {
        snapshot: base.snapshot,
        memory_bytes: base.bytes(),
        resident_bytes: base.resident_bytes(),
        units: base.units() as u64,
        units_present: base.present(),
        clones,
        faults: get(&base.faults),
        faults_in_working_set: get(&working.faults_in_set),
        prefetched_units: get(&working.prefetched_units),
        prefetched_bytes: get(&working.prefetched_bytes),
        prefetch_us: get(&working.prefetch_us),
        working_set_units: get(&working.units),
        working_set_hits: get(&working.hits),
        working_set_misses: get(&working.misses),
        working_set_untouched: get(&working.untouched),
        last_error: base.last_error(),
    }
}
