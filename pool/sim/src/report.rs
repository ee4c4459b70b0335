//! How are results printed? Markdown tables, one line a policy.

use std::fmt::Write;

use crate::{
    frontier::{Comparison, Point, Verdict, compare},
    outcome::float,
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

/// One line: who won, and by how much at the worst and on average.
#[must_use]
pub fn verdict_line(trace: &str, family: &str, comparisons: &[Comparison]) -> String {
    let apart = |c: &Comparison| 100.0 * (c.ours - c.theirs);
    let worst = comparisons.iter().min_by(|a, b| apart(a).total_cmp(&apart(b)));
    let Some(worst) = worst else { return format!("{trace} against {family}: nothing to compare") };
    let mean = comparisons.iter().map(apart).sum::<f64>() / float(comparisons.len() as u64);
    format!(
        "{trace} against {family}: {}, {mean:+.2} points on average, {:+.3} at the worst ({})",
        Verdict::of(comparisons).word(),
        apart(worst),
        worst.label
    )
}

fn row(table: &mut String, point: &Point, comparison: Option<&Comparison>, span: f64, mib: u32) {
    let out = &point.outcome;
    let ours = comparison.map_or(String::new(), |c| {
        format!("{:.3} % ({:+.3})", 100.0 * c.ours, 100.0 * (c.ours - c.theirs))
    });
    // Writing to a string cannot fail.
    let _ = writeln!(
        table,
        "| {} | {:.3} % | {:.0} | {:.0} | {:.3} | {:.3e} | {} | {} | {ours} |",
        point.policy.label(),
        100.0 * out.hit_rate(),
        out.wait_ms(0.5),
        out.wait_ms(0.99),
        out.sandbox_seconds / span,
        out.mib_seconds(mib),
        out.restores,
        out.wasted,
    );
}
