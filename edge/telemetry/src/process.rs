//! What the kernel says about this process.

use std::{fs, time::Duration};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};

/// Clock ticks per second in `/proc`: `USER_HZ`, part of the kernel's ABI on x86-64 and arm64.
const TICKS_PER_SECOND: f64 = 100.0;

/// Resident memory, open descriptors and threads; left out where they can't be read.
pub(crate) fn gauges() -> Vec<(&'static str, &'static str, i64)> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse::<i64>().ok()
    };
    let mut gauges = Vec::new();
    if let Some(kib) = number("VmRSS:") {
        gauges.push(("resident_memory_bytes", "Resident memory.", kib * 1024));
    }
    if let Some(threads) = number("Threads:") {
        gauges.push(("threads", "Threads.", threads));
    }
    let descriptors = fs::read_dir("/proc/self/fd").map(Iterator::count);
    if let Some(open) = descriptors.ok().and_then(|open| i64::try_from(open).ok()) {
        gauges.push(("open_descriptors", "Open descriptors.", open));
    }
    gauges
}

/// CPU time that all threads used so far, user and system.
pub(crate) fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let microseconds = (usage.user_time() + usage.system_time()).num_microseconds();
    Some(Duration::from_micros(u64::try_from(microseconds).ok()?).as_secs_f64())
}

/// When the process began, Unix time; to a second, as the kernel's own start is told.
pub(crate) fn start_seconds() -> Option<f64> {
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?;
    let own = fs::read_to_string("/proc/self/stat").ok()?;
    // proc(5): field 22, counted from the second after the name, which may hold spaces itself.
    let (_, fields) = own.rsplit_once(')')?;
    let ticks: f64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    Some(boot.trim().parse::<f64>().ok()? + ticks / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_asked() {
        let gauges = gauges();
        assert_eq!(gauges.len(), 3);
        assert!(gauges.iter().all(|(_, _, value)| *value > 0), "{gauges:?}");
    }

    #[test]
    fn cpu_time_grows_with_work() {
        let before = cpu_seconds().unwrap();
        let mut sum = 0_u64;
        while cpu_seconds().unwrap() < before + 0.02 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(before >= 0.0);
    }

    #[test]
    fn the_process_began_a_short_while_ago() {
        let now = jiff::Timestamp::now().as_duration().as_secs_f64();
        let age = now - start_seconds().unwrap();
        assert!((-5.0..24.0 * 3600.0).contains(&age), "{age} s old");
    }
}
