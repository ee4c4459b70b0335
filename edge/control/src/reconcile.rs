//! Makes what the agent has into what the store says, at start and every few seconds.
//!
//! Each step is idempotent; one that fails is tried again in the next round.

use std::{collections::HashSet, sync::Arc, time::Duration};

use edge_store::{OperationKind, OperationRecord};
use jiff::SignedDuration;
use pool_model::ErrorCode;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{ApiError, Control, control::now, rollout};

/// How far the agent's clock may be behind ours when a crash's snapshots are looked for.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// What a round cleaned up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Operations that a crash had cut.
    pub operations: usize,
    /// Snapshots without a record.
    pub snapshots: usize,
    /// Records of capsules that the agent no longer has.
    pub capsules: usize,
}

/// The task that keeps store and agent together.
#[derive(Debug)]
pub struct Reconciler {
    control: Arc<Control>,
    interval: Duration,
}

impl Reconciler {
    /// One round every `interval`.
    #[must_use]
    pub fn new(control: Arc<Control>, interval: Duration) -> Self {
        Self { control, interval }
    }

    /// Runs until cancelled. A round under way is ended by its own deadlines.
    pub async fn run(self, cancel: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let was_reachable = self.control.agent_reachable();
            match self.control.reconcile().await {
                Ok(done) if done != Recovered::default() => {
                    tracing::info!(
                        operations = done.operations,
                        snapshots = done.snapshots,
                        capsules = done.capsules,
                        "cleaned up"
                    );
                }
                Ok(_) => {}
                Err(error) if was_reachable || self.control.agent_reachable() => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "could not reconcile with the agent");
                }
                Err(_) => tracing::debug!("the agent is still out of reach"),
            }
        }
    }
}

impl Control {
    /// One round. A step that fails keeps no other from being done.
    ///
    /// # Errors
    ///
    /// The first step's failure; what it left waits for the next round.
    pub async fn reconcile(&self) -> Result<Recovered, ApiError> {
        let host = self.agent().host().await;
        let reachable = host.is_ok();
        if self.agent_reachable.send_replace(reachable) != reachable {
            tracing::info!(reachable, agent = %self.agent().address().rpc, "agent");
        }
        let host = host?;
        if let Ok(id) = host.host_id.parse() {
            let rpc = self.agent().address().rpc.to_string();
            self.store().saw_host(id, &rpc, &host.version, &host.vmm, now()).await?;
        }
        let mut done = Recovered::default();
        let pools = self.sync_pools().await;
        let operations = self.recover_all(&mut done).await;
        let capsules = self.forget_lost_capsules(&mut done).await;
        let snapshots = self.collect_snapshots().await;
        pools.and(operations).and(capsules).and(snapshots)?;
        Ok(done)
    }

    /// Tells the agent every pool there should be; it makes, changes and removes the difference.
    async fn sync_pools(&self) -> Result<(), ApiError> {
        let _pools = self.pools.lock().await;
        let functions = self.store().live_functions(None).await?;
        let mut pools: Vec<_> = functions.iter().flat_map(rollout::pools).collect();
        pools.extend(self.retired.pools());
        self.agent().sync_pools(pools).await
    }

    /// Cleans up after the operations that were under way when the last edge ended.
    async fn recover_all(&self, done: &mut Recovered) -> Result<(), ApiError> {
        let mut first = Ok(());
        for operation in self.store().operations().await? {
            // Ours are cleaned up by whoever runs them; one that couldn't be is left to the next
            // start, its sandbox to its timeout.
            if operation.created_at >= self.started_at {
                continue;
            }
            match self.recover(&operation).await {
                Ok(snapshots) => {
                    done.operations += 1;
                    done.snapshots += snapshots;
                }
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    /// Cleans up after an operation that a crash cut. Returns how many snapshots it left.
    async fn recover(&self, operation: &OperationRecord) -> Result<usize, ApiError> {
        tracing::info!(
            request.id = %operation.id, sandbox.id = %operation.sandbox, kind = %operation.kind,
            step = operation.step, "cleaning up after an operation that was cut"
        );
        if operation.kind == OperationKind::Deploy {
            self.agent().destroy(operation.sandbox).await?;
        }
        let swept = self.sweep_snapshots(operation).await?;
        self.store().end_operation(operation.id).await?;
        Ok(swept)
    }

    /// Deletes snapshots made since the operation began that have no record. Those of paused
    /// sandboxes have none either: the agent refuses to delete them, because they are in use.
    async fn sweep_snapshots(&self, operation: &OperationRecord) -> Result<usize, ApiError> {
        let _nobody_snapshots = self.snapshots.write().await;
        let since = (operation.created_at - CLOCK_SKEW).as_millisecond();
        let mut swept = 0;
        for found in self.agent().snapshots(operation.team).await? {
            let id = found.snapshot_id.parse().map_err(ApiError::internal)?;
            if found.created_at_ms < since || self.store().snapshot_is_known(id).await? {
                continue;
            }
            match self.agent().delete_snapshot(id).await {
                Ok(_) => swept += 1,
                Err(error) if error.code() == ErrorCode::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Ok(swept)
    }

    /// Forgets capsules that ended by themselves: by their timeout, or with their host.
    async fn forget_lost_capsules(&self, done: &mut Recovered) -> Result<(), ApiError> {
        // In this order: a capsule created after the first line is not looked at, one created
        // before it is at the agent by the second or is still marked as being created.
        let mut recorded = self.store().capsules_before(now()).await?;
        recorded.retain(|id| !self.is_creating(*id));
        if recorded.is_empty() {
            return Ok(());
        }
        let running = self.agent().sandboxes(None).await?;
        let running: HashSet<String> = running.into_iter().map(|s| s.sandbox_id).collect();
        for id in recorded {
            if !running.contains(&id.to_string()) && self.store().remove_capsule(id).await? {
                self.directory().forget_sandbox(id);
                done.capsules += 1;
            }
        }
        Ok(())
    }
}
