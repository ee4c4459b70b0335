//! How a part went on: latency, rate and pool over time, with what was disturbed meanwhile.

use std::fmt::Write as _;

use loadtest_model::{Disturbance, Part, PoolSample, Tick};

use super::{
    class_of, escape,
    plot::{BOTTOM, LEFT, Plot, RIGHT, Swatch, TOP},
    scale::Scale,
    thin::{thin_pool, thin_ticks},
};
use crate::{
    figure::{count, number, time},
    section::over,
};

/// Points of a line at most.
const POINTS: usize = 200;
/// Stripes that tell their figures when pointed at, at most.
const STRIPES: usize = 40;

/// One of a pool's levels.
type Level = fn(&PoolSample) -> u32;

/// What the parts of one scenario share, so that their plots can be compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    seconds: f64,
    least_ms: f64,
    most_ms: f64,
    rate: f64,
    sandboxes: f64,
}

impl Span {
    pub(super) fn of(parts: &[&Part]) -> Self {
        let mut span =
            Self { seconds: 0.0, least_ms: f64::MAX, most_ms: 0.0, rate: 0.0, sandboxes: 0.0 };
        for part in parts {
            for tick in thin_ticks(&part.ticks, POINTS) {
                span.seconds = span.seconds.max(tick.at_s + tick.length_s);
                if tick.p50_ms > 0.0 {
                    span.least_ms = span.least_ms.min(tick.p50_ms);
                    span.most_ms = span.most_ms.max(tick.p99_ms);
                }
                let most = tick.planned.max(tick.succeeded).max(tick.failed);
                span.rate = span.rate.max(per_second(&tick, most));
            }
            for sample in &part.pool {
                span.seconds = span.seconds.max(sample.at_s);
                let all = f64::from(sample.warm) + f64::from(sample.restoring);
                span.sandboxes = span.sandboxes.max(all + f64::from(sample.leased));
            }
        }
        span
    }
}

/// Fewer steps than this are no course that a line could show.
const COURSE_TICKS: usize = 3;

/// The plots of a part that it has something for, each a figure.
pub(super) fn draw(part: &Part, span: Span, disturbances: &[&Disturbance]) -> String {
    let x = Scale::seconds(span.seconds, LEFT, RIGHT);
    let ticks = thin_ticks(&part.ticks, POINTS);
    let course = ticks.len() >= COURSE_TICKS;
    let mut out = String::new();
    let name = match over(part).as_str() {
        "" => String::new(),
        over => format!("{over}: "),
    };
    if course && ticks.iter().any(|tick| tick.p50_ms > 0.0) {
        let plot = latency(Plot::new(format!("{name}latency over time")), part, &ticks, &x, span);
        out += &end(plot, part, &x, disturbances, true);
    }
    if course && ticks.iter().any(|tick| tick.planned + tick.succeeded + tick.failed > 0) {
        let plot = rate(Plot::new(format!("{name}rate over time")), part, &ticks, &x, span);
        out += &end(plot, part, &x, disturbances, true);
    }
    let samples = thin_pool(&part.pool, POINTS);
    if samples.len() > 1 && span.sandboxes > 0.0 {
        let plot = pool(Plot::new(format!("{name}pool over time")), &samples, &x, span);
        out += &end(plot, part, &x, disturbances, false);
    }
    out
}

fn latency(mut plot: Plot, part: &Part, ticks: &[Tick], x: &Scale, span: Span) -> Plot {
    let y = Scale::log(span.least_ms, span.most_ms, BOTTOM, TOP);
    plot.y_axis(&y, "latency (log scale)", time);
    let (line, tail) = classes(part);
    plot.line(tail, dots(ticks, x, |tick| positive(tick.p99_ms).map(|ms| y.at(ms))));
    plot.line(line, dots(ticks, x, |tick| positive(tick.p50_ms).map(|ms| y.at(ms))));
    plot.legend(Swatch::Line, line, "p50");
    plot.legend(Swatch::Line, tail, "p99");
    plot
}

fn rate(mut plot: Plot, part: &Part, ticks: &[Tick], x: &Scale, span: Span) -> Plot {
    let y = Scale::linear(span.rate, BOTTOM, TOP);
    plot.y_axis(&y, "per second", number_of_tick);
    let line =
        |get: fn(&Tick) -> u64| dots(ticks, x, |tick| Some(y.at(per_second(tick, get(tick)))));
    let (good, _) = classes(part);
    plot.line(good, line(|tick| tick.succeeded));
    plot.legend(Swatch::Line, good, "good");
    if ticks.iter().any(|tick| tick.planned > 0) {
        plot.line("planned", line(|tick| tick.planned));
        plot.legend(Swatch::Line, "planned", "planned");
    }
    if ticks.iter().any(|tick| tick.failed > 0) {
        plot.line("bad", line(|tick| tick.failed));
        plot.legend(Swatch::Line, "bad", "failed");
    }
    plot
}

fn pool(mut plot: Plot, samples: &[PoolSample], x: &Scale, span: Span) -> Plot {
    let y = Scale::linear(span.sandboxes, BOTTOM, TOP);
    plot.y_axis(&y, "sandboxes", number_of_tick);
    let mut lower: Vec<(f64, f64)> = samples.iter().map(|s| (x.at(s.at_s), y.at(0.0))).collect();
    let mut sums = vec![0.0; samples.len()];
    let layers: [(&'static str, Level); 3] = [
        ("leased", |sample| sample.leased),
        ("warm", |sample| sample.warm),
        ("restoring", |sample| sample.restoring),
    ];
    for (class, get) in layers {
        let upper: Vec<(f64, f64)> = samples
            .iter()
            .zip(&mut sums)
            .map(|(sample, sum)| {
                *sum += f64::from(get(sample));
                (x.at(sample.at_s), y.at(*sum))
            })
            .collect();
        plot.area(class, &upper, &lower);
        plot.legend(Swatch::Area, class, class);
        lower = upper;
    }
    plot
}

/// Adds what all of them have: the axis of time, disturbances, stripes that tell.
fn end(
    mut plot: Plot,
    part: &Part,
    x: &Scale,
    disturbances: &[&Disturbance],
    tells: bool,
) -> String {
    let minutes = x.most() >= 180.0;
    let (unit, divide) = if minutes { ("minutes", 60.0) } else { ("seconds", 1.0) };
    plot.x_axis(x, unit, |tick| crate::figure::given(tick / divide));
    if tells {
        plot.raw(&stripes(part, x));
    }
    plot.raw(&marks(x, disturbances));
    plot.end(&format!("{} over time", part.id()))
}

/// Vertical lines with the numbers that the table of disturbances has.
fn marks(x: &Scale, disturbances: &[&Disturbance]) -> String {
    let mut out = String::new();
    let mut last = f64::MIN;
    for (number, found) in disturbances.iter().enumerate() {
        let at = x.at(found.at_s);
        let lost = found.recovery_ms.map_or_else(|| "not recovered".to_owned(), time);
        let _ = write!(
            out,
            "<g class=\"mark\"><title>{}: {} lost, recovered after {}</title><path d=\"M{at:.1} {TOP}V{BOTTOM}\"/>",
            escape(&found.what),
            count(found.lost),
            lost
        );
        // Numbers that are closer than they are wide can't be read; the lines still stand there.
        if at - last >= 17.0 {
            last = at;
            let _ = write!(
                out,
                "<circle cx=\"{at:.1}\" cy=\"{:.1}\" r=\"7.5\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                TOP - 8.0,
                TOP - 4.2,
                number + 1
            );
        }
        out.push_str("</g>\n");
    }
    out
}

/// Invisible stripes whose figures a pointer shows.
fn stripes(part: &Part, x: &Scale) -> String {
    let mut out = String::new();
    for tick in thin_ticks(&part.ticks, STRIPES) {
        let (from, to) = (x.at(tick.at_s), x.at(tick.at_s + tick.length_s));
        let _ = writeln!(
            out,
            "<rect class=\"stripe\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.0}\"><title>{} s: {} good, {} failed, p50 {}, p99 {}, {} in flight</title></rect>",
            (to - from).max(0.0),
            BOTTOM - TOP,
            crate::figure::given(tick.at_s),
            count(tick.succeeded),
            count(tick.failed),
            time(tick.p50_ms),
            time(tick.p99_ms),
            count(tick.in_flight)
        );
    }
    out
}

/// Points of ticks in their middles, interrupted where no tick is.
fn dots(ticks: &[Tick], x: &Scale, get: impl Fn(&Tick) -> Option<f64>) -> Vec<Option<(f64, f64)>> {
    let mut points = Vec::with_capacity(ticks.len());
    let mut end = f64::MAX;
    for tick in ticks {
        if tick.at_s > end + tick.length_s / 2.0 {
            points.push(None);
        }
        end = tick.at_s + tick.length_s;
        points.push(get(tick).map(|y| (x.at(tick.at_s + tick.length_s / 2.0), y)));
    }
    points
}

fn positive(value: f64) -> Option<f64> {
    (value.is_finite() && value > 0.0).then_some(value)
}

fn per_second(tick: &Tick, count: u64) -> f64 {
    if tick.length_s > 0.0 { count as f64 / tick.length_s } else { 0.0 }
}

fn number_of_tick(tick: f64) -> String {
    if tick >= 1000.0 { number(tick) } else { crate::figure::given(tick) }
}

/// The classes of a part's line and of the fainter one beside it. Alone in its plot, it needs no
/// dashes to be told from other protocols.
fn classes(part: &Part) -> (&'static str, &'static str) {
    match class_of(part) {
        "c1" => ("c1 solid", "c1 tail"),
        "c2" => ("c2 solid", "c2 tail"),
        _ => ("c0 solid", "c0 tail"),
    }
}
