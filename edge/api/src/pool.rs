//! Pools: how many warm sandboxes a function has.

use serde::{Deserialize, Serialize};

use crate::FunctionName;

/// What a pool aims for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolPolicy {
    /// Warm sandboxes to keep at least.
    pub min_warm: u32,
    /// Warm and leased sandboxes to have at most.
    pub max_warm: u32,
    /// Idle warm sandboxes over `min_warm` go after this, milliseconds.
    pub idle_ttl_ms: u64,
}

impl Default for PoolPolicy {
    fn default() -> Self {
        Self { min_warm: 1, max_warm: 8, idle_ttl_ms: 600_000 }
    }
}

/// The body of `PATCH /v1/pools/{function}`: what is absent stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolPatch {
    /// See [`PoolPolicy::min_warm`]; 0 to 1000, at most `max_warm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_warm: Option<u32>,
    /// See [`PoolPolicy::max_warm`]; 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_warm: Option<u32>,
    /// See [`PoolPolicy::idle_ttl_ms`]; 1000 to 86400000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ttl_ms: Option<u64>,
}

/// A function's pool: aim and numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolInfo {
    /// Whose pool.
    pub function: FunctionName,
    /// What it aims for.
    #[serde(flatten)]
    pub policy: PoolPolicy,
    /// How it is. None while the agent doesn't know it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<PoolStats>,
}

/// How a pool is and was, since its agent started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolStats {
    /// Ready to be leased.
    pub warm: u32,
    /// Being restored.
    pub restoring: u32,
    /// Serving.
    pub leased: u32,
    /// Being taken down.
    pub reaping: u32,
    /// Leases served from a warm sandbox at once.
    pub hits: u64,
    /// Leases that waited for a restore.
    pub misses: u64,
    /// Leases that gave up.
    pub refused: u64,
    /// Restores that ended well.
    pub restored: u64,
    /// Restores that failed.
    pub failed: u64,
    /// Warm sandboxes taken down for their age.
    pub reaped_idle: u64,
    /// Leased sandboxes taken down because their lease ran out.
    pub reaped_lease: u64,
    /// Median wait of a lease, milliseconds.
    pub lease_wait_p50_ms: f64,
    /// 99th percentile of a lease's wait, milliseconds.
    pub lease_wait_p99_ms: f64,
    /// Median time of a restore, milliseconds.
    pub restore_p50_ms: f64,
    /// 99th percentile of a restore's time, milliseconds.
    pub restore_p99_ms: f64,
    /// Why the last restore failed, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
