//! How are results printed? One line a verdict, or Markdown tables.

use std::fmt::Write;

use crate::{
    frontier::{Comparison, Point, Verdict, compare},
    outcome::float,
    policy::Family,
    trace::Trace,
};

/// The table of a trace's points with what ours reaches at each baseline's memory.
#[must_use]
pub fn frontier_table(trace: &Trace, ours: &[Point], theirs: &[Point], mib: u32) -> String {
    let mut table = format!(
        "### {} ({} callers, {} functions, {:.1} h)\n\n| policy | hit rate | p50 ms | p99 ms | \
         mean sandboxes | MiB·s | restores | wasted | ours at this memory |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        trace.name,
        trace.arrivals.len(),
        trace.functions,
        float(trace.end) / 3.6e9
    );
    let span = float(trace.end - trace.measured_from) / 1e6;
    let comparisons = compare(ours, theirs);
    let rows = ours.iter().map(|point| (point, None));
    for (point, comparison) in rows.chain(theirs.iter().zip(comparisons.iter().map(Some))) {
        row(&mut table, point, comparison, span, mib);
    }
    table
}

/// What came of one trace.
#[derive(Debug, Clone)]
pub struct Section {
    /// Its name, and how long it was in virtual hours.
    pub trace: &'static str,
    /// See `trace`.
    pub hours: f64,
    /// Callers and functions.
    pub callers: usize,
    /// See `callers`.
    pub functions: u32,
    /// Seconds over which it was measured.
    pub span: f64,
    /// Each baseline's comparisons.
    pub comparisons: Vec<(&'static str, Vec<Comparison>)>,
    /// Ours and the baselines at their usual settings.
    pub usual: Vec<Point>,
}

impl Section {
    /// Of a trace, the points of ours, and each baseline's points.
    #[must_use]
    pub fn new(trace: &Trace, ours: &[Point], baselines: &[(Family, Vec<Point>)]) -> Self {
        let theirs = baselines.iter().flat_map(|(_, points)| points);
        let usual = ours.iter().chain(theirs).filter(|point| point.is_usual(trace));
        let compared =
            baselines.iter().map(|(family, points)| (family.name(), compare(ours, points)));
        Self {
            trace: trace.name,
            hours: float(trace.end) / 3.6e9,
            callers: trace.arrivals.len(),
            functions: trace.functions,
            span: float(trace.end - trace.measured_from) / 1e6,
            comparisons: compared.collect(),
            usual: usual.cloned().collect(),
        }
    }

    /// Whether a baseline was better somewhere.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.comparisons.iter().any(|(_, all)| Verdict::of(all) == Verdict::Lost)
    }

    /// One line for each baseline.
    #[must_use]
    pub fn lines(&self) -> String {
        let line = |(family, all): &(&str, Vec<Comparison>)| verdict_line(self.trace, family, all);
        self.comparisons.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Each trace against each baseline: differences in hit rate at equal memory, in points.
#[must_use]
pub fn summary_table(sections: &[Section]) -> String {
    let mut table = String::from(
        "| trace | callers | functions | hours | baseline | mean | worst | worst at | verdict |\n\
         |---|--:|--:|--:|---|--:|--:|---|---|\n",
    );
    for section in sections {
        for (family, comparisons) in &section.comparisons {
            let Some((mean, worst)) = mean_and_worst(comparisons) else { continue };
            // Writing to a string cannot fail.
            let _ = writeln!(
                table,
                "| {} | {} | {} | {:.1} | {family} | {mean:+.2} | {:+.2} | {} | {} |",
                section.trace,
                section.callers,
                section.functions,
                section.hours,
                apart(worst),
                worst.label,
                Verdict::of(comparisons).word()
            );
        }
    }
    table
}

/// Ours and the baselines at their usual settings; `mib` is a sandbox's memory.
#[must_use]
pub fn usual_table(sections: &[Section], mib: u32) -> String {
    let mut table = String::from(
        "| trace | policy | hit rate | p50 ms | p99 ms | mean sandboxes | MiB·s | restores | \
         wasted |\n|---|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for section in sections {
        for point in &section.usual {
            let cells = cells(point, section.span, mib);
            let _ = writeln!(table, "| {} | {cells} |", section.trace);
        }
    }
    table
}

/// Points of hit rate by which ours is ahead.
fn apart(comparison: &Comparison) -> f64 {
    100.0 * (comparison.ours - comparison.theirs)
}

/// `None` if there is nothing to compare.
fn mean_and_worst(comparisons: &[Comparison]) -> Option<(f64, &Comparison)> {
    let worst = comparisons.iter().min_by(|a, b| apart(a).total_cmp(&apart(b)))?;
    let mean = comparisons.iter().map(apart).sum::<f64>() / float(comparisons.len() as u64);
    Some((mean, worst))
}

/// One line: who won, and by how much at the worst and on average.
#[must_use]
pub fn verdict_line(trace: &str, family: &str, comparisons: &[Comparison]) -> String {
    let Some((mean, worst)) = mean_and_worst(comparisons) else {
        return format!("{trace} against {family}: nothing to compare");
    };
    format!(
        "{trace} against {family}: {}, {mean:+.2} points on average, {:+.3} at the worst ({})",
        Verdict::of(comparisons).word(),
        apart(worst),
        worst.label
    )
}

fn row(table: &mut String, point: &Point, comparison: Option<&Comparison>, span: f64, mib: u32) {
    let ours =
        comparison.map_or(String::new(), |c| format!("{:.3} % ({:+.3})", 100.0 * c.ours, apart(c)));
    // Writing to a string cannot fail.
    let _ = writeln!(table, "| {} | {ours} |", cells(point, span, mib));
}

/// A policy and what came of it.
fn cells(point: &Point, span: f64, mib: u32) -> String {
    let out = &point.outcome;
    format!(
        "{} | {:.3} % | {:.0} | {:.0} | {:.3} | {:.3e} | {} | {}",
        point.policy.label(),
        100.0 * out.hit_rate(),
        out.wait_ms(0.5),
        out.wait_ms(0.99),
        out.sandbox_seconds / span,
        out.mib_seconds(mib),
        out.restores,
        out.wasted,
    )
}
