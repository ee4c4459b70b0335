//! One function's pool, as its owner set it.

use std::{collections::BTreeMap, time::Duration};

use pool::Policy;
use pool_model::{FunctionId, PoolPolicy, Port, SnapshotId, TeamId};
use serde::{Deserialize, Serialize};

use crate::error::AgentError;

/// One function's pool, as its owner set it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// Whose pool it is.
    pub function: FunctionId,
    /// What its sandboxes are restored from.
    pub snapshot: SnapshotId,
    /// Owner of both.
    pub team: TeamId,
    /// What it aims for.
    pub policy: PoolPolicy,
    /// Longest lease, milliseconds.
    pub lease_max_ms: u64,
    /// Whether its sandboxes may reach the internet.
    pub internet: bool,
    /// Environment of processes started in its sandboxes.
    pub env: BTreeMap<String, String>,
    /// The port its server listens on.
    pub port: Port,
}

impl PoolSpec {
    /// The part that may change while the pool runs.
    ///
    /// # Errors
    ///
    /// [`AgentError::InvalidArgument`] naming the field.
    pub fn policy(&self) -> Result<Policy, AgentError> {
        let invalid = |field, reason| AgentError::InvalidArgument { field, reason };
        self.policy.check().map_err(|bad| invalid(bad.field, bad.reason))?;
        if self.lease_max_ms == 0 {
            return Err(invalid("lease_max_ms", "0 is not at least 1".to_owned()));
        }
        let lease_max = Duration::from_millis(self.lease_max_ms);
        Ok(Policy { tuning: self.policy.clone(), lease_max })
    }

    /// Whether sandboxes made for `other` are as good as ours.
    pub(super) fn makes_the_same(&self, other: &Self) -> bool {
        (self.snapshot, self.team, self.internet, self.port, &self.env, self.policy.prefetch)
            == (
                other.snapshot,
                other.team,
                other.internet,
                other.port,
                &other.env,
                other.policy.prefetch,
            )
    }
}
