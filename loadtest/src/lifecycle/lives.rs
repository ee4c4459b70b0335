//! Runs lives, and knows what is left of them.

use std::{
    fmt, mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::task::TaskTracker;

use super::{Life, Sandboxes, doomed::Doomed, steps::Record};
use crate::outcome::{Failure, Outcome};

/// How long a create may go on after its life's deadline: its answer says what to kill.
const CREATE_GRACE: Duration = Duration::from_secs(30);
/// Longest to look for the sandbox of a create that had no answer, and to kill it.
const LOST_MAX: Duration = Duration::from_secs(30);
/// Most sandboxes that are named when they could not be killed; the rest is counted.
const ORPHANS_NAMED: usize = 100;

/// Runs lives over one API. Clones share what is left of them.
#[derive(Clone)]
pub(crate) struct Lives {
    shared: Arc<Shared>,
}

struct Shared {
    api: Arc<dyn Sandboxes>,
    /// Creates and kills: they go on when nobody waits for them.
    tasks: TaskTracker,
    left: Mutex<Leftovers>,
}

/// What lives left behind.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    /// Sandboxes that could not be killed, or may exist for all we know, and why. The first 100.
    pub(crate) orphans: Vec<String>,
    /// How many there are in all.
    pub(crate) orphans_total: u64,
    /// Creates and kills that have not ended.
    pub(crate) unfinished: usize,
}

impl fmt::Debug for Lives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lives").field("tasks", &self.shared.tasks.len()).finish_non_exhaustive()
    }
}

impl Lives {
    /// Lives over an API.
    pub(crate) fn new(api: Arc<dyn Sandboxes>) -> Self {
        let (tasks, left) = (TaskTracker::new(), Mutex::default());
        Self { shared: Arc::new(Shared { api, tasks, left }) }
    }

    /// One life, from create to kill. Needs a tokio runtime; see [`Lives::settle`] for its end.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it kills its sandbox; also one that is only just being made.
    pub(crate) async fn live(&self, life: &Life, nonce: &str) -> Outcome {
        let deadline = Instant::now() + life.timeout;
        let mut record = Record::default();
        let made = record.step("create", self.create(life, nonce, deadline)).await;
        let doomed = match made {
            Ok(doomed) => doomed,
            Err(failure) => return record.ended(Err(failure)),
        };
        let sandbox = doomed.created().clone();
        let steps = record.run(self.api(), &sandbox, life, nonce);
        let done = timeout_at(deadline, steps).await;
        let done = done.unwrap_or_else(|_| Err(record.overdue(life.timeout)));
        let done = done.map_err(|failure| about(&sandbox.id, failure));
        let killed = record.call("kill", doomed.kill()).await;
        record.killed(done, killed.map_err(|failure| about(&sandbox.id, failure)))
    }

    /// Waits for the creates and kills that go on behind the lives, and says what is left. To be
    /// called before the runtime ends, when no life goes on any more.
    pub(crate) async fn settle(&self, within: Duration) -> Leftovers {
        let tasks = self.tasks();
        tasks.close();
        // How many there are is said below.
        let _ = timeout(within, tasks.wait()).await;
        tasks.reopen();
        let mut left = self.left(mem::take);
        left.unfinished = tasks.len();
        left
    }

    pub(super) fn api(&self) -> &dyn Sandboxes {
        &*self.shared.api
    }

    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.shared.tasks
    }

    /// Notes a sandbox that is out of reach.
    pub(super) fn give_up(&self, orphan: String) {
        self.left(|left| {
            left.orphans_total += 1;
            if left.orphans.len() < ORPHANS_NAMED {
                left.orphans.push(orphan);
            }
        });
    }

    fn left<T>(&self, change: impl FnOnce(&mut Leftovers) -> T) -> T {
        change(&mut self.shared.left.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Creates in a task of its own: what is made must have an owner, also when nobody waits.
    async fn create(&self, life: &Life, nonce: &str, deadline: Instant) -> Result<Doomed, Failure> {
        let (made_tx, made_rx) = oneshot::channel();
        let lives = self.clone();
        let (template, nonce, within) = (life.template.clone(), nonce.to_owned(), life.timeout);
        self.tasks().spawn(async move {
            let made = lives.make(template.as_deref(), &nonce, within).await;
            let lost = made.as_ref().is_err_and(may_exist);
            // An unclaimed sandbox is dropped here, and killed.
            drop(made_tx.send(made));
            if lost {
                lives.find_lost(&nonce).await;
            }
        });
        match timeout_at(deadline, made_rx).await {
            Ok(Ok(made)) => made,
            Ok(Err(_)) => Err(Failure::new("create_failed", "the create broke off")),
            Err(_) => {
                let text = format!("create took longer than the life's {:?}", life.timeout);
                Err(Failure::new("timeout", text))
            }
        }
    }

    async fn make(
        &self,
        template: Option<&str>,
        nonce: &str,
        within: Duration,
    ) -> Result<Doomed, Failure> {
        let limit = within + CREATE_GRACE;
        let made = timeout(limit, self.api().create(template, nonce, within)).await;
        let made = made.unwrap_or_else(|_| {
            Err(Failure::new("timeout", format!("create had no answer within {limit:?}")))
        });
        made.map(|created| Doomed::new(self.clone(), created))
            .map_err(|failure| Failure::new(failure.kind, format!("create: {}", failure.message)))
    }

    async fn find_lost(&self, nonce: &str) {
        let found = timeout(LOST_MAX, self.api().kill_lost(nonce)).await;
        let found = found.unwrap_or_else(|_| {
            Err(Failure::new("timeout", format!("no answer within {LOST_MAX:?}")))
        });
        if let Err(failure) = found {
            let why = failure.message;
            self.give_up(format!("perhaps one whose metadata has nonce {nonce}: {why}"));
        }
    }
}

/// Whether there may be a sandbox although its create failed.
fn may_exist(failure: &Failure) -> bool {
    const NOT_SENT: [&str; 5] = ["dns", "refused_address", "connect", "tls", "alpn"];
    !failure.kind.starts_with("status_4") && !NOT_SENT.contains(&failure.kind.as_str())
}

fn about(id: &str, failure: Failure) -> Failure {
    Failure::new(failure.kind, format!("sandbox {id}: {}", failure.message))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn only_clear_refusals_leave_nothing_to_look_for() {
        for (kind, may) in [
            ("status_401", false),
            ("status_429", false),
            ("connect", false),
            ("refused_address", false),
            ("status_504", true),
            ("timeout", true),
            ("reset", true),
            ("create_failed", true),
        ] {
            assert_eq!(may_exist(&Failure::new(kind, "")), may, "{kind}");
        }
    }
}
