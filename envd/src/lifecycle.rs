//! Quiesce before a snapshot, init after a boot or a restore.
//!
//! ```text
//! boot --> Running --quiesce--> Quiesced ==snapshot==> Quiesced --init--> Running
//!             ^---init (again)---'  `---------------init (no snapshot)------^
//! ```
//!
//! # Invariants
//!
//! - User processes run on only after clock, entropy, name and identity are all set.
//! - A quiesced guest holds no token and no environment, and answers health and init only.
//! - Inits and quiesces never overlap, and a caller that hangs up doesn't cut one in half.
//!
//! # Limits
//!
//! Quiesce waits 5 s for a start in flight, 5 s for the freeze and 30 s for the disks.

use std::{sync::Arc, time::Duration};

use envd_api::{BadInit, Init};
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{Mutex, RwLock, RwLockReadGuard},
    time::{Instant, timeout},
};

use crate::{
    cgroup::FreezeError,
    connections::{ConnectionId, Connections},
    guest::Guest,
};

/// A clock this close is left alone: setting it would only add noise. E2B's figure.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_millis(50);

/// How long a process start in flight may hold up a quiesce.
const START_DEADLINE: Duration = Duration::from_secs(5);

/// How long writing all dirty pages may take.
const SYNC_DEADLINE: Duration = Duration::from_secs(30);

/// Why a quiesce failed; the guest runs as before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuiesceError {
    /// A process start didn't come to its end.
    #[error("a process start did not end within {waited:?}")]
    StartInFlight {
        /// How long we waited.
        waited: Duration,
    },
    /// The user processes run on.
    #[error("can't freeze user processes")]
    Freeze(#[source] FreezeError),
    /// The disks are too slow.
    #[error("disks were not synced within {waited:?}")]
    Sync {
        /// How long we waited.
        waited: Duration,
    },
}

/// Why an init failed; a quiesced guest stays so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    /// The body is wrong.
    #[error("init is invalid")]
    Bad(#[source] BadInit),
    /// It is older than one that was applied, or for another sandbox.
    #[error("init of {sandbox_id} generation {generation} at {timestamp} is a replay")]
    Replayed {
        /// Whom it is for.
        sandbox_id: String,
        /// Which restore it belongs to.
        generation: u64,
        /// When it was made.
        timestamp: Timestamp,
    },
    /// The machine didn't take a setting.
    #[error("can't {step}")]
    System {
        /// Which.
        step: &'static str,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// The user processes stay frozen.
    #[error("can't thaw user processes")]
    Thaw(#[source] FreezeError),
}

/// Which init a guest went by last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    sandbox_id: String,
    generation: u64,
    timestamp: Timestamp,
}

/// Whether an init may be applied. Pure.
///
/// The same sandbox must not go back. Another sandbox may take over only where a snapshot can have
/// been taken in between, or where none was yet.
fn admits(last: Option<&Stamp>, quiesced: bool, new: &Stamp) -> bool {
    match last {
        None => true,
        Some(last) if last.sandbox_id == new.sandbox_id => {
            (new.generation, new.timestamp) >= (last.generation, last.timestamp)
        }
        Some(_) => quiesced,
    }
}

/// Whether user processes may be started; held while one is.
#[derive(Debug)]
pub(crate) struct MayStart<'a> {
    _running: RwLockReadGuard<'a, bool>,
}

/// The guest's phase, and the one lock that changes it.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    last: Mutex<Option<Stamp>>,
    quiesced: RwLock<bool>,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self { last: Mutex::new(None), quiesced: RwLock::new(false) }
    }

    /// Whether the guest is ready for a snapshot, or was just restored from one.
    pub(crate) async fn is_quiesced(&self) -> bool {
        *self.quiesced.read().await
    }

    /// Permission to start a process; none while quiesced, as a child that joined a frozen group
    /// would stop before it told us how exec went.
    pub(crate) async fn may_start(&self) -> Option<MayStart<'_>> {
        let quiesced = self.quiesced.read().await;
        (!*quiesced).then_some(MayStart { _running: quiesced })
    }
}

/// Readies the guest for a snapshot.
///
/// # Errors
///
/// [`QuiesceError`]; then everything is undone.
pub(crate) async fn quiesce(
    guest: &Arc<Guest>,
    connections: &Connections,
    caller: ConnectionId,
) -> Result<(), QuiesceError> {
    let _alone = guest.lifecycle.last.lock().await;
    match timeout(START_DEADLINE, guest.lifecycle.quiesced.write()).await {
        Ok(mut quiesced) => *quiesced = true,
        Err(_) => return Err(QuiesceError::StartInFlight { waited: START_DEADLINE }),
    }
    connections.close_all_but(caller).await;
    let still = async {
        guest.cgroup.freeze().await.map_err(QuiesceError::Freeze)?;
        // After the freeze, so that nobody dirties pages behind it.
        let synced = tokio::task::spawn_blocking(nix::unistd::sync);
        match timeout(SYNC_DEADLINE, synced).await {
            Ok(_) => Ok(()),
            Err(_) => Err(QuiesceError::Sync { waited: SYNC_DEADLINE }),
        }
    };
    if let Err(error) = still.await {
        if let Err(error) = guest.cgroup.thaw() {
            tracing::error!("user processes stay frozen after a failed quiesce: {error}");
        }
        *guest.lifecycle.quiesced.write().await = false;
        return Err(error);
    }
    guest.identity.forget_secrets();
    tracing::info!("quiesced");
    Ok(())
}

/// Makes the guest unique and lets its processes run.
///
/// # Errors
///
/// [`InitError`] names the step that failed.
pub(crate) async fn init(
    guest: &Arc<Guest>,
    connections: &Connections,
    caller: ConnectionId,
    init: Init,
) -> Result<(), InitError> {
    let received = Instant::now();
    init.check().map_err(InitError::Bad)?;
    let mut last = guest.lifecycle.last.lock().await;
    let was_quiesced = guest.lifecycle.is_quiesced().await;
    let stamp = Stamp {
        sandbox_id: init.sandbox_id.clone(),
        generation: init.generation,
        timestamp: init.timestamp,
    };
    if !admits(last.as_ref(), was_quiesced, &stamp) {
        let Stamp { sandbox_id, generation, timestamp } = stamp;
        return Err(InitError::Replayed { sandbox_id, generation, timestamp });
    }
    let at = |step| move |source| InitError::System { step, source };
    let system = &guest.system;
    system.add_entropy(&init.entropy).map_err(at("add entropy"))?;
    system.set_hostname(&init.hostname).map_err(at("set the host name"))?;
    // Time went on while we waited for the lock and the kernel.
    let waited = SignedDuration::try_from(received.elapsed()).unwrap_or(SignedDuration::ZERO);
    let now = init.timestamp.saturating_add(waited).unwrap_or(init.timestamp);
    if system.now().duration_since(now).abs() > CLOCK_TOLERANCE {
        system.set_clock(now).map_err(at("set the clock"))?;
    }
    guest.identity.assume(init);
    if was_quiesced {
        connections.close_all_but(caller).await;
        guest.cgroup.thaw().map_err(InitError::Thaw)?;
        *guest.lifecycle.quiesced.write().await = false;
    }
    tracing::info!(sandbox.id = stamp.sandbox_id, generation = stamp.generation, "initialised");
    *last = Some(stamp);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sandbox: &str, generation: u64, second: i64) -> Stamp {
        let timestamp = Timestamp::from_second(second).unwrap();
        Stamp { sandbox_id: sandbox.to_owned(), generation, timestamp }
    }

    #[test]
    fn same_sandbox_never_goes_back() {
        let last = stamp("a", 5, 100);
        for quiesced in [false, true] {
            let may = |new: Stamp| admits(Some(&last), quiesced, &new);
            assert!(may(stamp("a", 5, 100)), "the same again");
            assert!(may(stamp("a", 5, 101)));
            assert!(may(stamp("a", 6, 99)), "the host's clock may be set back between restores");
            assert!(!may(stamp("a", 5, 99)));
            assert!(!may(stamp("a", 4, 200)));
        }
    }

    #[test]
    fn another_sandbox_takes_over_only_across_a_snapshot() {
        let last = stamp("a", 5, 100);
        assert!(admits(None, false, &stamp("b", 0, 0)));
        assert!(admits(Some(&last), true, &stamp("b", 1, 1)));
        assert!(!admits(Some(&last), false, &stamp("b", 9, 900)));
    }
}
