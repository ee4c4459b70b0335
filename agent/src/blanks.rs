//! VMM processes that wait for a snapshot, so that a restore does not pay for their start.
//!
//! ```text
//! restore ─take─► ready? ─claim─► its slot, process and disk become the sandbox's
//!            └─ noted: this shape is wanted ─► keeper makes the next one when no start runs
//! ```
//!
//! # Invariants
//!
//! - A blank is journalled like a sandbox before anything of it is made, and dies with the agent.
//! - A blank is promised no guest memory: it has none. Whoever claims it has taken a share.
//! - Claiming names slot and machine in the sandbox's record before the blank's record goes: a
//!   crash in between leaves two records of one machine, and both lead to its end.
//!
//! # Limits
//!
//! `blank_vmms` at a time, for the shapes restored within the last ten minutes.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agent_slot::Slot;
use agent_vmm::Blank;
use futures::FutureExt as _;
use jiff::Timestamp;
use pool_model::{Generation, OnTimeout, SandboxState, TeamId};
use pool_store::Snapshot;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use crate::{
    error::{AgentError, chain},
    host::{Host, blocking},
    journal::{self, Purpose, RECORD_VERSION, Record},
    launch,
    lifecycle::{random_id, remove_dir},
    template::Template,
};

/// How long a shape stays wanted after its last restore.
const WANTED: Duration = Duration::from_secs(600);
/// Most shapes that blanks are kept for at a time.
const SHAPES_MAX: usize = 4;
/// How often the keeper looks by itself.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Pause between looks while starts run: a blank must not slow down what somebody waits for.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// Longest that starts may keep the keeper waiting.
const BUSY_MAX: Duration = Duration::from_secs(2);
/// Pause after a blank could not be made.
const RETRY: Duration = Duration::from_secs(5);

/// What must be equal for a snapshot to fit into a blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Guest memory.
    pub memory_bytes: u64,
    /// Processors.
    pub vcpus: u8,
    /// Version of the kernel below.
    pub kernel: String,
    /// The disk below.
    pub base_disk: PathBuf,
    /// Length of the writable disk.
    pub scratch_bytes: u64,
}

impl Shape {
    /// What a restore of `snapshot` needs.
    #[must_use]
    pub fn of(record: &Record, snapshot: &Snapshot, template: &Template) -> Self {
        Self {
            memory_bytes: record.memory_bytes,
            vcpus: record.vcpus,
            kernel: record.kernel.clone(),
            base_disk: template.base_disk.clone(),
            scratch_bytes: snapshot.manifest.scratch.bytes,
        }
    }
}

/// A blank nobody has claimed.
#[derive(Debug)]
pub struct Ready {
    shape: Shape,
    record: Record,
    slot: Slot,
    blank: Box<dyn Blank>,
}

/// The blanks of one host.
#[derive(Debug)]
pub struct Blanks {
    keep: usize,
    inner: Mutex<Inner>,
    taken: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    ready: Vec<Ready>,
    /// Shapes and when each was last asked for, the latest last.
    wanted: Vec<(Shape, Instant)>,
    closed: bool,
}

impl Blanks {
    /// Keeps up to `keep` of them.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        Self { keep, inner: Mutex::default(), taken: Notify::new() }
    }

    /// A blank for this shape, if one is ready.
    pub fn take(&self, shape: &Shape) -> Option<Ready> {
        if self.keep == 0 {
            return None;
        }
        let mut inner = self.lock();
        inner.wanted.retain(|(wanted, since)| wanted != shape && since.elapsed() < WANTED);
        inner.wanted.push((shape.clone(), Instant::now()));
        let over = inner.wanted.len().saturating_sub(SHAPES_MAX);
        inner.wanted.drain(..over);
        let found = inner.ready.iter().position(|ready| ready.fits(shape));
        let ready = found.map(|index| inner.ready.remove(index));
        drop(inner);
        self.taken.notify_one();
        ready
    }

    /// How many are ready.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().ready.len()
    }

    /// Makes and discards blanks until the agent stops, then discards all.
    pub async fn keep(host: Arc<Host>) {
        let cancel = host.cancel.clone();
        let work = async {
            loop {
                let _ = timeout(LOOK_EVERY, host.blanks.taken.notified()).await;
                while let Some(step) = host.blanks.next_step() {
                    if let Err(error) = step.carry_out(&host).await {
                        tracing::warn!("no blank VMM made: {}", chain(&error));
                        sleep(RETRY).await;
                    }
                }
            }
        };
        cancel.run_until_cancelled(work).await;
        host.blanks.close(&host).await;
    }

    /// Discards all and keeps none from now on.
    pub async fn close(&self, host: &Arc<Host>) {
        let all = {
            let mut inner = self.lock();
            inner.closed = true;
            std::mem::take(&mut inner.ready)
        };
        for ready in all {
            ready.discard(host).await;
        }
    }

    fn next_step(&self) -> Option<Step> {
        let mut inner = self.lock();
        inner.wanted.retain(|(_, since)| since.elapsed() < WANTED);
        let wanted: Vec<Shape> =
            inner.wanted.iter().rev().map(|(shape, _)| shape.clone()).collect();
        let counts: Vec<usize> = wanted
            .iter()
            .map(|shape| inner.ready.iter().filter(|ready| ready.shape == *shape).count())
            .collect();
        let aims = aims(self.keep, wanted.len());
        let missing = (0..wanted.len()).find(|&index| counts[index] < aims[index]);
        let surplus = inner.ready.iter().position(|ready| {
            ready.has_exited()
                || wanted
                    .iter()
                    .position(|shape| *shape == ready.shape)
                    .is_none_or(|index| counts[index] > aims[index])
        });
        match (surplus, missing) {
            (Some(index), _) => Some(Step::Discard(Box::new(inner.ready.remove(index)))),
            (None, Some(index)) if !inner.closed => Some(Step::Make(wanted[index].clone())),
            _ => None,
        }
    }

    fn add(&self, ready: Ready) -> Option<Ready> {
        let mut inner = self.lock();
        if inner.closed {
            return Some(ready);
        }
        inner.ready.push(ready);
        None
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many blanks each of so many shapes gets, the one asked for last first.
fn aims(keep: usize, shapes: usize) -> Vec<usize> {
    (0..shapes).map(|index| keep / shapes + usize::from(index < keep % shapes)).collect()
}

enum Step {
    Make(Shape),
    Discard(Box<Ready>),
}

impl Step {
    async fn carry_out(self, host: &Arc<Host>) -> Result<(), AgentError> {
        match self {
            Self::Discard(ready) => ready.discard(host).await,
            Self::Make(shape) => {
                while_starts_run(host).await;
                let ready = Ready::make(host, shape).await?;
                if let Some(late) = host.blanks.add(ready) {
                    late.discard(host).await;
                }
            }
        }
        Ok(())
    }
}

/// Waits until no start runs, at most [`BUSY_MAX`].
async fn while_starts_run(host: &Arc<Host>) {
    let until = Instant::now() + BUSY_MAX;
    while host.starts.available_permits() < host.starts_max && Instant::now() < until {
        sleep(BUSY_PAUSE).await;
    }
}

impl Ready {
    async fn make(host: &Arc<Host>, shape: Shape) -> Result<Self, AgentError> {
        let mut record = blank_record(&shape)?;
        let dir = host.dir(record.sandbox);
        blocking(move || journal::create_dir(&dir))
            .await
            .map_err(AgentError::io("make a blank's directory"))?;
        match Self::make_in(host, &mut record, &shape).await {
            Ok((slot, blank)) => Ok(Self { shape, record, slot, blank }),
            Err(error) => {
                remove(host, &record).await;
                Err(error)
            }
        }
    }

    async fn make_in(
        host: &Arc<Host>,
        record: &mut Record,
        shape: &Shape,
    ) -> Result<(Slot, Box<dyn Blank>), AgentError> {
        let slot = launch::reserve_slot(host, record).await?;
        let made = async {
            let scratch = journal::scratch_disk(&host.dir(record.sandbox));
            launch::empty_disk(&scratch, shape.scratch_bytes)
                .map_err(AgentError::io("make the scratch disk"))?;
            let blank = launch::prepare(host, record, &slot, shape).await?;
            record.machine = Some(blank.record());
            launch::write(host, record).await?;
            Ok(blank)
        };
        match made.await {
            Ok(blank) => Ok((slot, blank)),
            Err(error) => {
                host.slots.give(slot).await;
                Err(error)
            }
        }
    }

    /// Makes it `record`'s: its slot, its process and its writable disk.
    ///
    /// # Errors
    ///
    /// [`AgentError`]; nothing is left of the blank then.
    pub(crate) async fn claim(
        self,
        host: &Arc<Host>,
        record: &mut Record,
    ) -> Result<(Slot, Box<dyn Blank>), AgentError> {
        let Self { record: own, slot, mut blank, .. } = self;
        let (from, to) = (host.dir(own.sandbox), host.dir(record.sandbox));
        let old_socket = blank.record().qmp_socket;
        blank.rename(record.sandbox, to.clone());
        record.slot = Some(slot.index());
        record.machine = Some(blank.record());
        let new_socket = blank.record().qmp_socket;
        let moved = async {
            launch::write(host, record).await?;
            blocking(move || {
                fs::rename(journal::scratch_disk(&from), journal::scratch_disk(&to))?;
                fs::rename(old_socket, new_socket)?;
                remove_dir(&from)
            })
            .await
            .map_err(AgentError::io("take over a blank"))?;
            if record.internet {
                slot.set_internet(true).await.map_err(AgentError::Slot)?;
            }
            Ok(())
        };
        match moved.await {
            Ok(()) => Ok((slot, blank)),
            Err(error) => {
                end(host, slot, blank).await;
                remove(host, &own).await;
                Err(error)
            }
        }
    }

    async fn discard(self, host: &Arc<Host>) {
        end(host, self.slot, self.blank).await;
        remove(host, &self.record).await;
    }

    fn fits(&self, shape: &Shape) -> bool {
        self.shape == *shape && !self.has_exited()
    }

    fn has_exited(&self) -> bool {
        self.blank.exited().now_or_never().is_some()
    }
}

async fn end(host: &Arc<Host>, slot: Slot, blank: Box<dyn Blank>) {
    if let Err(error) = blank.kill().await {
        // Giving back the slot kills what is left in its cgroup, or retires the slot.
        tracing::error!("{}", chain(&error));
    }
    host.slots.give(slot).await;
}

async fn remove(host: &Arc<Host>, record: &Record) {
    let dir = host.dir(record.sandbox);
    if let Err(error) = blocking(move || remove_dir(&dir)).await {
        tracing::error!("a blank's directory is not removed: {}", chain(&error));
    }
}

fn blank_record(shape: &Shape) -> Result<Record, AgentError> {
    Ok(Record {
        version: RECORD_VERSION,
        sandbox: random_id()?,
        purpose: Purpose::Blank,
        team: TeamId::PLATFORM,
        template: pool_model::TemplateId::DEFAULT,
        snapshot: None,
        memory_bytes: shape.memory_bytes,
        vcpus: shape.vcpus,
        kernel: shape.kernel.clone(),
        base_disk: String::new(),
        env: BTreeMap::new(),
        internet: false,
        access_token: String::new(),
        state: SandboxState::Starting,
        generation: Generation(0),
        created_at: Timestamp::now(),
        expires_at: None,
        timeout_ms: 0,
        on_timeout: OnTimeout::Kill,
        slot: None,
        machine: None,
        backing: None,
        image: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_are_shared_out_among_shapes_the_latest_first() {
        assert_eq!(aims(2, 1), [2]);
        assert_eq!(aims(2, 2), [1, 1]);
        assert_eq!(aims(3, 2), [2, 1]);
        assert_eq!(aims(2, 4), [1, 1, 0, 0]);
        assert_eq!(aims(2, 0), Vec::<usize>::new());
    }
}
