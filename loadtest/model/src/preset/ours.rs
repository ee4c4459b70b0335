//! Our own shapes.

use super::{Asked, Preset, scenario};
use crate::{Arrivals, Budget, Budgets, Dialect, Load, Protocol, Scenario, Share, Stream, Work};

/// Longest for one arrival, milliseconds.
const TIMEOUT_MS: u64 = 60_000;
/// What streams are opened to.
const ECHO: &str = "echo";

/// What `make bench` runs against the developer's stack.
pub(super) fn bench(asked: Asked<'_>) -> Preset {
    let some = |requests| Some(closed(1, asked.count(requests)));
    let loaded = || {
        let concurrency = asked.count(4);
        Some(Load::Closed { concurrency, duration_ms: Some(5000), requests: None })
    };
    let steady = Load::Open {
        arrivals: Arrivals::Constant { rate_per_s: 1.0 },
        duration_ms: 10_000,
        max_in_flight: 100,
    };
    let mut scenarios = vec![
        // Slowly enough for the pool to be full again each time, and as fast as it goes.
        scenario("invoke-warm", asked.invoke(), Some(steady), TIMEOUT_MS),
        scenario("invoke-in-a-row", asked.invoke(), some(10), TIMEOUT_MS),
        scenario("proxy-1k", proxy(1024), loaded(), TIMEOUT_MS),
        scenario("proxy-64k", proxy(65_536), loaded(), TIMEOUT_MS),
        scenario("ws", ws(50), some(1), TIMEOUT_MS),
        scenario("sse", sse(50), some(1), TIMEOUT_MS),
        scenario("lifecycle", lifecycle(), some(3), TIMEOUT_MS),
    ];
    scenarios.extend(pools(asked, 4, 8, 2));
    let published = "nowhere: what `make bench` runs, see budgets.toml";
    let preset = Preset::of(scenarios, Budgets::default(), published);
    Preset { protocols: Protocol::ALL.to_vec(), rounds: 2, ..preset }
}

/// Every kind of work and of load that a stack can be asked for.
pub(super) fn smoke(asked: Asked<'_>) -> Preset {
    let one = || Some(closed(1, asked.count(1)));
    let open = Load::Open {
        arrivals: Arrivals::Poisson { rate_per_s: asked.rate(5.0) },
        duration_ms: 1000,
        max_in_flight: 100,
    };
    let burst = Load::Staggered { count: asked.count(2), delay_ms: 0 };
    let mix = Work::Mix {
        of: vec![
            Share { weight: 1.0, work: asked.invoke() },
            Share { weight: 1.0, work: proxy(1024) },
        ],
    };
    let mut scenarios = vec![
        scenario("invoke", asked.invoke(), one(), TIMEOUT_MS),
        scenario("invoke-open", asked.invoke(), Some(open), TIMEOUT_MS),
        scenario("invoke-burst", asked.invoke(), Some(burst), TIMEOUT_MS),
        scenario("proxy", proxy(1024), one(), TIMEOUT_MS),
        scenario("ws", ws(3), one(), TIMEOUT_MS),
        scenario("sse", sse(3), one(), TIMEOUT_MS),
        scenario("lifecycle", lifecycle(), one(), TIMEOUT_MS),
        scenario("mix", mix, Some(closed(1, asked.count(4))), TIMEOUT_MS),
    ];
    scenarios.extend(pools(asked, 1, 2, 1));
    // At any scale: what fails once is no success.
    let budgets = Budgets { all: vec![Budget::at_most("*", "error_share", 0.0)] };
    let preset = Preset::of(scenarios, budgets, "nowhere: a test of the harness and of a stack");
    Preset { protocols: Protocol::ALL.to_vec(), ..preset }
}

/// What paces itself.
fn pools(asked: Asked<'_>, warm: u32, burst: u32, rounds: u32) -> [Scenario; 2] {
    let function = asked.function.to_owned();
    let zero = Work::ScaleFromZero { functions: vec![function.clone()], rounds };
    let (warm, burst) = (asked.count(warm), asked.count(burst));
    let pool = Work::Pool { function, warm, burst, rounds };
    [scenario("pool", pool, None, TIMEOUT_MS), scenario("scale-from-zero", zero, None, TIMEOUT_MS)]
}

fn closed(concurrency: u32, requests: u32) -> Load {
    Load::Closed { concurrency, duration_ms: None, requests: Some(u64::from(requests)) }
}

fn proxy(response_bytes: usize) -> Work {
    Work::Proxy { response_bytes, request_bytes: 0, keep_alive: true, sandboxes: 1 }
}

fn ws(messages: u32) -> Work {
    Work::Ws(stream("/ws", messages, 0))
}

fn sse(messages: u32) -> Work {
    Work::Sse(stream("/sse?n={n}&delay_ms={delay_ms}", messages, 10))
}

fn stream(path: &str, messages: u32, delay_ms: u64) -> Stream {
    let function = Some(ECHO.to_owned());
    Stream { function, path: path.to_owned(), messages, delay_ms, message_bytes: 1024 }
}

fn lifecycle() -> Work {
    Work::Lifecycle {
        dialect: Dialect::V1,
        template: None,
        command: "echo ready".to_owned(),
        file_bytes: 1024,
        pause: true,
    }
}
