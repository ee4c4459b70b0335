//! What the sandbox uses, from `/proc` and the root disk.

use std::{
    fs, io,
    sync::{Mutex, PoisonError},
};

use envd_api::Metrics;
use jiff::Timestamp;

/// Why the sandbox's use could not be read.
#[derive(Debug, thiserror::Error)]
#[error("can't read {what}")]
pub(crate) struct ReadMetricsError {
    what: &'static str,
    #[source]
    source: io::Error,
}

/// Ticks of all processors together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct CpuTicks {
    busy: u64,
    total: u64,
}

/// Remembers the last reading, as use is a rate.
#[derive(Debug, Default)]
pub(crate) struct CpuMeter {
    last: Mutex<CpuTicks>,
}

impl CpuMeter {
    /// Percent busy since the last call; since the boot for the first.
    fn used_pct(&self, now: CpuTicks) -> f32 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let total = now.total.saturating_sub(last.total);
        let busy = now.busy.saturating_sub(last.busy).min(total);
        *last = now;
        // In hundredths of a percent, so that no precision is lost where a float has little.
        let hundredths = u16::try_from(busy * 10_000 / total.max(1)).unwrap_or(10_000);
        f32::from(hundredths) / 100.0
    }
}

/// Reads everything now.
///
/// # Errors
///
/// [`ReadMetricsError`].
pub(crate) fn read(meter: &CpuMeter, now: Timestamp) -> Result<Metrics, ReadMetricsError> {
    let at = |what| move |source| ReadMetricsError { what, source };
    let stat = fs::read_to_string("/proc/stat").map_err(at("/proc/stat"))?;
    let meminfo = fs::read_to_string("/proc/meminfo").map_err(at("/proc/meminfo"))?;
    let disk = nix::sys::statvfs::statvfs("/");
    let disk = disk.map_err(|errno| at("the root disk's use")(errno.into()))?;
    let (cpu_count, ticks) = parse_stat(&stat);
    let field = |name| parse_meminfo(&meminfo, name);
    let mem_total = field("MemTotal:");
    let mem_cache = field("Cached:") + field("Buffers:") + field("SReclaimable:");
    let mem_used = mem_total.saturating_sub(field("MemFree:")).saturating_sub(mem_cache);
    let block = disk.fragment_size();
    Ok(Metrics {
        ts: now.as_second(),
        cpu_count,
        cpu_used_pct: meter.used_pct(ticks),
        mem_total,
        mem_used,
        mem_cache,
        mem_total_mib: mem_total >> 20,
        mem_used_mib: mem_used >> 20,
        disk_used: disk.blocks().saturating_sub(disk.blocks_free()) * block,
        disk_total: disk.blocks() * block,
    })
}

/// How many processors there are, and the ticks of all together.
fn parse_stat(stat: &str) -> (u32, CpuTicks) {
    let mut count = 0;
    let mut ticks = CpuTicks::default();
    for line in stat.lines().filter(|line| line.starts_with("cpu")) {
        let mut fields = line.split_ascii_whitespace();
        if fields.next() != Some("cpu") {
            count += 1;
            continue;
        }
        // user nice system idle iowait irq softirq steal; the rest is counted in these already.
        let all: Vec<u64> = fields.take(8).map(|n| n.parse().unwrap_or(0)).collect();
        ticks.total = all.iter().sum();
        let idle: u64 = all.iter().skip(3).take(2).sum();
        ticks.busy = ticks.total.saturating_sub(idle);
    }
    (count, ticks)
}

/// Bytes of one line of `/proc/meminfo`, which counts in KiB.
fn parse_meminfo(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_files_are_understood() {
        let stat = "cpu  100 0 50 800 50 0 0 0 7 7\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";
        assert_eq!(parse_stat(stat), (2, CpuTicks { busy: 150, total: 1000 }));
        let meminfo = "MemTotal:  1024 kB\nMemFree: 10 kB\nCached: 4 kB\nSwapCached: 9 kB\n";
        assert_eq!(parse_meminfo(meminfo, "MemTotal:"), 1 << 20);
        assert_eq!(parse_meminfo(meminfo, "Cached:"), 4096);
        assert_eq!(parse_meminfo(meminfo, "Missing:"), 0);
    }

    #[test]
    fn use_is_the_share_since_the_last_reading() {
        let meter = CpuMeter::default();
        assert!((meter.used_pct(CpuTicks { busy: 100, total: 400 }) - 25.0).abs() < 0.01);
        assert!((meter.used_pct(CpuTicks { busy: 150, total: 500 }) - 50.0).abs() < 0.01);
        assert!(meter.used_pct(CpuTicks { busy: 150, total: 500 }).abs() < 0.01, "no time passed");
        assert!(meter.used_pct(CpuTicks::default()).abs() < 0.01, "a counter went back");
    }

    #[test]
    fn this_machine_has_memory_processors_and_a_disk() {
        let metrics = read(&CpuMeter::default(), Timestamp::UNIX_EPOCH).unwrap();
        assert!(metrics.cpu_count > 0 && metrics.mem_total > 0 && metrics.disk_total > 0);
        assert!(metrics.mem_used < metrics.mem_total && metrics.disk_used <= metrics.disk_total);
    }
}
