//! One scenario, by flags.

mod args;
mod asked;

use std::time::Duration;

use clap::{Args, Subcommand};
use loadtest_model::{ChaosPlan, Fault, Plan, Scenario, Work};

use self::args::{
    HttpArgs, InvokeArgs, LifecycleArgs, PoolArgs, ProxyArgs, SoakArgs, Speaks, StepArgs,
    StreamArgs, ZeroArgs,
};
use super::{
    load::LoadArgs,
    mix::{MixArgs, words},
    output::OutputArgs,
    target::{TargetArgs, duration, milliseconds},
};

/// Scenarios.
#[derive(Debug, Subcommand)]
pub(crate) enum ScenarioCommand {
    /// Requests to the target's own address (--url)
    Http(HttpArgs),
    /// Requests to a function, each answered by a machine of its own
    Invoke(InvokeArgs),
    /// Requests to ports of sandboxes
    Proxy(ProxyArgs),
    /// WebSockets to an echoing function
    Ws(StreamArgs),
    /// Server-sent events of an echoing function
    Sse(StreamArgs),
    /// Sandboxes' lives: create, exec, files, pause, resume, kill, each step timed
    Lifecycle(LifecycleArgs),
    /// Bursts on a warm pool: what they find, how long until it is full again
    Pool(PoolArgs),
    /// Requests to pools that have run empty
    ScaleFromZero(ZeroArgs),
    /// From 0 to N requests per second by steps
    Step(StepArgs),
    /// A steady load for long: drift, memory
    Soak(SoakArgs),
    /// Several works by weight
    Mix(MixArgs),
}

/// What every scenario has.
#[derive(Debug, Args)]
pub(crate) struct ScenarioArgs {
    /// What the run and its scenario are called
    #[arg(long, help_heading = "Results")]
    name: Option<String>,
    /// Longest for one request (or stream, or life)
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = duration)]
    timeout: Duration,
    /// Most requests at once on a connection of HTTP/2 or HTTP/3
    #[arg(long, default_value_t = 100)]
    streams: u32,
    /// A fault and when it comes, as a plan writes it: `10s={ kind = "kill", pid_file = ".wrenn/dev.json#/pids/agent" }`
    #[arg(long, value_name = "TIME=FAULT", value_parser = chaos)]
    chaos: Vec<ChaosPlan>,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What a command asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The scenario's name, if the user gives none.
    name: &'static str,
    work: Work,
    when: When,
}

/// How a command's load differs from what the flags of loads say.
#[derive(Debug)]
enum When {
    /// As the flags say.
    Flags,
    /// As the flags say, for so long if they don't say how long.
    Long(Duration),
    /// From 0 by steps.
    Steps { to: f64, count: u32, each: Duration },
    /// The work paces itself.
    Itself,
}

/// Reads `10s={ kind = "kill", pid_file = "…" }`: the words are those of a plan.
fn chaos(text: &str) -> Result<ChaosPlan, String> {
    let (at, fault): (_, Fault) = words(text, "TIME={ kind = \"kill\", … }")?;
    Ok(ChaosPlan { at_ms: milliseconds(duration(at)?), every_ms: None, fault })
}

impl ScenarioCommand {
    /// Takes what is common apart from what is asked for.
    pub(crate) fn into_work(self) -> (ScenarioArgs, Asked) {
        match self {
            Self::Http(args) => args.into_work(),
            Self::Invoke(args) => args.into_work(),
            Self::Proxy(args) => args.into_work(),
            Self::Ws(args) => {
                let (scenario, stream) = args.into_stream("/ws");
                (scenario, Asked::by_flags("ws", Work::Ws(stream)))
            }
            Self::Sse(args) => {
                let (scenario, stream) = args.into_stream("/sse?n={n}&delay_ms={delay_ms}");
                (scenario, Asked::by_flags("sse", Work::Sse(stream)))
            }
            Self::Lifecycle(args) => args.into_work(),
            Self::Pool(args) => args.into_work(),
            Self::ScaleFromZero(args) => args.into_work(),
            Self::Step(args) => args.into_work(),
            Self::Soak(args) => args.into_work(),
            Self::Mix(args) => (args.scenario, Asked::by_flags("mix", Work::Mix { of: args.of })),
        }
    }
}

impl Asked {
    /// A work whose load is what the flags say.
    fn by_flags(name: &'static str, work: Work) -> Self {
        Self { name, work, when: When::Flags }
    }
}

impl ScenarioArgs {
    /// The plan of one scenario.
    pub(crate) fn plan(&self, asked: Asked) -> anyhow::Result<Plan> {
        let load = match asked.when {
            When::Flags => Some(self.load.load(None)?),
            When::Long(duration) => Some(self.load.load(Some(duration))?),
            When::Steps { to, count, each } => Some(self.load.steps(to, count, each)),
            When::Itself => None,
        };
        let name = self.name.clone().unwrap_or_else(|| asked.name.to_owned());
        Ok(self.plan_of(Scenario {
            name,
            work: asked.work,
            load,
            timeout_ms: milliseconds(self.timeout),
            streams_per_connection: self.streams,
        }))
    }

    fn plan_of(&self, scenario: Scenario) -> Plan {
        Plan {
            name: scenario.name.clone(),
            target: self.target.plan(),
            protocols: self.target.protocols(&[loadtest_model::Protocol::H1]),
            rounds: self.target.rounds.unwrap_or(1),
            seed: self.target.seed,
            workers: self.target.workers,
            warmup_ms: self.target.warmup_ms().unwrap_or(0),
            scenarios: vec![scenario],
            chaos: self.chaos.clone(),
            slow_proxies: Vec::new(),
        }
    }
}
