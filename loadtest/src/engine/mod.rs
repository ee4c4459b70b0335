//! Runs a plan: scenario by scenario, round by round, protocol by protocol.
//!
//! ```text
//! Runner --per scenario--> work::prepare (functions there? sandboxes made, pools filled)
//!    \--per round and protocol--> Round --> Worker threads --> Lane (when) --> Doer (what)
//!         every step: ticks, progress <-- Recorder (one per worker) <-- Outcome
//! ```
//!
//! # Invariants
//!
//! - A worker shares nothing with another one but counters: it has its runtime, connections, counts.
//! - What a part keeps in memory depends on its plan, not on how long it runs.
//! - What was prepared is cleared away, also after a failure or an interruption.

mod drive;
mod extra;
mod pacer;
mod record;
mod round;
mod usage;
mod worker;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use loadtest_chaos::Chaos;
use loadtest_model::{
    Arrivals, Budgets, Harness, Load, Part, Plan, Progress, Protocol, RunReport, SCHEMA, Scenario,
    arrival::parse_trace,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

pub(crate) use drive::Lane;
use round::{Effort, Round};
pub use usage::machine;

use crate::{error::RunError, target::Target, work};

/// From this share of a processor on a worker may have been the limit.
const BUSY: f64 = 0.95;
/// From this share of late sends on the figures are the harness's.
const LATE_SHARE: f64 = 0.01;

/// A run to be.
#[derive(Debug)]
pub struct Runner {
    plan: Plan,
    target: Target,
    traces: Vec<Arc<[Duration]>>,
    budgets: Budgets,
    progress: watch::Sender<Progress>,
}

impl Runner {
    /// Checks everything that can be checked before anything is done.
    ///
    /// # Errors
    ///
    /// [`RunError`] naming what was wrong and what was expected.
    pub fn new(plan: Plan, budgets: Budgets) -> Result<Self, RunError> {
        plan.check()?;
        let target = Target::open(&plan.target)?;
        let traces = plan.scenarios.iter().map(trace).collect::<Result<_, _>>()?;
        let (progress, _) = watch::channel(Progress::default());
        Ok(Self { plan, target, traces, budgets, progress })
    }

    /// How it goes, while it runs.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Does it. When `cancel` is cancelled, what was measured until then is the result.
    ///
    /// # Errors
    ///
    /// [`RunError`] if a scenario could not be prepared or the harness could not work. A target
    /// that fails under load is a result. (This process may have as many open files as it is
    /// allowed from then on.)
    ///
    /// # Cancel safety
    ///
    /// None: dropped, it leaves what it had prepared. Use `cancel`.
    pub async fn run(self, cancel: &CancellationToken) -> Result<RunReport, RunError> {
        let (started, began) = (Timestamp::now(), Instant::now());
        self.target.check().await?;
        usage::raise_file_limit();
        let refused = |error| RunError::Chaos(crate::chain(&error));
        let chaos = Chaos::prepare(&self.plan.chaos, &self.plan.slow_proxies).map_err(refused)?;
        chaos.start_proxies().map_err(refused)?;
        let over = cancel.child_token();
        let disturbing = tokio::spawn(chaos.run(over.clone()));
        let mut efforts = Vec::new();
        let parts = self.parts(&chaos, cancel, &mut efforts).await;
        over.cancel();
        // It undoes what is undone by then; a panic in it was printed.
        let _ = disturbing.await;
        let disturbances = chaos.finish().await;
        let mut report = RunReport {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: commit(),
            started,
            took_s: began.elapsed().as_secs_f64(),
            machine: usage::machine(),
            harness: harness(&efforts, self.plan.workers),
            plan: self.plan,
            parts: parts?,
            disturbances,
            verdicts: Vec::new(),
        };
        if cancel.is_cancelled() {
            let why = "it was interrupted before the plan's end".to_owned();
            report.harness.bottlenecks.push(why);
        }
        report.verdicts = self.budgets.judge(&report);
        Ok(report)
    }

    async fn parts(
        &self,
        chaos: &Chaos,
        cancel: &CancellationToken,
        efforts: &mut Vec<Effort>,
    ) -> Result<Vec<Part>, RunError> {
        let all: usize = self.plan.scenarios.iter().map(|one| self.protocols(one).len()).sum();
        let mut parts = Vec::new();
        for (scenario, trace) in self.plan.scenarios.iter().zip(&self.traces) {
            if cancel.is_cancelled() {
                break;
            }
            let shown = Progress { part: parts.len() + 1, parts: all, ..Progress::default() };
            let done = self.scenario(scenario, trace, shown, chaos, cancel, efforts).await?;
            parts.extend(done);
        }
        Ok(parts)
    }

    async fn scenario(
        &self,
        scenario: &Scenario,
        trace: &Arc<[Duration]>,
        shown: Progress,
        chaos: &Chaos,
        cancel: &CancellationToken,
        efforts: &mut Vec<Effort>,
    ) -> Result<Vec<Part>, RunError> {
        let shown = Progress { scenario: scenario.name.clone(), ..shown };
        self.progress.send_replace(shown.clone());
        let ready = Arc::new(work::prepare(scenario, &self.target, &self.plan).await?);
        let protocols = self.protocols(scenario);
        let mut parts: Vec<Part> = protocols
            .iter()
            .map(|protocol| Part {
                scenario: scenario.name.clone(),
                protocol: *protocol,
                ..Part::default()
            })
            .collect();
        let mut outcome = Ok(());
        'rounds: for number in 0..self.plan.rounds {
            for (index, part) in parts.iter_mut().enumerate() {
                if cancel.is_cancelled() {
                    break 'rounds;
                }
                let round = Round {
                    scenario,
                    protocol: part.protocol,
                    number,
                    rounds: self.plan.rounds,
                    workers: if scenario.load.is_some() { self.plan.workers } else { 1 },
                    seed: self.plan.seed.wrapping_add(u64::from(number)),
                    warmup: Duration::from_millis(self.plan.warmup_ms),
                    ready: Arc::clone(&ready),
                    trace: Arc::clone(trace),
                    chaos,
                    cancel: cancel.clone(),
                    progress: &self.progress,
                    shown: Progress {
                        part: shown.part + index,
                        protocol: part.protocol,
                        ..shown.clone()
                    },
                };
                match round.run(part).await {
                    Ok(effort) => efforts.push(effort),
                    Err(error) => {
                        outcome = Err(error);
                        break 'rounds;
                    }
                }
            }
        }
        // In any case, so that nothing stays behind.
        let cleared = work::clear(ready, &scenario.name).await;
        outcome.and(cleared)?;
        for part in &mut parts {
            extra::add(part, scenario, self.plan.rounds);
        }
        Ok(parts)
    }

    fn protocols(&self, scenario: &Scenario) -> Vec<Option<Protocol>> {
        if scenario.work.has_protocol() {
            self.plan.protocols.iter().copied().map(Some).collect()
        } else {
            vec![None]
        }
    }
}

/// The times of a replayed trace or a staggered load; none for other loads.
fn trace(scenario: &Scenario) -> Result<Arc<[Duration]>, RunError> {
    match &scenario.load {
        Some(Load::Open { arrivals: Arrivals::Replay { file, .. }, .. }) => {
            let bad = |reason: String| {
                RunError::Target(format!(
                    "scenario `{}`: trace {}: {reason}",
                    scenario.name,
                    file.display()
                ))
            };
            let text = std::fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
            Ok(parse_trace(&text).map_err(|error| bad(error.to_string()))?.into())
        }
        Some(Load::Staggered { count, delay_ms }) => {
            Ok((0..*count).map(|index| Duration::from_millis(*delay_ms) * index).collect())
        }
        _ => Ok(Arc::from([])),
    }
}

fn harness(efforts: &[Effort], workers: u32) -> Harness {
    let sum = |of: fn(&Effort) -> u64| efforts.iter().map(of).sum::<u64>();
    let (late, timed, held_back) = (sum(|e| e.late), sum(|e| e.timed), sum(|e| e.held_back));
    let took: f64 = efforts.iter().map(|effort| effort.took.as_secs_f64()).sum();
    let cpu: f64 = efforts.iter().map(|effort| effort.cpu.as_secs_f64()).sum();
    let busiest = efforts.iter().map(|effort| effort.busiest).fold(0.0, f64::max);
    let mut bottlenecks = Vec::new();
    if busiest > BUSY {
        bottlenecks.push(format!(
            "a worker used {:.0} % of a processor in one part: the target may be faster than the \
             harness (more `workers` help if there are processors)",
            busiest * 100.0
        ));
    }
    #[allow(clippy::cast_precision_loss)] // shares
    let late_share = if timed == 0 { 0.0 } else { late as f64 / timed as f64 };
    if late_share > LATE_SHARE {
        bottlenecks.push(format!(
            "{:.1} % of the requests were sent more than 1 ms late by the harness's own doing",
            late_share * 100.0
        ));
    }
    if held_back > 0 {
        bottlenecks.push(format!(
            "{held_back} requests waited since `max_in_flight` were under way; their wait is in \
             their latency"
        ));
    }
    Harness {
        workers,
        cpus_used: if took > 0.0 { cpu / took } else { 0.0 },
        rss_start_mib: efforts.first().map_or(0.0, |effort| effort.rss_start_mib),
        rss_max_mib: efforts.iter().map(|effort| effort.rss_max_mib).fold(0.0, f64::max),
        late_sends: late,
        timed_sends: timed,
        held_back,
        bottlenecks,
    }
}

/// The commit of the tree that we were started in, if it is one; `-dirty` if something else than a
/// document differs from it.
#[must_use]
pub fn commit() -> Option<String> {
    let head = git(&["rev-parse", "--short=9", "HEAD"])?;
    // Figures are written into documents while others are still being made.
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", ":(exclude)*.md"])?;
    Some(if changed.is_empty() { head } else { head + "-dirty" })
}

/// What git says, if there is a git and a tree.
fn git(arguments: &[&str]) -> Option<String> {
    let mut git = std::process::Command::new("git");
    let output = git.args(arguments).stdin(std::process::Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
