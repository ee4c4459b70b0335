//! The end of a run, for a terminal of 100 columns.

use std::fmt::Write as _;

use loadtest_model::RunReport;

use crate::{
    figure::time,
    markdown::sentence,
    section::{
        Kind, Section, disturbance_table, harness_line, sections, verdict_line, verdict_table,
    },
    table::{Table, WIDTH, printable},
    words,
};

/// The report as text: figures of each part, disturbances, the harness, budgets.
#[must_use]
pub fn summary(report: &RunReport) -> String {
    let mut out = String::new();
    line(&mut out, &report.plan.name);
    line(
        &mut out,
        &format!(
            "{}, commit {}, took {}",
            words::started(report),
            words::commit(report.commit.as_deref()),
            time(report.took_s * 1e3)
        ),
    );
    line(&mut out, &words::machine(&report.machine));
    line(
        &mut out,
        &format!("target: {}; {}", words::target(&report.plan.target), words::how(&report.plan)),
    );
    for section in sections(report) {
        one(&mut out, &section);
    }
    let all: Vec<_> =
        sections(report).iter().flat_map(|section| section.disturbances(report)).collect();
    table(&mut out, "Disturbances", &disturbance_table(all));
    table(&mut out, "Budgets", &verdict_table(report));
    end(&mut out, report);
    out
}

fn one(out: &mut String, section: &Section<'_>) {
    out.push('\n');
    line(out, &format!("== {}", section.name));
    let description = section.description();
    if !description.is_empty() {
        line(out, &format!("   {description}"));
    }
    out.push('\n');
    out.push_str(&section.overview().text());
    for kind in Kind::ALL {
        // Latency is in the overview already; alone it would only say that again.
        if kind != Kind::Request || section.timings(kind).len() > 1 {
            table(out, kind.title(), &section.timing_table(kind));
        }
    }
    table(out, "Errors", &section.errors());
    table(out, "Checks", &section.checks());
    table(out, "Further figures", &section.extras());
    table(out, "Traffic", &section.traffic());
}

fn end(out: &mut String, report: &RunReport) {
    out.push('\n');
    line(out, &sentence(&harness_line(report)));
    match report.harness.bottlenecks.as_slice() {
        [] => line(out, "The harness was not the limit: the figures are the target's."),
        reasons => {
            for reason in reasons {
                line(out, &format!("The harness itself was the limit: {reason}"));
            }
            line(out, "The figures are its own as much as the target's: don't trust them.");
        }
    }
    if let Some(verdict) = verdict_line(report) {
        line(out, &sentence(&verdict));
    }
}

/// One line, or more if it is too long; those are indented by three.
fn line(out: &mut String, text: &str) {
    let mut left = WIDTH;
    for word in printable(text).split_inclusive(' ') {
        let wide = word.trim_end().chars().count();
        if wide > left && left < WIDTH {
            out.truncate(out.trim_end_matches(' ').len());
            out.push_str("\n   ");
            left = WIDTH - 3;
        }
        out.push_str(word);
        left = left.saturating_sub(word.chars().count());
    }
    out.push('\n');
}

fn table(out: &mut String, title: &str, table: &Table) {
    if !table.is_empty() {
        let _ = write!(out, "\n{title}\n{}", table.text());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn everything_that_was_measured_is_told() {
        let text = summary(&sample::report(1, 1.0));
        for wanted in [
            "nightly",
            "== invoke",
            "HTTP/3",
            "p99.9 ms",
            "handshake",
            "restore",
            "pause",
            "status_503",
            "sandbox_distinct",
            "refill_ms",
            "killed the agent",
            "2.01 s",
            "broken",
            "1 of 3 budgets broken",
            "The harness was not the limit",
        ] {
            assert!(text.contains(wanted), "{wanted} in\n{text}");
        }
        let wide = text.lines().filter(|line| line.chars().count() > WIDTH);
        assert_eq!(wide.collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn a_harness_that_was_the_limit_is_not_kept_quiet() {
        let mut report = sample::report(1, 1.0);
        report.harness.bottlenecks.push("both workers were busy all the time".to_owned());
        let text = summary(&report);
        assert!(
            text.contains("The harness itself was the limit: both workers were busy"),
            "{text}"
        );
        assert!(!text.contains("was not the limit"), "{text}");
    }

    #[test]
    fn hostile_output_can_not_steer_the_terminal() {
        let text = summary(&sample::hostile());
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }

    #[test]
    fn nothing_measured_has_a_summary_too() {
        let mut report = sample::report(1, 1.0);
        report.parts =
            vec![loadtest_model::Part { scenario: "none".to_owned(), ..Default::default() }];
        report.verdicts.clear();
        report.harness = loadtest_model::Harness::default();
        let text = summary(&report);
        assert!(text.contains("== none") && !text.contains("NaN"), "{text}");
    }
}
