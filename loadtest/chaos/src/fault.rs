//! Does one fault: gets ready, strikes, holds, undoes.
//!
//! ```text
//! armed --(in a part)--> on the board --> struck --(its time, or the run's end)--> undone
//!   `-- could not: on the board as failed
//! ```
//!
//! # Invariants
//!
//! - It is on the board before it strikes: no failure that it causes is missed.
//! - What holds it is a guard: whoever drops this future undoes it.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    Board, DiskError, FaultError, ProcessError,
    disk::{Ballast, Disk},
    plan::{Checked, Target},
    process::Process,
    proxy::{Slowed, Slowness},
    stop::{Guarded, Stopped},
};

/// Longest wait for a process that is being restarted.
const PROCESS_WAIT: Duration = Duration::from_secs(10);
/// Between two looks whether it is there.
const PROCESS_LOOK: Duration = Duration::from_millis(50);

/// Ready to strike.
#[derive(Debug)]
enum Armed<'a> {
    Kill(Process),
    Pause(Guarded),
    Other(&'a Checked),
}

/// What holds a fault. Dropped, it is undone.
#[derive(Debug)]
enum Held {
    Nothing,
    Stopped(Stopped),
    Full { _ballast: Ballast },
    Slow { _slowed: Slowed },
}

/// Whether the run goes on.
pub(crate) type Done = Option<()>;

impl Checked {
    /// Does it once and waits until it is undone; none if the run has ended, or has seen too many.
    pub(crate) async fn fire(&self, board: &Board, cancel: &CancellationToken) -> Done {
        let armed = match self.arm(cancel).await {
            Ok(armed) => armed?,
            Err(error) => {
                board.could_not(self.title(None), &error)?;
                return (!cancel.is_cancelled()).then_some(());
            }
        };
        in_a_part(board, cancel).await?;
        let id = board.open(self.title(armed.process()))?;
        let held = match armed.strike(cancel).await {
            Ok(held) => held,
            Err(error) => {
                board.failed(id, &error);
                return (!cancel.is_cancelled()).then_some(());
            }
        };
        let cancelled = cancel.run_until_cancelled(sleep(self.lasts())).await;
        match held.undo().await {
            Ok(()) => board.undone(id, None),
            Err(error) => board.undone(id, Some(&error)),
        }
        cancelled
    }

    /// None if the run ended meanwhile.
    async fn arm(&self, cancel: &CancellationToken) -> Result<Option<Armed<'_>>, FaultError> {
        Ok(match self {
            Self::Kill { target } => target.find(cancel).await?.map(Armed::Kill),
            Self::Pause { target, .. } => match target.find(cancel).await? {
                Some(process) => {
                    let guarded = blocking(move || Guarded::new(process)).await;
                    Some(Armed::Pause(guarded?))
                }
                None => None,
            },
            Self::DiskFull { .. } | Self::Slow { .. } => Some(Armed::Other(self)),
        })
    }

    /// In words, for the report and the live view.
    fn title(&self, process: Option<&Process>) -> String {
        let whom = |target: &Target| process.map_or_else(|| target.title(), Process::title);
        match self {
            Self::Kill { target } => format!("kill -9 of {}", whom(target)),
            Self::Pause { target, lasts } => format!("stop of {} for {lasts:?}", whom(target)),
            Self::DiskFull { dir, leave_kib, lasts } => {
                format!("disk of {} filled to {leave_kib} KiB for {lasts:?}", dir.display())
            }
            Self::Slow { proxy, slowness, lasts } => {
                format!("proxy {} {} for {lasts:?}", proxy.name(), slowness.words())
            }
        }
    }
}

impl Slowness {
    fn words(&self) -> String {
        let mut words = Vec::new();
        if self.cut {
            words.push("cut".to_owned());
        }
        if !self.delay.is_zero() {
            words.push(format!("late by {:?}", self.delay));
        }
        if let Some(rate) = self.bytes_per_s {
            words.push(format!("at {rate} B/s"));
        }
        words.join(", ")
    }
}

impl Target {
    /// Finds the process, waiting for one that is being restarted.
    async fn find(&self, cancel: &CancellationToken) -> Result<Option<Process>, ProcessError> {
        let deadline = Instant::now() + PROCESS_WAIT;
        loop {
            match self.file.find().and_then(|process| process.same_program(&self.program)) {
                Ok(process) => return Ok(Some(process)),
                Err(error) if error.may_pass() && Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
            if cancel.run_until_cancelled(sleep(PROCESS_LOOK)).await.is_none() {
                return Ok(None);
            }
        }
    }

    fn title(&self) -> String {
        format!("the process in {}", self.file)
    }
}

impl Armed<'_> {
    fn process(&self) -> Option<&Process> {
        match self {
            Self::Kill(process) => Some(process),
            Self::Pause(guarded) => Some(guarded.process()),
            Self::Other(_) => None,
        }
    }

    async fn strike(self, cancel: &CancellationToken) -> Result<Held, FaultError> {
        match self {
            Self::Kill(process) => {
                process.signal(Signal::KILL)?;
                Ok(Held::Nothing)
            }
            Self::Pause(guarded) => Ok(Held::Stopped(guarded.stop()?)),
            Self::Other(Checked::DiskFull { dir, leave_kib, .. }) => {
                let (dir, leave_kib) = (dir.clone(), *leave_kib);
                // Also when this future is dropped, not only when the run is cancelled.
                let stop = cancel.child_token();
                let _stop = stop.clone().drop_guard();
                let filled = blocking(move || -> Result<Ballast, DiskError> {
                    Disk::open(&dir)?.fill(leave_kib, || stop.is_cancelled())
                });
                Ok(Held::Full { _ballast: filled.await? })
            }
            Self::Other(Checked::Slow { proxy, slowness, .. }) => {
                Ok(Held::Slow { _slowed: proxy.slow(*slowness) })
            }
            Self::Other(Checked::Kill { .. } | Checked::Pause { .. }) => Ok(Held::Nothing),
        }
    }
}

impl Held {
    async fn undo(self) -> Result<(), FaultError> {
        match self {
            // Nothing to wait for.
            Self::Nothing | Self::Slow { .. } => Ok(()),
            // A large file takes a while to give back, a guard a moment to end.
            Self::Full { .. } => {
                blocking(move || drop(self)).await;
                Ok(())
            }
            Self::Stopped(stopped) => Ok(blocking(move || stopped.wake()).await?),
        }
    }
}

/// Runs it where it may block. Its bounds are its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that is going down cancels it, and then nobody polls this again.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Waits until a part is being measured; none if the run ended before.
pub(crate) async fn in_a_part(board: &Board, cancel: &CancellationToken) -> Done {
    let mut clock = board.clock();
    let wait = async {
        loop {
            let part = clock.borrow_and_update().and_then(|clock| clock.part);
            match part.map(Instant::from_std) {
                Some(begin) if begin <= Instant::now() => return Some(()),
                Some(begin) => sleep_until(begin).await,
                None => clock.changed().await.ok()?,
            }
        }
    };
    cancel.run_until_cancelled(wait).await.flatten()
}
