//! Pools between the wire's words and ours.

use agent_api::v1;
use pool::{Stats, histogram::Histogram};
use pool_model::{BadTuning, Day, PoolPolicy, Schedule};

use super::convert;
use crate::{
    error::AgentError,
    pools::{Entry, PoolMemory, PoolSpec},
};

/// A pool as a caller wants it. Its policy is checked when it is set.
pub(super) fn spec(pool: v1::Pool) -> Result<PoolSpec, AgentError> {
    let wire = pool.policy.into_option().unwrap_or_default();
    let lease_max_ms = wire.lease_max_ms;
    Ok(PoolSpec {
        function: convert::id("function_id", &pool.function_id)?,
        snapshot: convert::id("snapshot_id", &pool.snapshot_id)?,
        team: convert::id("team_id", &pool.team_id)?,
        policy: policy(wire)
            .map_err(|bad| AgentError::InvalidArgument { field: bad.field, reason: bad.reason })?,
        lease_max_ms,
        internet: pool.internet,
        env: convert::env(pool.env)?,
        port: convert::port("port", pool.port)?,
    })
}

/// What an older edge leaves out has its default.
fn policy(wire: v1::PoolPolicy) -> Result<PoolPolicy, BadTuning> {
    let word =
        |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
    Ok(PoolPolicy {
        min_warm: wire.min_warm,
        max_warm: wire.max_warm,
        idle_ttl_ms: wire.idle_ttl_ms,
        max_age_ms: wire.max_age_ms,
        burst: wire.burst,
        refill_concurrency: wire.refill_concurrency,
        prefetch: word(wire.prefetch, "working_set").parse()?,
        reuse: word(wire.reuse, "never").parse()?,
        max_requests: wire.max_requests.max(1),
        memory_budget_mib: wire.memory_budget_mib,
        schedule: wire.schedule.into_iter().map(schedule).collect::<Result<_, _>>()?,
    })
}

fn schedule(wire: v1::PoolSchedule) -> Result<Schedule, BadTuning> {
    let day = |text: &String| {
        let day = Day::ALL.iter().find(|day| day.as_str() == text);
        day.copied().ok_or_else(|| BadTuning {
            field: "schedule",
            reason: format!("`{text}` is no day: expected mon to sun"),
        })
    };
    Ok(Schedule {
        days: wire.days.iter().map(day).collect::<Result<_, _>>()?,
        from: wire.from.parse()?,
        until: wire.until.parse()?,
        min_warm: wire.min_warm,
    })
}

/// A pool's answer.
pub(super) fn response(
    entry: &Entry,
    stats: Stats,
    memory: Option<PoolMemory>,
) -> v1::PoolResponse {
    let spec = &entry.spec;
    let pool = v1::Pool {
        function_id: spec.function.to_string(),
        snapshot_id: spec.snapshot.to_string(),
        team_id: spec.team.to_string(),
        policy: Some(wire_policy(spec)).into(),
        internet: spec.internet,
        env: spec.env.clone().into_iter().collect(),
        port: u32::from(spec.port.get()),
        ..Default::default()
    };
    let stats = wire_stats(entry, stats, memory);
    v1::PoolResponse { pool: Some(pool).into(), stats: Some(stats).into(), ..Default::default() }
}

fn wire_policy(spec: &PoolSpec) -> v1::PoolPolicy {
    let PoolSpec { policy, lease_max_ms, .. } = spec;
    let schedule = policy.schedule.iter().map(|schedule| v1::PoolSchedule {
        days: schedule.days.iter().map(|day| day.as_str().to_owned()).collect(),
        from: schedule.from.to_string(),
        until: schedule.until.to_string(),
        min_warm: schedule.min_warm,
        ..Default::default()
    });
    v1::PoolPolicy {
        min_warm: policy.min_warm,
        max_warm: policy.max_warm,
        idle_ttl_ms: policy.idle_ttl_ms,
        lease_max_ms: *lease_max_ms,
        max_age_ms: policy.max_age_ms,
        burst: policy.burst,
        refill_concurrency: policy.refill_concurrency,
        prefetch: policy.prefetch.to_string(),
        reuse: policy.reuse.to_string(),
        max_requests: policy.max_requests,
        memory_budget_mib: policy.memory_budget_mib,
        schedule: schedule.collect(),
        ..Default::default()
    }
}

fn wire_stats(entry: &Entry, stats: Stats, memory: Option<PoolMemory>) -> v1::PoolStats {
    let steps = stats.steps.iter().map(|step| v1::PoolRestoreStep {
        name: step.name.clone(),
        count: step.count,
        p50_us: step.p50_us,
        p99_us: step.p99_us,
        ..Default::default()
    });
    let series = stats.series.iter().map(|sample| v1::PoolSample {
        at_ms: sample.at_ms,
        warm: sample.warm,
        restoring: sample.restoring,
        leased: sample.leased,
        target: sample.target,
        hits: sample.hits,
        misses: sample.misses,
        refused: sample.refused,
        ..Default::default()
    });
    v1::PoolStats {
        warm: stats.warm,
        restoring: stats.restoring,
        leased: stats.leased,
        reaping: stats.reaping,
        hits: stats.hits,
        misses: stats.misses,
        refused: stats.refused,
        restored: stats.restored,
        failed: stats.failed,
        reaped_idle: stats.reaped_idle,
        reaped_lease: stats.reaped_lease,
        lease_wait_us_p50: stats.lease_wait_us_p50,
        lease_wait_us_p99: stats.lease_wait_us_p99,
        restore_ms_p50: stats.restore_ms_p50,
        restore_ms_p99: stats.restore_ms_p99,
        last_error: stats.last_error,
        target: stats.target,
        cap: stats.cap,
        reused: stats.reused,
        reaped_age: stats.reaped_age,
        evicted: stats.evicted,
        breaker: stats.breaker.as_str().to_owned(),
        retry_in_ms: stats.retry_in_ms,
        lease_wait: Some(histogram(&stats.lease_wait)).into(),
        restore: Some(histogram(&stats.restore)).into(),
        steps: steps.collect(),
        memory: memory.map(wire_memory).into(),
        series: series.collect(),
        sandbox_memory_mib: entry.memory_bytes >> 20,
        ..Default::default()
    }
}

fn histogram(histogram: &Histogram) -> v1::PoolHistogram {
    v1::PoolHistogram {
        upper_us: Histogram::upper_us().to_vec(),
        counts: histogram.counts.to_vec(),
        count: histogram.count,
        sum_us: histogram.sum_us,
        ..Default::default()
    }
}

fn wire_memory(memory: PoolMemory) -> v1::PoolMemory {
    v1::PoolMemory {
        promised_bytes: memory.promised_bytes,
        base_bytes: memory.base_bytes,
        private_bytes: memory.private_bytes,
        vmm_bytes: memory.vmm_bytes,
        ..Default::default()
    }
}
