//! A report in Markdown, and its place in a document.

use std::fmt::Write as _;

use loadtest_model::RunReport;

use crate::{
    section::{
        Kind, Section, disturbance_table, harness_line, sections, verdict_line, verdict_table,
    },
    table::{Table, markdown_escape},
    words,
};

/// Why a text could not be put into a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMarker {
    /// A line is not there.
    #[error("the document has no line `{0}`")]
    Missing(String),
    /// A line is there twice.
    #[error("the document has the line `{0}` more than once")]
    Repeated(String),
    /// The end comes before the begin.
    #[error("the end of `{0}` comes before its begin")]
    Reversed(String),
    /// The text would itself hold one of the lines.
    #[error("the new text has a line of a marker itself: `{0}`")]
    Nested(String),
}

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Every figure.
    Full,
    /// What a document is for: latency, the target's own timings, steps, failures.
    Brief,
}

/// The report as sections and tables of GitHub's Markdown.
#[must_use]
pub fn tables(report: &RunReport, detail: Detail) -> String {
    let mut out = String::new();
    heading(&mut out, report);
    for section in sections(report) {
        one(&mut out, report, &section, detail);
    }
    if detail == Detail::Full {
        table(&mut out, "Budgets", &verdict_table(report));
    }
    let _ = writeln!(out, "\n{}", markdown_escape(&sentence(&harness_line(report))));
    out
}

fn heading(out: &mut String, report: &RunReport) {
    let _ = writeln!(out, "### {}\n", markdown_escape(&report.plan.name));
    let facts = [
        words::started(report),
        format!("commit {}", words::commit(report.commit.as_deref())),
        words::machine(&report.machine),
        format!("target: {}", words::target(&report.plan.target)),
        words::how(&report.plan),
    ];
    for fact in facts {
        let _ = writeln!(out, "- {}", markdown_escape(&fact));
    }
    for reason in &report.harness.bottlenecks {
        let reason = markdown_escape(reason);
        let _ = writeln!(out, "- **The harness itself was the limit: {reason}**");
    }
    if let Some(line) = verdict_line(report) {
        let _ = writeln!(out, "- **{}**", markdown_escape(&sentence(&line)));
    }
}

fn one(out: &mut String, report: &RunReport, section: &Section<'_>, detail: Detail) {
    let _ = writeln!(out, "\n#### {}\n", markdown_escape(section.name));
    let description = section.description();
    if !description.is_empty() {
        let _ = writeln!(out, "{}.\n", markdown_escape(&sentence(&description)));
    }
    out.push_str(&section.overview().markdown());
    match detail {
        Detail::Full => {
            for kind in Kind::ALL {
                table(out, kind.title(), &section.timing_table(kind));
            }
            table(out, "Checks", &section.checks());
        }
        Detail::Brief => {
            let timings = section.brief_timings();
            if !timings.is_empty() {
                let _ = write!(out, "\n{}", timings.markdown());
            }
        }
    }
    table(out, "Errors", &section.errors());
    table(out, "Further figures", &section.extras());
    table(out, "Disturbances", &disturbance_table(section.disturbances(report)));
}

fn table(out: &mut String, title: &str, table: &Table) {
    if !table.is_empty() {
        let _ = write!(out, "\n**{title}**\n\n{}", table.markdown());
    }
}

/// With a large first letter.
pub(crate) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Puts a text between `<!-- loadtest:MARKER:begin -->` and `<!-- loadtest:MARKER:end -->`, each a
/// line of the document, instead of what is there.
///
/// # Errors
///
/// [`BadMarker`] unless there is exactly one such pair.
pub fn replace_between(document: &str, marker: &str, new: &str) -> Result<String, BadMarker> {
    let line = |end: &str| format!("<!-- loadtest:{marker}:{end} -->");
    let (begin, end) = (line("begin"), line("end"));
    for wanted in [&begin, &end] {
        if new.lines().any(|found| found.trim() == wanted) {
            return Err(BadMarker::Nested(wanted.clone()));
        }
    }
    let (_, from) = place(document, &begin)?;
    let (to, _) = place(document, &end)?;
    if to < from {
        return Err(BadMarker::Reversed(marker.to_owned()));
    }
    Ok(format!("{}\n{}\n\n{}", &document[..from], new.trim(), &document[to..]))
}

/// Where the only such line begins, and where the one after it does.
fn place(document: &str, wanted: &str) -> Result<(usize, usize), BadMarker> {
    let mut found = None;
    let mut at = 0;
    for line in document.split_inclusive('\n') {
        let next = at + line.len();
        if line.trim() == wanted && found.replace((at, next)).is_some() {
            return Err(BadMarker::Repeated(wanted.to_owned()));
        }
        at = next;
    }
    found.ok_or_else(|| BadMarker::Missing(wanted.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn every_scenario_has_its_tables() {
        let text = tables(&sample::report(1, 1.0), Detail::Full);
        for wanted in [
            "### nightly",
            "commit 4f2a9c1d77e0",
            "#### invoke",
            "| HTTP/2 |",
            "**Server timings**",
            "**Steps**",
            "**Checks**",
            "**Further figures**",
            "**Disturbances**",
            "**Budgets**",
        ] {
            assert!(text.contains(wanted), "{wanted} in\n{text}");
        }
        assert!(!text.contains("NaN") && !text.contains("inf |"), "{text}");
    }

    #[test]
    fn hostile_output_stays_text() {
        let text = tables(&sample::hostile(), Detail::Full);
        assert!(!text.contains("<script"), "{text}");
        assert!(text.contains("&lt;script&gt;"), "{text}");
    }

    const DOCUMENT: &str = "# A\n<!-- loadtest:x:begin -->\nold\n<!-- loadtest:x:end -->\nafter\n<!-- loadtest:y:end -->\n";

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let first = replace_between(DOCUMENT, "x", "new\n").unwrap();
        assert_eq!(
            first,
            "# A\n<!-- loadtest:x:begin -->\n\nnew\n\n<!-- loadtest:x:end -->\nafter\n<!-- loadtest:y:end -->\n"
        );
        assert_eq!(
            replace_between(&first, "x", "new").unwrap(),
            first,
            "doing it again is harmless"
        );
    }

    #[test]
    fn markers_that_are_no_pair_are_named() {
        let refused = |document: &str, marker| replace_between(document, marker, "").unwrap_err();
        assert_eq!(
            refused(DOCUMENT, "y"),
            BadMarker::Missing("<!-- loadtest:y:begin -->".to_owned())
        );
        let twice = format!("{DOCUMENT}{DOCUMENT}");
        assert!(matches!(refused(&twice, "x"), BadMarker::Repeated(_)));
        let reversed = "<!-- loadtest:x:end -->\n<!-- loadtest:x:begin -->";
        assert_eq!(refused(reversed, "x"), BadMarker::Reversed("x".to_owned()));
        let nested = replace_between(DOCUMENT, "x", "<!-- loadtest:x:end -->");
        assert!(matches!(nested, Err(BadMarker::Nested(_))));
    }
}
