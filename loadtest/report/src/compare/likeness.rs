//! Whether two runs were made alike, so that a difference is the target's.
//!
//! Names, seeds, commits, addresses, directories, files of process ids and times may differ.

use std::{fmt, path::Path};

use loadtest_model::{
    Arrivals, ChaosPlan, Fault, Load, Machine, Part, Plan, Protocol, RunReport, Scenario,
    TargetPlan, names,
};

/// Samples of latency that a part needs: with fewer, not even a median is worth comparing.
pub const SAMPLES_MIN: u64 = 30;

/// Why two runs can't be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the runs are not alike: {}", reasons.join("; "))]
pub struct Unlike {
    /// All of the reasons.
    pub reasons: Vec<String>,
}

/// Everything in which two runs differ that should not.
pub(super) fn differences(a: &RunReport, b: &RunReport) -> Vec<String> {
    let mut reasons = Reasons(Vec::new());
    reasons.plans(&a.plan, &b.plan);
    reasons.targets(&a.plan.target, &b.plan.target);
    reasons.machines(&a.machine, &b.machine);
    for (which, report) in [("first", a), ("second", b)] {
        for reason in &report.harness.bottlenecks {
            reasons.0.push(format!("the harness was the limit of the {which} run: {reason}"));
        }
    }
    reasons.parts(a, b);
    reasons.0
}

struct Reasons(Vec<String>);

impl Reasons {
    fn same<T: PartialEq>(&mut self, what: &str, a: &T, b: &T, told: impl Fn(&T) -> String) {
        if a != b {
            self.0.push(format!("{what}: {} and {}", told(a), told(b)));
        }
    }

    fn number<T: PartialEq + fmt::Display>(&mut self, what: &str, a: &T, b: &T) {
        self.same(what, a, b, T::to_string);
    }

    fn plans(&mut self, a: &Plan, b: &Plan) {
        let list =
            |all: &Vec<Protocol>| all.iter().map(|one| one.short()).collect::<Vec<_>>().join(" ");
        self.same("protocols differ", &a.protocols, &b.protocols, list);
        self.number("rounds differ", &a.rounds, &b.rounds);
        self.number("workers differ", &a.workers, &b.workers);
        self.number("warm-ups differ, ms", &a.warmup_ms, &b.warmup_ms);
        for scenario in &a.scenarios {
            match b.scenarios.iter().find(|other| other.name == scenario.name) {
                Some(other) => self.scenarios(scenario, other),
                None => self.0.push(format!("only the first has scenario {}", scenario.name)),
            }
        }
        for scenario in &b.scenarios {
            if !a.scenarios.iter().any(|other| other.name == scenario.name) {
                self.0.push(format!("only the second has scenario {}", scenario.name));
            }
        }
        let chaos = |plan: &Plan| plan.chaos.iter().map(bare_chaos).collect::<Vec<_>>();
        if chaos(a) != chaos(b) {
            self.0.push("what is disturbed, or when, differs".to_owned());
        }
    }

    fn scenarios(&mut self, a: &Scenario, b: &Scenario) {
        let name = &a.name;
        if a.work != b.work {
            let (a, b) = (crate::words::work(&a.work), crate::words::work(&b.work));
            self.0.push(both(&format!("{name}: work differs"), &a, &b));
        }
        let bare = |scenario: &Scenario| scenario.load.as_ref().map(bare_load);
        if bare(a) != bare(b) {
            let told = |scenario: &Scenario| {
                scenario.load.as_ref().map_or_else(|| "none".to_owned(), crate::words::load)
            };
            self.0.push(both(&format!("{name}: load differs"), &told(a), &told(b)));
        }
        self.number(&format!("{name}: timeouts differ, ms"), &a.timeout_ms, &b.timeout_ms);
    }

    fn targets(&mut self, a: &TargetPlan, b: &TargetPlan) {
        self.same("kinds of target differ", &kind(a), &kind(b), |kind| (*kind).to_owned());
        if a.headers != b.headers {
            self.0.push("headers of requests differ".to_owned());
        }
    }

    fn machines(&mut self, a: &Machine, b: &Machine) {
        self.number("machines differ, processors", &a.cpus, &b.cpus);
        self.number("machines differ, processor", &a.cpu_model, &b.cpu_model);
        self.number("machines differ, kernel", &a.kernel, &b.kernel);
        // A kernel keeps a little for itself, not always the same: 1 % is no other machine.
        if a.memory_mib.abs_diff(b.memory_mib) > a.memory_mib.max(b.memory_mib) / 100 {
            self.number("machines differ, memory, MiB", &a.memory_mib, &b.memory_mib);
        }
    }

    fn parts(&mut self, a: &RunReport, b: &RunReport) {
        for (which, report, other) in [("first", a, b), ("second", b, a)] {
            for part in &report.parts {
                let id = part.id();
                if !other.parts.iter().any(|found| found.id() == id) {
                    self.0.push(format!("only the {which} has measured {id}"));
                }
                let samples = samples(part);
                if samples < SAMPLES_MIN {
                    self.0.push(format!(
                        "{id} of the {which} has {samples} samples, at least {SAMPLES_MIN} are needed"
                    ));
                }
            }
        }
    }
}

/// Two descriptions, unless words don't show what differs.
fn both(what: &str, a: &str, b: &str) -> String {
    if a == b { format!("{what} in a detail") } else { format!("{what}: {a} and {b}") }
}

fn samples(part: &Part) -> u64 {
    part.timings.get(names::LATENCY).map_or(0, loadtest_model::Histogram::len)
}

/// What kind of thing is tested, wherever it is.
fn kind(target: &TargetPlan) -> &'static str {
    match (&target.wrenn_dir, &target.url) {
        (Some(_), _) => "a Wrenn stack",
        (None, Some(url)) if url.starts_with("https:") => "an https URL",
        (None, Some(_)) => "an http URL",
        (None, None) => "none",
    }
}

/// A load without the directory of its file.
fn bare_load(load: &Load) -> Load {
    let mut load = load.clone();
    if let Load::Open { arrivals: Arrivals::Replay { file, .. }, .. } = &mut load {
        *file = file.file_name().map(Into::into).unwrap_or_default();
    }
    load
}

/// A disturbance without its place.
fn bare_chaos(chaos: &ChaosPlan) -> ChaosPlan {
    let mut chaos = chaos.clone();
    match &mut chaos.fault {
        Fault::Kill { pid_file } | Fault::Pause { pid_file, .. } => {
            // Which process it is stays, as the file's name; not whose stack.
            *pid_file = pid_file.file_name().map(Path::new).unwrap_or(Path::new("")).to_owned();
        }
        Fault::DiskFull { dir, .. } => dir.clear(),
        Fault::Slow { .. } => {}
    }
    chaos
}
