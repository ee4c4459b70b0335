//! A pool between the records, the agent and the API: each says the same in its own words.

use agent_api::v1;
use edge_api::{
    Breaker, Day, PoolHistogram, PoolMemory, PoolPolicy, PoolSample, PoolStats, RestoreStep,
};
use edge_store::{FunctionRecord, VersionRecord};
use jiff::Timestamp;

/// What a lease may take on top of the invocation's timeout before it is reaped.
const LEASE_GRACE_MS: u64 = 60_000;

/// How much of the numbers is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// All of them: one pool.
    Whole,
    /// Without the series: events, which are a series themselves.
    NoSeries,
    /// Without series and histograms: a listing.
    Brief,
}

/// The pool that a version of a function should have.
pub(crate) fn rpc_pool(function: &FunctionRecord, version: &VersionRecord) -> v1::Pool {
    v1::Pool {
        function_id: version.pool.to_string(),
        snapshot_id: version.snapshot.to_string(),
        team_id: function.team.to_string(),
        policy: rpc_policy(&function.policy, version.timeout_ms).into(),
        internet: version.internet,
        port: u32::from(version.port.get()),
        ..Default::default()
    }
}

fn rpc_policy(policy: &PoolPolicy, timeout_ms: u64) -> v1::PoolPolicy {
    let schedule = policy.schedule.iter().map(|schedule| v1::PoolSchedule {
        days: schedule.days.iter().map(|day| word(*day).to_owned()).collect(),
        from: schedule.from.to_string(),
        until: schedule.until.to_string(),
        min_warm: schedule.min_warm,
        ..Default::default()
    });
    v1::PoolPolicy {
        min_warm: policy.min_warm,
        max_warm: policy.max_warm,
        idle_ttl_ms: policy.idle_ttl_ms,
        lease_max_ms: timeout_ms.saturating_add(LEASE_GRACE_MS),
        max_age_ms: policy.max_age_ms,
        burst: policy.burst,
        refill_concurrency: policy.refill_concurrency,
        prefetch: policy.prefetch.as_str().to_owned(),
        reuse: policy.reuse.as_str().to_owned(),
        max_requests: policy.max_requests,
        memory_budget_mib: policy.memory_budget_mib,
        schedule: schedule.collect(),
        ..Default::default()
    }
}

const fn word(day: Day) -> &'static str {
    match day {
        Day::Mon => "mon",
        Day::Tue => "tue",
        Day::Wed => "wed",
        Day::Thu => "thu",
        Day::Fri => "fri",
        Day::Sat => "sat",
        Day::Sun => "sun",
    }
}

/// The agent's numbers as the API tells them.
pub(crate) fn pool_stats(stats: v1::PoolStats, detail: Detail) -> PoolStats {
    let histograms = detail != Detail::Brief;
    let series = if detail == Detail::Whole { stats.series } else { Vec::new() };
    PoolStats {
        warm: stats.warm,
        restoring: stats.restoring,
        leased: stats.leased,
        reaping: stats.reaping,
        target: stats.target,
        cap: stats.cap,
        hits: stats.hits,
        misses: stats.misses,
        hit_rate: hit_rate(stats.hits, stats.misses),
        refused: stats.refused,
        reused: stats.reused,
        restored: stats.restored,
        failed: stats.failed,
        reaped_idle: stats.reaped_idle,
        reaped_age: stats.reaped_age,
        reaped_lease: stats.reaped_lease,
        evicted: stats.evicted,
        lease_wait_p50_ms: ms_of_us(stats.lease_wait_us_p50),
        lease_wait_p99_ms: ms_of_us(stats.lease_wait_us_p99),
        restore_p50_ms: to_f64(stats.restore_ms_p50),
        restore_p99_ms: to_f64(stats.restore_ms_p99),
        breaker: breaker(&stats.breaker),
        retry_in_ms: stats.retry_in_ms,
        last_error: Some(stats.last_error).filter(|error| !error.is_empty()),
        sandbox_memory_mib: stats.sandbox_memory_mib,
        memory: stats.memory.into_option().map(|memory| pool_memory(&memory)),
        steps: stats.steps.into_iter().map(restore_step).collect(),
        lease_wait: stats.lease_wait.into_option().filter(|_| histograms).map(histogram),
        restore: stats.restore.into_option().filter(|_| histograms).map(histogram),
        series: series.iter().filter_map(sample).collect(),
    }
}

fn hit_rate(hits: u64, misses: u64) -> Option<f64> {
    let leases = hits.saturating_add(misses);
    (leases > 0).then(|| hits as f64 / leases as f64)
}

fn breaker(word: &str) -> Breaker {
    let known = [Breaker::Closed, Breaker::Open, Breaker::HalfOpen];
    known.into_iter().find(|breaker| breaker.as_str() == word).unwrap_or_default()
}

fn pool_memory(memory: &v1::PoolMemory) -> PoolMemory {
    PoolMemory {
        promised_bytes: memory.promised_bytes,
        base_bytes: memory.base_bytes,
        private_bytes: memory.private_bytes,
        vmm_bytes: memory.vmm_bytes,
    }
}

fn restore_step(step: v1::PoolRestoreStep) -> RestoreStep {
    RestoreStep {
        name: step.name,
        count: step.count,
        p50_ms: ms_of_us(step.p50_us),
        p99_ms: ms_of_us(step.p99_us),
    }
}

fn histogram(histogram: v1::PoolHistogram) -> PoolHistogram {
    PoolHistogram {
        upper_us: histogram.upper_us,
        counts: histogram.counts,
        count: histogram.count,
        sum_us: histogram.sum_us,
    }
}

/// None for a time that can't be: such a sample is worth less than the rest of the answer.
fn sample(sample: &v1::PoolSample) -> Option<PoolSample> {
    Some(PoolSample {
        at: Timestamp::from_millisecond(sample.at_ms).ok()?,
        warm: sample.warm,
        restoring: sample.restoring,
        leased: sample.leased,
        target: sample.target,
        hits: sample.hits,
        misses: sample.misses,
        refused: sample.refused,
    })
}

fn ms_of_us(us: u64) -> f64 {
    to_f64(us) / 1000.0
}

/// Times over 49 days don't occur; were one to, it would read as that.
fn to_f64(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hit_rates_are_shares_of_all_leases_and_none_without_one() {
        assert_eq!(hit_rate(0, 0), None);
        assert_eq!((hit_rate(3, 1), hit_rate(0, 5)), (Some(0.75), Some(0.0)));
    }

    #[test]
    fn each_detail_leaves_out_what_it_says() {
        let stats = v1::PoolStats {
            breaker: "half_open".into(),
            lease_wait: v1::PoolHistogram { count: 1, ..Default::default() }.into(),
            series: vec![
                v1::PoolSample { at_ms: 1_000, warm: 3, ..Default::default() },
                v1::PoolSample { at_ms: i64::MAX, ..Default::default() },
            ],
            ..Default::default()
        };
        let of = |detail| {
            let told = pool_stats(stats.clone(), detail);
            assert_eq!(told.breaker, Breaker::HalfOpen);
            (told.lease_wait.is_some(), told.series.len())
        };
        assert_eq!(of(Detail::Whole), (true, 1), "without the time that can't be");
        assert_eq!(of(Detail::NoSeries), (true, 0));
        assert_eq!(of(Detail::Brief), (false, 0));
        assert_eq!(breaker("ajar"), Breaker::Unknown);
    }
}
