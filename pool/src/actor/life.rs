//! One sandbox's life: the task that restores it, watches it and destroys it.
//!
//! One task per sandbox, for as long as it exists: restores run beside each other on all processors
//! and never on the path of a lease, and whatever becomes of the pool's task, this one destroys
//! what it made.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Duration, Instant},
};

use crate::{Cause, Driver, ReapReason, Restored, member::MemberId};

/// What a life tells the pool's task.
pub(super) enum Report<S> {
    Restored {
        id: MemberId,
        made: Made<S>,
        took: Duration,
    },
    /// The restore failed, and the life is over.
    NotRestored {
        id: MemberId,
        cause: Cause,
    },
    Renewed {
        id: MemberId,
        result: Result<(), Cause>,
    },
    Died(MemberId),
    Reaped(MemberId),
}

/// A sandbox and the steps of its restore.
pub(super) struct Made<S> {
    pub(super) sandbox: Arc<S>,
    pub(super) steps: Vec<(&'static str, Duration)>,
}

/// Reports are never refused: the pool's task takes them until the last slot is empty. Once it is
/// gone nobody has to know.
pub(super) type Reports<S> = mpsc::Sender<Report<S>>;

/// The driver panicked. It ended the sandbox, not the pool.
#[derive(Debug, thiserror::Error)]
#[error("the driver panicked: {0}")]
struct Panicked(String);

/// Lives one life. `end_rx` says when to destroy the sandbox; a pool's task that is gone says so too.
pub(super) async fn live<D: Driver>(
    driver: Arc<D>,
    id: MemberId,
    end_rx: oneshot::Receiver<ReapReason>,
    reports_tx: Reports<D::Sandbox>,
) {
    let began = Instant::now();
    let sandbox = match guarded(driver.restore()).await.and_then(|restored| restored) {
        Ok(Restored { sandbox, steps }) => {
            let sandbox = Arc::new(sandbox);
            let made = Made { sandbox: Arc::clone(&sandbox), steps };
            let report = Report::Restored { id, made, took: began.elapsed() };
            let _ = reports_tx.send(report).await;
            sandbox
        }
        Err(cause) => {
            let _ = reports_tx.send(Report::NotRestored { id, cause }).await;
            return;
        }
    };
    let why = watch(&driver, id, &sandbox, end_rx, &reports_tx).await;
    if let Err(cause) = guarded(driver.destroy(sandbox, why)).await {
        tracing::error!(pool.member = id.0, "sandbox not destroyed: {cause}");
    }
    let _ = reports_tx.send(Report::Reaped(id)).await;
}

/// Reports the sandbox's own death, and returns when it is to be destroyed.
async fn watch<D: Driver>(
    driver: &Arc<D>,
    id: MemberId,
    sandbox: &Arc<D::Sandbox>,
    mut end_rx: oneshot::Receiver<ReapReason>,
    reports_tx: &Reports<D::Sandbox>,
) -> ReapReason {
    tokio::select! {
        biased;
        why = &mut end_rx => return why.unwrap_or(ReapReason::Drained),
        died = guarded(driver.died(Arc::clone(sandbox))) => {
            if let Err(cause) = died {
                tracing::error!(pool.member = id.0, "sandbox not watched any more: {cause}");
            }
        }
    }
    let _ = reports_tx.send(Report::Died(id)).await;
    end_rx.await.unwrap_or(ReapReason::Died)
}

/// Checks a used sandbox and reports the result.
pub(super) async fn renew<D: Driver>(
    driver: Arc<D>,
    id: MemberId,
    sandbox: Arc<D::Sandbox>,
    reports_tx: Reports<D::Sandbox>,
) {
    let result = guarded(driver.renew(sandbox)).await.and_then(|renewed| renewed);
    let _ = reports_tx.send(Report::Renewed { id, result }).await;
}

/// Runs the driver's code so that its panic is an error like others.
async fn guarded<T>(code: impl Future<Output = T>) -> Result<T, Cause> {
    // What the code leaves half done is its sandbox, which is given up.
    AssertUnwindSafe(code)
        .catch_unwind()
        .await
        .map_err(|panic| -> Cause { Arc::new(Panicked(text_of(panic.as_ref()))) })
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".to_owned())
}
