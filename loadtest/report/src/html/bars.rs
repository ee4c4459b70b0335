//! Bars: where the time goes, and what failed.

use std::fmt::Write as _;

use super::{
    class_of, escape,
    plot::{Plot, Swatch, WIDTH},
    scale::Scale,
};
use crate::{
    figure::{count, number, percent, time},
    section::{Kind, Section, over},
    table::cut,
    words,
};

/// Where bars begin.
const BAR_LEFT: f64 = 118.0;
/// Where they end; the figures are on the right of that.
const BAR_RIGHT: f64 = 304.0;
/// From one bar to the next.
const PITCH: f64 = 16.0;
/// Between two names.
const GAP: f64 = 9.0;
/// Above the first.
const HEAD: f64 = 22.0;
/// Characters of a name that fit before the bars.
const NAME_MAX: usize = 17;
/// Kinds of errors that are drawn at most.
const ERRORS_MAX: usize = 12;

/// One bar.
#[derive(Debug)]
struct Bar {
    class: &'static str,
    value: f64,
    /// A whisker reaches from the value to this.
    to: Option<f64>,
    figures: String,
    told: String,
}

/// The timings of a kind: medians as bars, 99th percentiles as whiskers.
pub(super) fn timings(section: &Section<'_>, kind: Kind) -> String {
    let mut rows: Vec<(String, Vec<Bar>)> = Vec::new();
    for name in section.timings(kind) {
        let bars = section.parts.iter().filter_map(|part| {
            let s = part.timings.get(name).filter(|timing| !timing.is_empty())?.summary();
            Some(Bar {
                class: class_of(part),
                value: s.p50_ms,
                to: Some(s.p99_ms),
                figures: format!("{} · {}", number(s.p50_ms), number(s.p99_ms)),
                told: format!(
                    "{} {}: p50 {}, p99 {}, {} times",
                    words::timing(name),
                    over(part),
                    time(s.p50_ms),
                    time(s.p99_ms),
                    count(s.count)
                ),
            })
        });
        rows.push((words::timing(name).to_owned(), bars.collect()));
    }
    if rows.is_empty() {
        return String::new();
    }
    // A long tail would press all medians against the axis; a whisker may run off instead.
    let all = || rows.iter().flat_map(|(_, bars)| bars);
    let median = all().map(|bar| bar.value).fold(0.0, f64::max);
    let tail = all().filter_map(|bar| bar.to).fold(0.0, f64::max);
    let most = tail.min(median * 3.0).max(median);
    let mut plot = Plot::new(format!("{}: median and p99", kind.title()));
    legend(&mut plot, section);
    if tail > most {
        plot.note("Whiskers that end in an arrow go on beyond the axis.");
    }
    draw(&mut plot, &rows, most, "p50 · p99 ms", time);
    plot.end(&format!("{}: medians as bars, 99th percentiles as whiskers", kind.title()))
}

/// Failures by kind.
pub(super) fn errors(section: &Section<'_>) -> String {
    let mut all: Vec<(&String, u64)> = Vec::new();
    for (kind, found) in section.parts.iter().flat_map(|part| &part.errors) {
        match all.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, sum)) => *sum += found,
            None => all.push((kind, *found)),
        }
    }
    all.retain(|(_, sum)| *sum > 0);
    all.sort_by_key(|(_, sum)| std::cmp::Reverse(*sum));
    if all.is_empty() {
        return String::new();
    }
    let mut plot = Plot::new("Errors by kind");
    legend(&mut plot, section);
    if all.len() > ERRORS_MAX {
        plot.note(&format!("{} rarer kinds are in the table only.", all.len() - ERRORS_MAX));
    }
    let rows: Vec<(String, Vec<Bar>)> = all
        .into_iter()
        .take(ERRORS_MAX)
        .map(|(kind, _)| {
            let bars = section.parts.iter().filter_map(|part| {
                let found = part.errors.get(kind).copied().filter(|found| *found > 0)?;
                let figures = format!("{} · {}", count(found), percent(found, part.sent));
                let told = format!("{kind} {}: {figures}", over(part));
                Some(Bar { class: class_of(part), value: found as f64, to: None, figures, told })
            });
            (kind.clone(), bars.collect())
        })
        .collect();
    let most = rows.iter().flat_map(|(_, bars)| bars).map(|bar| bar.value).fold(0.0, f64::max);
    draw(&mut plot, &rows, most, "count · of sent", crate::figure::given);
    plot.end("Failures by kind")
}

fn legend(plot: &mut Plot, section: &Section<'_>) {
    if section.parts.len() > 1 {
        for part in &section.parts {
            plot.legend(Swatch::Area, class_of(part), &over(part));
        }
    }
}

fn draw(
    plot: &mut Plot,
    rows: &[(String, Vec<Bar>)],
    most: f64,
    head: &str,
    label: fn(f64) -> String,
) {
    let bars: usize = rows.iter().map(|(_, bars)| bars.len()).sum();
    let bottom = HEAD + bars as f64 * PITCH + rows.len() as f64 * GAP;
    plot.set_height(bottom + 24.0);
    let x = Scale::tight(most, BAR_LEFT, BAR_RIGHT);
    let mut last = f64::MIN;
    for tick in &x.ticks {
        let at = x.at(*tick);
        plot.raw(&format!("<path class=\"grid\" d=\"M{at:.1} {HEAD:.1}V{bottom:.1}\"/>\n"));
        if at - last > 54.0 {
            last = at;
            plot.text(at, bottom + 16.0, "middle", "tick", &label(*tick));
        }
    }
    plot.text(WIDTH, 12.0, "end", "unit", head);
    let mut y = HEAD + GAP / 2.0;
    for (name, bars) in rows {
        let middle = y + bars.len() as f64 * PITCH / 2.0;
        plot.text(BAR_LEFT - 8.0, middle + 4.0, "end", "name", &cut(name, NAME_MAX));
        for bar in bars {
            plot.raw(&one(bar, &x, y + PITCH / 2.0));
            plot.text(WIDTH, y + PITCH / 2.0 + 4.0, "end", "value", &bar.figures);
            y += PITCH;
        }
        y += GAP;
    }
    plot.raw(&format!("<path class=\"axis\" d=\"M{BAR_LEFT} {HEAD:.1}V{bottom:.1}\"/>\n"));
}

fn one(bar: &Bar, x: &Scale, y: f64) -> String {
    let (from, to) = (x.at(0.0), x.at(bar.value));
    // What is there has to be seen, however short it is.
    let width = (to - from).max(1.5);
    let mut out = format!(
        "<g><title>{}</title><rect class=\"bar {}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"10\" rx=\"1.5\"/>",
        escape(&bar.told),
        bar.class,
        y - 5.0
    );
    if let Some(tail) = bar.to.filter(|tail| *tail > bar.value) {
        let end = x.at(tail);
        let (up, down) = (y - 3.5, y + 3.5);
        let _ = if tail > x.most() {
            let back = end - 5.0;
            write!(
                out,
                "<path class=\"whisker {}\" d=\"M{to:.1} {y:.1}H{end:.1}M{back:.1} {up:.1}L{end:.1} {y:.1}L{back:.1} {down:.1}\"/>",
                bar.class
            )
        } else {
            write!(
                out,
                "<path class=\"whisker {}\" d=\"M{to:.1} {y:.1}H{end:.1}M{end:.1} {up:.1}V{down:.1}\"/>",
                bar.class
            )
        };
    }
    out + "</g>\n"
}
