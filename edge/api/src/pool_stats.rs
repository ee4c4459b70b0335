//! A pool's numbers: how it is and was, since its agent started.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How a pool is and was, since its agent started.
///
/// A listing leaves `lease_wait`, `restore` and `series` out, an event `series`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolStats {
    /// Ready to be leased.
    pub warm: u32,
    /// Being restored.
    pub restoring: u32,
    /// Serving.
    pub leased: u32,
    /// Being taken down.
    pub reaping: u32,
    /// Warm sandboxes that the sizing wants now.
    pub target: u32,
    /// Most sandboxes that the host's memory budget grants now.
    pub cap: u32,
    /// Leases served from a warm sandbox at once.
    pub hits: u64,
    /// Leases that waited for a restore.
    pub misses: u64,
    /// `hits / (hits + misses)`, 0 to 1; null before the first lease.
    pub hit_rate: Option<f64>,
    /// Leases that gave up.
    pub refused: u64,
    /// Leases of a sandbox that had served before.
    pub reused: u64,
    /// Restores that ended well.
    pub restored: u64,
    /// Restores that failed.
    pub failed: u64,
    /// Warm sandboxes taken down because they were idle for too long.
    pub reaped_idle: u64,
    /// Warm sandboxes replaced for their age.
    pub reaped_age: u64,
    /// Leased sandboxes taken down because their lease ran out.
    pub reaped_lease: u64,
    /// Warm sandboxes given up for other functions.
    pub evicted: u64,
    /// Median wait of a lease, milliseconds.
    pub lease_wait_p50_ms: f64,
    /// 99th percentile of a lease's wait, milliseconds.
    pub lease_wait_p99_ms: f64,
    /// Median time of a restore, milliseconds.
    pub restore_p50_ms: f64,
    /// 99th percentile of a restore's time, milliseconds.
    pub restore_p99_ms: f64,
    /// Whether restores are tried at all.
    pub breaker: Breaker,
    /// Until the next restore while the breaker is open, milliseconds; 0 otherwise.
    pub retry_in_ms: u64,
    /// Why the last restore failed, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Guest memory of one sandbox, MiB.
    pub sandbox_memory_mib: u64,
    /// What its sandboxes have of the host's memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<PoolMemory>,
    /// Where a restore's time goes, in order of the steps.
    pub steps: Vec<RestoreStep>,
    /// How long leases waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_wait: Option<PoolHistogram>,
    /// How long restores took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<PoolHistogram>,
    /// How it was lately, oldest first; absent while there is nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<PoolSample>,
}

/// Whether a pool tries to restore: one whose restores keep failing waits longer and longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Breaker {
    /// It restores as it needs to.
    Closed,
    /// It waits before the next try.
    Open,
    /// One restore is under way to find out.
    HalfOpen,
    /// The agent said nothing that this version knows.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Breaker {
    /// The word used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Unknown => "unknown",
        }
    }
}

/// What a pool's sandboxes have of the host's memory, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolMemory {
    /// Guest memory of all its sandboxes, as promised to them.
    pub promised_bytes: u64,
    /// Base memory that is resident: shared by all of them.
    pub base_bytes: u64,
    /// Pages of their own.
    pub private_bytes: u64,
    /// The VMM processes themselves.
    pub vmm_bytes: u64,
}

/// One step of a restore.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RestoreStep {
    /// `slot`, `vmm`, `memory`, `state`, `init` or `ready`.
    pub name: String,
    /// How often it was done.
    pub count: u64,
    /// Its median, milliseconds.
    pub p50_ms: f64,
    /// Its 99th percentile, milliseconds.
    pub p99_ms: f64,
}

/// Counts per bucket, for quantiles over several pools or hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolHistogram {
    /// Upper bounds of the buckets, inclusive, microseconds, rising.
    pub upper_us: Vec<u64>,
    /// What fell into each bucket: one more than bounds, the last one is everything above.
    pub counts: Vec<u64>,
    /// The sum of `counts`.
    pub count: u64,
    /// The sum of all that was measured, microseconds.
    pub sum_us: u64,
}

/// How a pool was at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSample {
    /// When.
    pub at: Timestamp,
    /// Ready to be leased.
    pub warm: u32,
    /// Being restored.
    pub restoring: u32,
    /// Serving.
    pub leased: u32,
    /// Warm sandboxes that the sizing wanted.
    pub target: u32,
    /// Leases served at once, since the sample before.
    pub hits: u64,
    /// Leases that waited, since the sample before.
    pub misses: u64,
    /// Leases that gave up, since the sample before.
    pub refused: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breakers_are_their_words_and_a_new_word_is_no_failure() {
        for breaker in [Breaker::Closed, Breaker::Open, Breaker::HalfOpen, Breaker::Unknown] {
            let text = format!("\"{}\"", breaker.as_str());
            assert_eq!(serde_json::to_string(&breaker).unwrap(), text);
            assert_eq!(serde_json::from_str::<Breaker>(&text).unwrap(), breaker);
        }
        assert_eq!(serde_json::from_str::<Breaker>("\"ajar\"").unwrap(), Breaker::Unknown);
    }

    #[test]
    fn a_hit_rate_is_null_and_not_zero_before_the_first_lease() {
        let json = serde_json::to_value(PoolStats::default()).unwrap();
        assert!(json["hit_rate"].is_null() && json.as_object().unwrap().contains_key("hit_rate"));
        assert!(json.get("series").is_none() && json.get("restore").is_none());
    }
}
