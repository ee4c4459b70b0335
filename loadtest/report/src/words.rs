//! Plans, machines and names in words.

use loadtest_model::{Arrivals, Load, Machine, Plan, RunReport, TargetPlan, Work, names};

use crate::figure::{bytes, count, given, time};

/// A timing as people call it.
pub(crate) fn timing(name: &str) -> &str {
    match name {
        names::SEND_LAG => "send lag",
        names::DNS => "DNS",
        names::CONNECT => "TCP connect",
        names::HANDSHAKE => "handshake",
        names::FIRST_BYTE => "first byte",
        names::LAST_BYTE => "to last byte",
        name => name.strip_prefix("server.").or(name.strip_prefix("step.")).unwrap_or(name),
    }
}

/// What one arrival does.
pub(crate) fn work(work: &Work) -> String {
    let body = |size: usize| match size {
        0 => String::new(),
        size => format!(", {} body", bytes(size as u64)),
    };
    match work {
        Work::Http { path, method, body_bytes, keep_alive, .. } => {
            let kept = if *keep_alive { "" } else { ", a new connection each" };
            format!("{method} {path}{}{kept}", body(*body_bytes))
        }
        Work::Invoke { function, path, method, body_bytes, .. } => {
            format!("invokes {function}: {method} {path}{}", body(*body_bytes))
        }
        Work::Proxy { response_bytes, keep_alive, sandboxes, .. } => {
            let kept = if *keep_alive { "" } else { ", a new connection each" };
            let size = bytes(*response_bytes as u64);
            format!("a port of {sandboxes} sandboxes, {size} answers{kept}")
        }
        Work::Ws(stream) => format!("WebSocket, {} messages", stream.messages),
        Work::Sse(stream) => format!("server-sent events, {} each", stream.messages),
        Work::Lifecycle { pause, file_bytes, .. } => {
            let files = if *file_bytes > 0 { ", files" } else { "" };
            let pause = if *pause { ", pause, resume" } else { "" };
            format!("a sandbox's life: create, exec{files}{pause}, kill")
        }
        Work::Mix { of } => {
            let shares: Vec<_> = of
                .iter()
                .map(|share| format!("{} × {}", given(share.weight), share.work.kind()))
                .collect();
            format!("a mix: {}", shares.join(", "))
        }
        Work::Pool { function, warm, burst, rounds } => {
            format!("drains {function}'s pool of {warm} by {burst} at once, {rounds} rounds")
        }
        Work::ScaleFromZero { functions, rounds } => {
            format!("{} functions from empty pools, {rounds} rounds", functions.len())
        }
    }
}

/// When arrivals come.
pub(crate) fn load(load: &Load) -> String {
    let span = |ms: u64| time(ms as f64);
    match load {
        Load::Open { arrivals, duration_ms, max_in_flight } => format!(
            "open loop, {}, {}, at most {} in flight",
            arrivals_words(arrivals),
            span(*duration_ms),
            count(u64::from(*max_in_flight))
        ),
        Load::Closed { concurrency, duration_ms, requests } => {
            let mut text = format!("closed loop, {concurrency} at a time");
            if let Some(requests) = requests {
                text += &format!(", {} requests", count(*requests));
            }
            if let Some(duration) = duration_ms {
                text += &format!(", {}", span(*duration));
            }
            text
        }
        Load::Staggered { count, delay_ms: 0 } => format!("a burst of {count}"),
        Load::Staggered { count, delay_ms } => format!("{count}, one per {}", span(*delay_ms)),
    }
}

fn arrivals_words(arrivals: &Arrivals) -> String {
    match arrivals {
        Arrivals::Constant { rate_per_s } => format!("{}/s evenly", given(*rate_per_s)),
        Arrivals::Poisson { rate_per_s } => format!("{}/s Poisson", given(*rate_per_s)),
        Arrivals::Bursty { rate_per_s, factor, share, .. } => format!(
            "{}/s bursty ({} times as many for {} % of the time)",
            given(*rate_per_s),
            given(*factor),
            given(share * 100.0)
        ),
        Arrivals::Steps { levels } => {
            let rates: Vec<_> = levels.iter().map(|level| given(level.rate_per_s)).collect();
            format!("steps of {}/s", rates.join(", "))
        }
        Arrivals::Replay { speed, .. } => format!("replayed {} times as fast", given(*speed)),
    }
}

/// What was tested.
pub(crate) fn target(target: &TargetPlan) -> String {
    match (&target.url, &target.wrenn_dir) {
        (Some(url), _) => url.clone(),
        (None, Some(_)) => "a Wrenn stack".to_owned(),
        (None, None) => "an unnamed target".to_owned(),
    }
}

/// Where the harness ran.
pub(crate) fn machine(machine: &Machine) -> String {
    let memory = bytes(machine.memory_mib.saturating_mul(1 << 20));
    let all = [
        format!("{} × {}", machine.cpus, machine.cpu_model),
        memory,
        format!("Linux {}", machine.kernel),
        machine.os.clone(),
    ];
    all.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ")
}

/// When it began, UTC.
pub(crate) fn started(report: &RunReport) -> String {
    report.started.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// The commit, shortened.
pub(crate) fn commit(commit: Option<&str>) -> String {
    match commit {
        Some(commit) if commit.chars().all(|c| c.is_ascii_hexdigit()) => {
            commit.chars().take(12).collect()
        }
        Some(commit) => commit.to_owned(),
        None => "no commit".to_owned(),
    }
}

/// Rounds, warm-up and threads.
pub(crate) fn how(plan: &Plan) -> String {
    let plural = |count: u32, word: &str| match count {
        1 => format!("1 {word}"),
        count => format!("{count} {word}s"),
    };
    let mut text = plural(plan.rounds, "round") + ", " + &plural(plan.workers, "worker");
    if plan.warmup_ms > 0 {
        text += &format!(", {} of warm-up", time(plan.warmup_ms as f64));
    }
    text + &format!(", seed {}", plan.seed)
}
