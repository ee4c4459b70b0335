//! Shapes that others publish figures of.

use super::{Asked, Preset, scenario};
use crate::{Arrivals, Budget, Dialect, Level, Load, Work};

/// Enough for 3000 requests per second that take as long as they may in six seconds of trouble.
const IN_FLIGHT: u32 = 20_000;
/// How long their attacker waits for an answer, milliseconds.
const KNATIVE_TIMEOUT_MS: u64 = 30_000;

/// Their function sleeps for 100 ms, which the gate has in it.
pub(super) fn dataplane_probe(asked: Asked<'_>) -> Preset {
    let load = Load::Open {
        arrivals: Arrivals::Constant { rate_per_s: asked.rate(1000.0) },
        duration_ms: 300_000,
        max_in_flight: IN_FLIGHT,
    };
    let budgets = asked.budgets([
        Budget::at_most("probe/*", "latency.p95_ms", 110.0),
        Budget::at_least("probe/*", "sent", 299_700.0),
    ]);
    Preset::of(
        vec![scenario("probe", asked.invoke(), Some(load), KNATIVE_TIMEOUT_MS)],
        budgets,
        "knative/serving, test/performance/benchmarks/dataplane-probe/main.go; their function \
         sleeps for 100 ms of the 110 that 95 % may take, ours only if it does so by itself",
    )
}

pub(super) fn load_test(asked: Asked<'_>) -> Preset {
    let level = |rate| Level { rate_per_s: asked.rate(rate), for_ms: 120_000 };
    let load = Load::Open {
        arrivals: Arrivals::Steps { levels: [1000.0, 2000.0, 3000.0].map(level).to_vec() },
        duration_ms: 360_000,
        max_in_flight: IN_FLIGHT,
    };
    let emptied = Work::ScaleFromZero { functions: vec![asked.function.to_owned()], rounds: 1 };
    let budgets = asked.budgets([
        Budget::at_most("load/*", "latency.p95_ms", 115.0),
        Budget::at_most("load/*", "latency.max_ms", 10_000.0),
        Budget::at_most("load/*", "error_share", 0.0),
        Budget::at_least("load/*", "sent", 719_280.0),
    ]);
    Preset::of(
        vec![
            scenario("emptied", emptied, None, KNATIVE_TIMEOUT_MS),
            scenario("load", asked.invoke(), Some(load), KNATIVE_TIMEOUT_MS),
        ],
        budgets,
        "knative/serving, test/performance/benchmarks/load-test/main.go; their function sleeps \
         for 100 ms of each time, and theirs is at zero when the load begins, while ours has \
         been emptied and then called once",
    )
}

pub(super) fn scale_from_zero(asked: Asked<'_>, count: u32, p95_ms: f64, max_ms: f64) -> Preset {
    let functions = match asked.count(count) {
        1 => vec![asked.function.to_owned()],
        many => (1..=many).map(|number| format!("{}-{number}", asked.function)).collect(),
    };
    let part = "scale-from-zero/*";
    let budgets = asked.budgets([
        Budget::at_most(part, "latency.p95_ms", p95_ms),
        Budget::at_most(part, "latency.max_ms", max_ms),
        // One may be missing, says theirs; but of one, none would then be enough.
        Budget::at_least(part, "succeeded", f64::from(count.saturating_sub(1).max(1))),
    ]);
    let work = Work::ScaleFromZero { functions, rounds: 1 };
    Preset::of(
        vec![scenario("scale-from-zero", work, None, 300_000)],
        budgets,
        "knative/serving, test/performance/benchmarks/scale-from-zero/main.go",
    )
}

const COMPUTESDK: &str = "computesdk/benchmarks, METHODOLOGY.md; theirs run `node -v`, which \
    the default template doesn't have";

/// From the request to the end of the first command. Removing the sandbox is no part of theirs.
fn first_command() -> Work {
    Work::Lifecycle {
        dialect: Dialect::V1,
        template: None,
        command: "python3 --version".to_owned(),
        file_bytes: 0,
        pause: false,
    }
}

pub(super) fn sequential(asked: Asked<'_>) -> Preset {
    let requests = Some(u64::from(asked.count(100)));
    let load = Load::Closed { concurrency: 1, duration_ms: None, requests };
    first_commands("sequential", load, asked)
}

/// One every so many milliseconds, or all at once.
pub(super) fn staggered(asked: Asked<'_>, delay_ms: u64) -> Preset {
    let load = Load::Staggered { count: asked.count(100), delay_ms };
    first_commands(if delay_ms == 0 { "burst" } else { "staggered" }, load, asked)
}

fn first_commands(name: &str, load: Load, asked: Asked<'_>) -> Preset {
    // They publish a score and no gate.
    let budgets = asked.budgets([]);
    Preset::of(vec![scenario(name, first_command(), Some(load), 120_000)], budgets, COMPUTESDK)
}
