//! What the harness itself uses, and where it runs.

use std::{fs, time::Duration};

use loadtest_model::Machine;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};

/// Processor time that this process has used.
pub(crate) fn process_cpu() -> Duration {
    cpu(UsageWho::RUSAGE_SELF)
}

/// Processor time that this thread has used.
pub(crate) fn thread_cpu() -> Duration {
    cpu(UsageWho::RUSAGE_THREAD)
}

fn cpu(who: UsageWho) -> Duration {
    let Ok(usage) = getrusage(who) else { return Duration::ZERO };
    let time = |value: nix::sys::time::TimeVal| {
        let seconds = Duration::from_secs(u64::try_from(value.tv_sec()).unwrap_or(0));
        seconds + Duration::from_micros(u64::try_from(value.tv_usec()).unwrap_or(0))
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// Memory of this process that is in use, MiB.
pub(crate) fn rss_mib() -> f64 {
    rss_of("self")
}

/// Memory of a process that is in use, MiB; 0 if there is none.
pub(crate) fn rss_of(pid: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    number_after(&status, "VmRSS:") / 1024.0
}

/// Lets this process have as many files as it may: each connection is one.
pub(crate) fn raise_file_limit() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // What is refused shows when a connection can't be opened.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// The machine this runs on.
#[must_use]
pub fn machine() -> Machine {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let os = read("/etc/os-release");
    let pretty = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count of MiB
    let memory_mib = (number_after(&read("/proc/meminfo"), "MemTotal:") / 1024.0) as u64;
    Machine {
        cpus: std::thread::available_parallelism()
            .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        cpu_model: model.unwrap_or_default().trim_start_matches([' ', '\t', ':']).to_owned(),
        memory_mib,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        os: pretty.unwrap_or_default().trim_matches('"').to_owned(),
    }
}

/// The number that follows a word at a line's begin.
fn number_after(text: &str, word: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(word));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_usage_and_machine_are_found() {
        // The kernel may count by ticks of milliseconds: work until one is seen.
        let (before, begin) = (thread_cpu(), std::time::Instant::now());
        while thread_cpu() == before && begin.elapsed() < Duration::from_secs(30) {
            std::hint::black_box((0..100_000_u64).map(std::hint::black_box).sum::<u64>());
        }
        let own = thread_cpu();
        assert!(own > before && process_cpu() >= own);
        assert!(rss_mib() > 1.0);
        let machine = machine();
        assert!(machine.cpus > 0 && machine.memory_mib > 100 && !machine.kernel.is_empty());
    }
}
