//! A report as one file of HTML, which needs nothing else: no network, no script.
//!
//! ```text
//! head: facts, the harness's own limits, budgets
//! per scenario: key figures | distribution, where time goes, errors | over time, per protocol
//!               tables
//! ```
//!
//! Words of plans and targets are escaped, and a policy in the page forbids to load or run anything.

mod bars;
mod plot;
mod scale;
mod spread;
mod thin;
mod time;

use std::fmt::Write as _;

use loadtest_model::{Part, Protocol, RunReport, names};

use crate::{
    figure::{self, count, number, percent},
    markdown::sentence,
    section::{
        Kind, Section, disturbance_table, disturbances_of, harness_line, over, sections,
        verdict_line, verdict_table,
    },
    table::{Table, printable},
    words,
};

const STYLE: &str = include_str!("style.css");

/// The report as a page.
#[must_use]
pub fn page(report: &RunReport) -> String {
    let mut out = String::with_capacity(200_000);
    let name = escape(&report.plan.name);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{name} – load test</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    head(&mut out, report);
    for section in sections(report) {
        one(&mut out, report, &section);
    }
    let _ = write!(
        out,
        "<footer>{}. Loadtest {}.</footer>\n</main>\n</body>\n</html>\n",
        escape(&sentence(&harness_line(report))),
        escape(&report.version)
    );
    out
}

fn head(out: &mut String, report: &RunReport) {
    let _ = writeln!(out, "<header>\n<h1>{}</h1>\n<dl class=\"facts\">", escape(&report.plan.name));
    let facts = [
        (
            "Began",
            format!("{}, took {}", words::started(report), figure::time(report.took_s * 1e3)),
        ),
        ("Commit", words::commit(report.commit.as_deref())),
        ("Target", words::target(&report.plan.target)),
        ("Machine", words::machine(&report.machine)),
        ("Done in", words::how(&report.plan)),
    ];
    for (term, fact) in facts {
        let _ = writeln!(out, "<div><dt>{term}</dt><dd>{}</dd></div>", escape(&fact));
    }
    out.push_str("</dl>\n");
    if !report.harness.bottlenecks.is_empty() {
        out.push_str(
            "<div class=\"box warn\"><p><b>The harness itself was the limit.</b> \
             These figures are its own as much as the target's.</p><ul>",
        );
        for reason in &report.harness.bottlenecks {
            let _ = write!(out, "<li>{}</li>", escape(reason));
        }
        out.push_str("</ul></div>\n");
    }
    if let Some(line) = verdict_line(report) {
        let broken = report.verdicts.iter().any(|verdict| !verdict.kept);
        let (class, open) = if broken { ("bad", " open") } else { ("good", "") };
        let _ = writeln!(
            out,
            "<div class=\"box {class}\"><p><b>{}.</b></p></div>\n<details{open}><summary>Budgets</summary>\n{}</details>",
            escape(&sentence(&line)),
            verdict_table(report).html()
        );
    }
    out.push_str("</header>\n");
}

fn one(out: &mut String, report: &RunReport, section: &Section<'_>) {
    let _ = writeln!(out, "<section>\n<h2>{}</h2>", escape(section.name));
    let _ = writeln!(out, "<p class=\"what\">{}</p>", escape(&sentence(&section.description())));
    grid(out, &section.parts.iter().map(|part| card(part)).collect::<String>());
    let mut plots = spread::draw(section);
    for kind in Kind::ALL {
        plots += &bars::timings(section, kind);
    }
    plots += &bars::errors(section);
    grid(out, &plots);
    let span = time::Span::of(&section.parts);
    for part in &section.parts {
        grid(out, &time::draw(part, span, &disturbances_of(report, part)));
    }
    table(out, "Disturbances", &disturbance_table(section.disturbances(report)));
    table(out, "Errors", &section.errors());
    out.push_str("<details><summary>All figures</summary>\n");
    table(out, "Overview", &section.overview());
    for kind in Kind::ALL {
        table(out, kind.title(), &section.timing_table(kind));
    }
    table(out, "Checks", &section.checks());
    table(out, "Further figures", &section.extras());
    table(out, "Traffic", &section.traffic());
    out.push_str("</details>\n</section>\n");
}

fn grid(out: &mut String, figures: &str) {
    if !figures.is_empty() {
        let _ = writeln!(out, "<div class=\"grid\">\n{figures}</div>");
    }
}

fn table(out: &mut String, title: &str, table: &Table) {
    if !table.is_empty() {
        let _ = writeln!(out, "<h3>{title}</h3>\n{}", table.html());
    }
}

/// The four figures that matter most.
fn card(part: &Part) -> String {
    let mut name = over(part);
    if name.is_empty() {
        name = "All requests".to_owned();
    }
    let mut out = format!("<div class=\"card {}\"><h3>{}</h3><dl>", class_of(part), escape(&name));
    let mut put = |class: &str, term: &str, value: &str, unit: &str| {
        let _ = write!(
            out,
            "<div><dt>{term}</dt><dd{class}>{}<small>{unit}</small></dd></div>",
            escape(value)
        );
    };
    if let Some(latency) = part.timings.get(names::LATENCY).filter(|timing| !timing.is_empty()) {
        let s = latency.summary();
        for (term, ms) in [("p50", s.p50_ms), ("p99", s.p99_ms)] {
            let told = figure::time(ms);
            let (value, unit) = told.split_once(' ').unwrap_or((&told, ""));
            put("", term, value, unit);
        }
    }
    put("", "good", &number(part.rate()), "/s");
    match part.failed() {
        0 => put("", "errors", &count(0), ""),
        failed => {
            let told = percent(failed, part.sent);
            let (value, unit) = told.split_once(' ').unwrap_or((&told, ""));
            put(" class=\"bad\"", "errors", value, unit);
        }
    }
    out + "</dl></div>\n"
}

/// The class that colours a part: each protocol has its own, everywhere.
fn class_of(part: &Part) -> &'static str {
    match part.protocol {
        Some(Protocol::H2) => "c1",
        Some(Protocol::H3) => "c2",
        Some(Protocol::H1) | None => "c0",
    }
}

/// Text that is only text in HTML, in an element or a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
