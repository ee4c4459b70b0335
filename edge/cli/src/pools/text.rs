//! A pool for people to read: all of it on a page, or how it is on one line.

use std::fmt::Write;

use edge_api::{PoolInfo, PoolMemory, PoolPolicy, PoolStats};

use crate::schedule;

/// What a pool aims for, how it is and was.
pub(crate) fn whole(pool: &PoolInfo) -> String {
    let mut page = Page(format!("pool of {}\n", pool.function));
    policy(&mut page, &pool.policy);
    match &pool.stats {
        Some(stats) => numbers(&mut page, stats),
        None => page.row("numbers", "none yet: the agent does not know the pool"),
    }
    page.0
}

/// How a pool is, on one line.
pub(crate) fn line(pool: &PoolInfo) -> String {
    let Some(stats) = &pool.stats else {
        return format!("{}  the agent does not know the pool yet", pool.function);
    };
    let mut line = format!(
        "{}  warm {}/{} restoring {} leased {}  hits {} misses {} hit rate {}  \
         wait p50 {:.2} p99 {:.2} ms  breaker {}",
        pool.function,
        stats.warm,
        stats.target,
        stats.restoring,
        stats.leased,
        stats.hits,
        stats.misses,
        share(stats.hit_rate),
        stats.lease_wait_p50_ms,
        stats.lease_wait_p99_ms,
        stats.breaker.as_str(),
    );
    if stats.retry_in_ms > 0 {
        line.push_str(&format!(" (retry in {} ms)", stats.retry_in_ms));
    }
    line
}

/// A share in percent; a dash if there is none.
pub(crate) fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

fn policy(page: &mut Page, policy: &PoolPolicy) {
    page.head("aims for");
    let or = |number: u64, unit: &str, zero: &str| match number {
        0 => zero.to_owned(),
        _ => format!("{number}{unit}"),
    };
    page.row("min warm", policy.min_warm);
    page.row("max warm", policy.max_warm);
    page.row("idle ttl", format_args!("{} ms", policy.idle_ttl_ms));
    page.row("max age", or(policy.max_age_ms, " ms", "never replaced"));
    page.row("burst", policy.burst);
    let at_once = or(policy.refill_concurrency.into(), " at once", "as the host allows");
    page.row("refill", at_once);
    page.row("prefetch", policy.prefetch);
    page.row("reuse", format_args!("{}, {} requests at most", policy.reuse, policy.max_requests));
    page.row("memory budget", or(policy.memory_budget_mib, " MiB", "what the host has"));
    for time in &policy.schedule {
        page.row("schedule", format_args!("{} (UTC)", schedule::format(time)));
    }
}

fn numbers(page: &mut Page, stats: &PoolStats) {
    page.head("sandboxes");
    page.row(
        "warm",
        format_args!("{} of {} wanted, {} granted", stats.warm, stats.target, stats.cap),
    );
    let PoolStats { restoring, leased, reaping, .. } = stats;
    page.row("others", format_args!("{restoring} restoring, {leased} leased, {reaping} reaping"));
    let PoolStats { reaped_idle, reaped_age, reaped_lease, evicted, .. } = stats;
    page.row(
        "ended",
        format_args!(
            "{reaped_idle} idle, {reaped_age} old, {reaped_lease} late, {evicted} evicted"
        ),
    );
    page.head("leases");
    let PoolStats { hits, misses, refused, reused, .. } = stats;
    page.row("hit rate", share(stats.hit_rate));
    page.row(
        "leases",
        format_args!("{hits} hits, {misses} misses, {refused} refused, {reused} reused"),
    );
    page.times("wait", stats.lease_wait_p50_ms, stats.lease_wait_p99_ms);
    page.head("restores");
    page.row("restores", format_args!("{} done, {} failed", stats.restored, stats.failed));
    page.times("time", stats.restore_p50_ms, stats.restore_p99_ms);
    for step in &stats.steps {
        page.times(&format!("  {}", step.name), step.p50_ms, step.p99_ms);
    }
    let retry = match stats.retry_in_ms {
        0 => String::new(),
        ms => format!(", retry in {ms} ms"),
    };
    page.row("breaker", format_args!("{}{retry}", stats.breaker.as_str()));
    if let Some(error) = &stats.last_error {
        page.row("last error", error);
    }
    if let Some(memory) = &stats.memory {
        memory_by_kind(page, memory, stats.sandbox_memory_mib);
    }
}

fn memory_by_kind(page: &mut Page, memory: &PoolMemory, sandbox_mib: u64) {
    page.head("memory");
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let promised = mib(memory.promised_bytes);
    page.row("promised", format_args!("{promised}, {sandbox_mib} MiB each"));
    page.row("base, shared", mib(memory.base_bytes));
    page.row("private", mib(memory.private_bytes));
    page.row("VMMs", mib(memory.vmm_bytes));
}

/// Text in two columns.
struct Page(String);

impl Page {
    fn head(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn row(&mut self, name: &str, value: impl std::fmt::Display) {
        writeln!(self.0, "  {name:<16}{value}").expect("a text takes any text");
    }

    fn times(&mut self, name: &str, p50_ms: f64, p99_ms: f64) {
        self.row(name, format_args!("p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_everything_and_a_line_what_changes() {
        let pool: PoolInfo = serde_json::from_value(serde_json::json!({
            "function": "hello", "min_warm": 2, "max_age_ms": 60000, "reuse": "sequential",
            "max_requests": 10,
            "schedule": [{ "days": ["mon"], "from": "08:00", "until": "18:00", "min_warm": 5 }],
            "stats": {
                "warm": 3, "target": 4, "cap": 6, "hits": 3, "misses": 1, "hit_rate": 0.75,
                "lease_wait_p50_ms": 0.05, "lease_wait_p99_ms": 12.5, "breaker": "open",
                "retry_in_ms": 800, "last_error": "no slot",
                "steps": [{ "name": "vmm", "count": 3, "p50_ms": 1.5, "p99_ms": 9.0 }],
                "memory": { "base_bytes": 3 << 19, "promised_bytes": 1 << 30 },
            },
        }))
        .unwrap();
        let page = whole(&pool);
        for part in [
            "pool of hello\n",
            "  min warm        2\n",
            "  max age         60000 ms\n",
            "sequential, 10 requests at most",
            "mon 08:00-18:00 =5 (UTC)",
            "what the host has",
            "3 of 4 wanted, 6 granted",
            "  hit rate        75.0 %\n",
            "p50 0.05 ms, p99 12.50 ms",
            "    vmm           p50 1.50 ms, p99 9.00 ms\n",
            "open, retry in 800 ms",
            "no slot",
            "  base, shared    1.5 MiB\n",
            "1024.0 MiB",
        ] {
            assert!(page.contains(part), "{part:?} is not in\n{page}");
        }
        let line = line(&pool);
        assert!(line.starts_with("hello  warm 3/4 restoring 0 leased 0  hits 3"), "{line}");
        assert!(line.ends_with("breaker open (retry in 800 ms)"), "{line}");
    }

    #[test]
    fn a_pool_that_the_agent_does_not_know_yet_is_told_as_that() {
        let text = r#"{"function":"hello"}"#;
        let pool: PoolInfo = serde_json::from_str(text).unwrap();
        for told in [whole(&pool), line(&pool)] {
            assert!(told.contains("the agent does not know the pool"), "{told}");
        }
        assert_eq!(share(None), "-");
    }
}
