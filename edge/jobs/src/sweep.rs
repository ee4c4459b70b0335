//! Who forgets results whose time is over, cancels what waits for functions that are gone, and counts
//! what waits again?

use std::time::Duration;

use edge_store::{Store, StoreError};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::runner::complain;

/// Rows forgotten in one statement: others want to write too.
const BATCH: u32 = 500;
/// Batches of one sweep.
const BATCHES_MAX: u32 = 100;

/// Sweeps every `every` until `stop`.
///
/// # Cancel safety
///
/// It may be dropped at any time: each sweep begins with what the last one left.
pub async fn sweep_forever(store: Store, every: Duration, stop: CancellationToken) {
    loop {
        if let Err(error) = sweep(&store, Timestamp::now()).await {
            complain(&error, "old invocations cannot be swept");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}

async fn sweep(store: &Store, now: Timestamp) -> Result<(), StoreError> {
    let cancelled = store.cancel_orphans(now).await?;
    if cancelled > 0 {
        tracing::info!(count = cancelled, "cancelled invocations of deleted functions");
    }
    for _ in 0..BATCHES_MAX {
        if store.expire_invocations(now, BATCH).await? < u64::from(BATCH) {
            break;
        }
    }
    let wrong = store.recount_waiting().await?;
    tracing::debug!(wrong, "recounted what waits");
    Ok(())
}
