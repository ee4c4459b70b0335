//! Pools: what a function's pool aims for, how that is changed, and what is told of it.

use pool_model::{PoolPolicy, Prefetch, Reuse, Schedule};
use serde::{Deserialize, Serialize};

use crate::{FunctionName, PoolStats};

/// The body of `PATCH /v1/pools/{function}`: what is absent stays as it is. What comes out of it is
/// checked as a whole by [`PoolPolicy::check`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolPatch {
    /// See [`PoolPolicy::min_warm`]; 0 to 1000, at most `max_warm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_warm: Option<u32>,
    /// See [`PoolPolicy::max_warm`]; 1 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_warm: Option<u32>,
    /// See [`PoolPolicy::idle_ttl_ms`]; 1000 to 86400000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ttl_ms: Option<u64>,
    /// See [`PoolPolicy::max_age_ms`]; 0 (never), or 1000 to 2592000000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// See [`PoolPolicy::burst`]; 0 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// See [`PoolPolicy::refill_concurrency`]; 0 (as many as the host allows) to 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refill_concurrency: Option<u32>,
    /// See [`PoolPolicy::prefetch`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<Prefetch>,
    /// See [`PoolPolicy::reuse`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reuse: Option<Reuse>,
    /// See [`PoolPolicy::max_requests`]; 1 to 1000000, over 1 only with `reuse: sequential`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<u32>,
    /// See [`PoolPolicy::memory_budget_mib`]; 0 (what the host has) to 1073741824.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_budget_mib: Option<u64>,
    /// See [`PoolPolicy::schedule`]; replaces all of it, so an empty list removes it. At most 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Vec<Schedule>>,
}

impl PoolPatch {
    /// What sets everything to `policy`.
    #[must_use]
    pub fn whole(policy: PoolPolicy) -> Self {
        Self {
            min_warm: Some(policy.min_warm),
            max_warm: Some(policy.max_warm),
            idle_ttl_ms: Some(policy.idle_ttl_ms),
            max_age_ms: Some(policy.max_age_ms),
            burst: Some(policy.burst),
            refill_concurrency: Some(policy.refill_concurrency),
            prefetch: Some(policy.prefetch),
            reuse: Some(policy.reuse),
            max_requests: Some(policy.max_requests),
            memory_budget_mib: Some(policy.memory_budget_mib),
            schedule: Some(policy.schedule),
        }
    }

    /// `policy` with what is given here. The outcome is not checked.
    #[must_use]
    pub fn over(self, policy: PoolPolicy) -> PoolPolicy {
        PoolPolicy {
            min_warm: self.min_warm.unwrap_or(policy.min_warm),
            max_warm: self.max_warm.unwrap_or(policy.max_warm),
            idle_ttl_ms: self.idle_ttl_ms.unwrap_or(policy.idle_ttl_ms),
            max_age_ms: self.max_age_ms.unwrap_or(policy.max_age_ms),
            burst: self.burst.unwrap_or(policy.burst),
            refill_concurrency: self.refill_concurrency.unwrap_or(policy.refill_concurrency),
            prefetch: self.prefetch.unwrap_or(policy.prefetch),
            reuse: self.reuse.unwrap_or(policy.reuse),
            max_requests: self.max_requests.unwrap_or(policy.max_requests),
            memory_budget_mib: self.memory_budget_mib.unwrap_or(policy.memory_budget_mib),
            schedule: self.schedule.unwrap_or(policy.schedule),
        }
    }
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

/// The body of `POST /v1/pools/{function}/prewarm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prewarm {
    /// Warm sandboxes to have now; 1 to the pool's `max_warm`.
    pub count: u32,
}

/// The answer of `POST /v1/pools/{function}/drain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Warm sandboxes that were destroyed.
    pub drained: u32,
}

/// Fastest pace of a pool's events, milliseconds.
pub const POOL_EVENTS_INTERVAL_MS_MIN: u64 = 200;
/// Slowest pace of a pool's events, milliseconds.
pub const POOL_EVENTS_INTERVAL_MS_MAX: u64 = 60_000;
/// Pace of a pool's events if none is asked for, milliseconds.
pub const POOL_EVENTS_INTERVAL_MS: u64 = 1_000;

/// One event of `GET /v1/pools/events` or `GET /v1/pools/{function}/events`.
///
/// On the wire the tag is the field `event:`, and the rest is the JSON of `data:`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum PoolEvent {
    /// How a pool is now, without its series.
    Stats(Box<PoolInfo>),
    /// The function was deleted. A stream of this function alone has ended.
    End(PoolEnd),
    /// The numbers could not be had this time; the stream goes on.
    Error(PoolTrouble),
}

impl PoolEvent {
    /// The word of the field `event:` on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stats(_) => "stats",
            Self::End(_) => "end",
            Self::Error(_) => "error",
        }
    }
}

/// The data of an `end` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolEnd {
    /// Which function is gone.
    pub function: FunctionName,
}

/// The data of an `error` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolTrouble {
    /// What went wrong, for programs: one of [`crate::ErrorCode`]'s words.
    pub code: String,
    /// What went wrong, for people.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_what_it_names_and_nothing_else() {
        let text = r#"{"burst":2,"reuse":"sequential","max_requests":10}"#;
        let patch: PoolPatch = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&patch).unwrap(), text);
        let base = PoolPolicy { min_warm: 3, max_age_ms: 5_000, ..PoolPolicy::default() };
        let expected =
            PoolPolicy { burst: 2, reuse: Reuse::Sequential, max_requests: 10, ..base.clone() };
        assert_eq!(patch.over(base.clone()), expected);
        assert_eq!(PoolPatch::default().over(base.clone()), base);
        assert_eq!(PoolPatch::whole(expected.clone()).over(base), expected);
    }

    #[test]
    fn an_empty_schedule_is_not_the_same_as_none() {
        let night = r#"{"from":"22:00","until":"06:00","min_warm":1}"#;
        let base: PoolPolicy =
            serde_json::from_str(&format!(r#"{{"schedule":[{night}]}}"#)).unwrap();
        let emptied: PoolPatch = serde_json::from_str(r#"{"schedule":[]}"#).unwrap();
        assert_eq!(emptied.over(base.clone()).schedule, []);
        let silent: PoolPatch = serde_json::from_str("{}").unwrap();
        assert_eq!(silent.over(base.clone()).schedule, base.schedule);
    }

    #[test]
    fn fields_and_words_that_do_not_exist_are_refused_by_name() {
        for (text, part) in [
            (r#"{"min":1}"#, "`min`"),
            (r#"{"reuse":"always"}"#, "`always`"),
            (r#"{"prefetch":"all"}"#, "`all`"),
            (r#"{"schedule":[{"from":"8:00","until":"18:00","min_warm":1}]}"#, "HH:MM"),
            (r#"{"schedule":[{"from":"08:00","until":"18:00","warm":1}]}"#, "`warm`"),
        ] {
            let error = serde_json::from_str::<PoolPatch>(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_pool_is_read_back_from_its_own_json_and_from_that_of_an_older_edge() {
        let function: FunctionName = "hello".parse().unwrap();
        let info = PoolInfo {
            function: function.clone(),
            policy: PoolPolicy { min_warm: 2, ..PoolPolicy::default() },
            stats: Some(PoolStats { hit_rate: Some(0.5), ..PoolStats::default() }),
        };
        let event = PoolEvent::Stats(Box::new(info.clone()));
        let text = serde_json::to_string(&event).unwrap();
        assert!(text.starts_with(r#"{"event":"stats","function":"hello","min_warm":2"#), "{text}");
        assert_eq!(serde_json::from_str::<PoolEvent>(&text).unwrap(), event);
        let older = r#"{"function":"hello","min_warm":2,"max_warm":8,"idle_ttl_ms":600000}"#;
        let older: PoolInfo = serde_json::from_str(older).unwrap();
        assert_eq!(older, PoolInfo { stats: None, ..info });
    }
}
