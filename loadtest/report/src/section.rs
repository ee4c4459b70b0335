//! The tables of a report, the same wherever they are shown.

use std::collections::BTreeSet;

use loadtest_model::{Disturbance, Part, RunReport, Scenario, names};

use crate::{
    figure::{NONE, bytes, count, number, percent, time},
    table::Table,
    words,
};

/// What belongs to one scenario.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    /// The scenario's name.
    pub(crate) name: &'a str,
    /// What the plan says of it.
    pub(crate) scenario: Option<&'a Scenario>,
    /// One per protocol.
    pub(crate) parts: Vec<&'a Part>,
}

/// In what order things happen; other names come after these.
const ORDER: [&str; 28] = [
    names::LATENCY,
    names::SERVICE,
    names::FIRST_BYTE,
    names::LAST_BYTE,
    names::SEND_LAG,
    names::DNS,
    names::CONNECT,
    names::HANDSHAKE,
    "server.route",
    "server.lease",
    "server.restore",
    "server.upstream",
    "step.open",
    "step.create",
    "step.exec",
    "step.interactive",
    "step.write",
    "step.read",
    "step.message",
    "step.first_event",
    "step.event",
    "step.remember",
    "step.pause",
    "step.resume",
    "step.exec_after",
    "step.read_after",
    "step.close",
    "step.kill",
];

/// A kind of timing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What a request took, seen from outside.
    Request,
    /// What opening a connection took.
    Connection,
    /// What the target says of itself.
    Server,
    /// Steps of lifecycles, pools and streams.
    Step,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Request, Self::Server, Self::Step, Self::Connection];

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Request => "Requests",
            Self::Connection => "Connections",
            Self::Server => "Server timings",
            Self::Step => "Steps",
        }
    }

    fn of(name: &str) -> Self {
        match name {
            names::DNS | names::CONNECT | names::HANDSHAKE => Self::Connection,
            name if name.starts_with("server.") => Self::Server,
            name if name.starts_with("step.") => Self::Step,
            _ => Self::Request,
        }
    }
}

/// The scenarios in the order of their parts.
pub(crate) fn sections(report: &RunReport) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    for part in &report.parts {
        if let Some(section) = sections.iter_mut().find(|section| section.name == part.scenario) {
            section.parts.push(part);
            continue;
        }
        let scenario = report.plan.scenarios.iter().find(|found| found.name == part.scenario);
        sections.push(Section { name: &part.scenario, scenario, parts: vec![part] });
    }
    sections
}

/// What a part is called beside others of its scenario.
pub(crate) fn over(part: &Part) -> String {
    part.protocol.map(|protocol| protocol.to_string()).unwrap_or_default()
}

impl Section<'_> {
    /// What is done, and when, in words.
    pub(crate) fn description(&self) -> String {
        let Some(scenario) = self.scenario else { return String::new() };
        let mut text = words::work(&scenario.work);
        if let Some(load) = &scenario.load {
            text += &format!("; {}", words::load(load));
        }
        text
    }

    /// The names of timings of a kind that any part has, in the order things happen.
    pub(crate) fn timings(&self, kind: Kind) -> Vec<&str> {
        let all: BTreeSet<&str> = self
            .parts
            .iter()
            .flat_map(|part| &part.timings)
            .filter(|(name, timing)| Kind::of(name) == kind && !timing.is_empty())
            .map(|(name, _)| name.as_str())
            .collect();
        let place = |name: &&str| ORDER.iter().position(|known| known == name);
        let mut all: Vec<&str> = all.into_iter().collect();
        all.sort_by_key(|name| place(name).unwrap_or(ORDER.len()));
        all
    }

    /// Requests, rate, errors, latency; a row per protocol. Milliseconds.
    pub(crate) fn overview(&self) -> Table {
        let mut table = Table::new(&[
            "<", "sent", "good/s", "errors", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms",
        ]);
        for part in &self.parts {
            let errors = match part.failed() {
                0 => "0".to_owned(),
                failed => format!("{} ({})", count(failed), percent(failed, part.sent)),
            };
            let mut row = vec![over(part), count(part.sent), number(part.rate()), errors];
            match part.timings.get(names::LATENCY).filter(|latency| !latency.is_empty()) {
                Some(latency) => {
                    let s = latency.summary();
                    row.extend([s.p50_ms, s.p90_ms, s.p99_ms, s.p999_ms, s.max_ms].map(number));
                }
                None => row.extend([NONE; 5].map(str::to_owned)),
            }
            table.row(row);
        }
        table.without_empty_columns()
    }

    /// The timings of a kind. Milliseconds.
    pub(crate) fn timing_table(&self, kind: Kind) -> Table {
        let mut table = Table::new(&[
            "<timing", "<over", "count", "mean ms", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms",
            "max ms",
        ]);
        for name in self.timings(kind) {
            for part in &self.parts {
                let Some(timing) = part.timings.get(name).filter(|timing| !timing.is_empty())
                else {
                    continue;
                };
                let s = timing.summary();
                let mut row = vec![words::timing(name).to_owned(), over(part), count(s.count)];
                row.extend(
                    [s.mean_ms, s.p50_ms, s.p90_ms, s.p99_ms, s.p999_ms, s.max_ms].map(number),
                );
                table.row(row);
            }
        }
        table.without_empty_columns()
    }

    /// What the target says of itself and the steps, a column per protocol. Milliseconds.
    pub(crate) fn brief_timings(&self) -> Table {
        let over = |part: &&Part| match over(part).as_str() {
            "" => "p50 / p99 ms".to_owned(),
            protocol => format!("{protocol}, p50 / p99 ms"),
        };
        let columns: Vec<String> =
            [String::from("<timing")].into_iter().chain(self.parts.iter().map(over)).collect();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let mut table = Table::new(&columns);
        for name in [Kind::Server, Kind::Step].into_iter().flat_map(|kind| self.timings(kind)) {
            let figures = |part: &&Part| match part.timings.get(name) {
                Some(timing) if !timing.is_empty() => {
                    let s = timing.summary();
                    format!("{} / {}", number(s.p50_ms), number(s.p99_ms))
                }
                _ => NONE.to_owned(),
            };
            let name = [words::timing(name).to_owned()];
            table.row(name.into_iter().chain(self.parts.iter().map(figures)).collect());
        }
        table
    }

    /// Failures by kind, the commonest first.
    pub(crate) fn errors(&self) -> Table {
        let mut table = Table::new(&["<error", "<over", "count", "of sent", "<the first"]);
        let mut all: Vec<(&Part, &String, u64)> = self
            .parts
            .iter()
            .flat_map(|part| part.errors.iter().map(|(kind, count)| (*part, kind, *count)))
            .filter(|(_, _, count)| *count > 0)
            .collect();
        all.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
        for (part, kind, found) in all {
            let first = part.samples.get(kind).cloned().unwrap_or_default();
            table.row(vec![
                kind.clone(),
                over(part),
                count(found),
                percent(found, part.sent),
                first,
            ]);
        }
        table.without_empty_columns()
    }

    /// What was checked of the answers.
    pub(crate) fn checks(&self) -> Table {
        let mut table =
            Table::new(&["<check", "<over", "passed", "failed", "<the first that failed"]);
        for part in &self.parts {
            for (name, outcome) in &part.checks {
                let first = outcome.first.clone().unwrap_or_default();
                let (passed, failed) = (count(outcome.passed), count(outcome.failed));
                table.row(vec![name.clone(), over(part), passed, failed, first]);
            }
        }
        table.without_empty_columns()
    }

    /// What only this kind of scenario has to say.
    pub(crate) fn extras(&self) -> Table {
        let mut table = Table::new(&["<figure", "<over", "value"]);
        for part in &self.parts {
            for (name, value) in &part.extra {
                table.row(vec![name.clone(), over(part), number(*value)]);
            }
        }
        table.without_empty_columns()
    }

    /// Requests, connections and bytes.
    pub(crate) fn traffic(&self) -> Table {
        let mut table = Table::new(&[
            "<",
            "measured",
            "planned",
            "sent",
            "good",
            "warm-up",
            "connections",
            "bytes out",
            "bytes in",
            "<statuses",
        ]);
        for part in &self.parts {
            let statuses: Vec<_> = part
                .statuses
                .iter()
                .map(|(status, found)| format!("{status}: {}", count(*found)))
                .collect();
            table.row(vec![
                over(part),
                time(part.duration_s * 1e3),
                count(part.planned),
                count(part.sent),
                count(part.succeeded),
                count(part.warmup_requests),
                count(part.connections),
                bytes(part.bytes_sent),
                bytes(part.bytes_received),
                statuses.join(", "),
            ]);
        }
        table.without_empty_columns()
    }

    /// What was disturbed in a part, in order, with its number there.
    pub(crate) fn disturbances<'a>(&self, report: &'a RunReport) -> Vec<(usize, &'a Disturbance)> {
        self.parts
            .iter()
            .flat_map(|part| disturbances_of(report, part).into_iter().enumerate())
            .map(|(at, disturbance)| (at + 1, disturbance))
            .collect()
    }
}

/// What was disturbed in one part, in order.
pub(crate) fn disturbances_of<'a>(report: &'a RunReport, part: &Part) -> Vec<&'a Disturbance> {
    let id = part.id();
    let mut all: Vec<_> = report.disturbances.iter().filter(|found| found.part == id).collect();
    all.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    all
}

/// Disturbances and what they cost.
pub(crate) fn disturbance_table<'a>(
    all: impl IntoIterator<Item = (usize, &'a Disturbance)>,
) -> Table {
    let mut table =
        Table::new(&["no.", "<part", "at s", "<what", "lost", "outage", "recovered after"]);
    for (number, found) in all {
        let mut row =
            vec![number.to_string(), found.part.clone(), crate::figure::number(found.at_s)];
        match &found.failed {
            Some(reason) => {
                row.push(format!("{} (not done: {reason})", found.what));
                row.extend([NONE; 3].map(str::to_owned));
            }
            None => {
                row.extend([found.what.clone(), count(found.lost), time(found.outage_ms)]);
                row.push(found.recovery_ms.map_or_else(|| "not seen".to_owned(), time));
            }
        }
        table.row(row);
    }
    table
}

/// What the budgets say; the broken ones first.
pub(crate) fn verdict_table(report: &RunReport) -> Table {
    let mut table = Table::new(&["<part", "<budget", "measured", "<verdict"]);
    let mut all: Vec<_> = report.verdicts.iter().collect();
    all.sort_by_key(|verdict| verdict.kept);
    for verdict in all {
        let measured = verdict.measured.map_or_else(|| NONE.to_owned(), number);
        let kept = if verdict.kept { "kept" } else { "broken" };
        table.row(vec![verdict.part.clone(), verdict.budget.clone(), measured, kept.to_owned()]);
    }
    table
}

/// What the budgets say in one line, if there are any.
pub(crate) fn verdict_line(report: &RunReport) -> Option<String> {
    let all = report.verdicts.len();
    let kept = report.verdicts.iter().filter(|verdict| verdict.kept).count();
    match (all, all - kept) {
        (0, _) => None,
        (_, 0) => Some(format!("all {all} budgets kept")),
        (_, broken) => Some(format!("{broken} of {all} budgets broken")),
    }
}

/// How the harness did, in one line.
pub(crate) fn harness_line(report: &RunReport) -> String {
    let harness = &report.harness;
    format!(
        "harness: {} of {} workers' time used, memory {} to {} MiB, {} of {} timed sends late, {} held back",
        if harness.workers == 0 {
            NONE.to_owned()
        } else {
            format!("{} %", number(harness.cpus_used / f64::from(harness.workers) * 100.0))
        },
        harness.workers,
        number(harness.rss_start_mib),
        number(harness.rss_max_mib),
        count(harness.late_sends),
        count(harness.timed_sends),
        count(harness.held_back),
    )
}
