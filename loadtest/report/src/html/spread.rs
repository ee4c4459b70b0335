//! How latency is distributed: the share of requests that took at most so long.
//!
//! The vertical axis counts nines, so that the slowest hundredth has as much room as the half
//! below it: `q` is drawn at `-log10(1 - q)`.

use loadtest_model::{Histogram, Part, names};

use super::{
    class_of,
    plot::{LEFT, Plot, RIGHT, Swatch, TOP},
    scale::Scale,
};
use crate::{
    figure::{given, time},
    section::{Section, over},
};

/// Where its horizontal axis is: nines need room.
const BOTTOM: f64 = 268.0;
/// Points of a line at most.
const POINTS: f64 = 300.0;
/// Most nines that are shown: 99.999 %.
const NINES_MAX: f64 = 5.0;

/// Fewer answers than this have no distribution that a line could show.
const ANSWERS_MIN: u64 = 5;

/// One line per protocol; nothing if too little was answered.
pub(super) fn draw(section: &Section<'_>) -> String {
    let lines: Vec<(&Part, &Histogram)> = section
        .parts
        .iter()
        .filter_map(|part| part.timings.get(names::LATENCY).map(|latency| (*part, latency)))
        .filter(|(_, latency)| latency.len() >= ANSWERS_MIN)
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    let summaries = lines.iter().map(|(_, latency)| latency.summary());
    let (mut least, mut most, mut count) = (f64::MAX, 0.0_f64, 0);
    for summary in summaries {
        least = least.min(summary.min_ms);
        most = most.max(summary.max_ms);
        count = count.max(summary.count);
    }
    let nines = nines_of(count, count).clamp(1.0, NINES_MAX);
    let shares = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999];
    let ticks = shares.map(nine).into_iter().filter(|tick| *tick <= nines + 0.01).collect();
    let x = Scale::log(least, most, LEFT, RIGHT);
    let y = Scale::with_ticks(nines, ticks, BOTTOM, TOP);
    let mut plot = Plot::new("Latency distribution").with_bottom(BOTTOM);
    plot.y_axis(&y, "share of requests, %", |tick| given((1.0 - 10_f64.powf(-tick)) * 100.0));
    plot.x_axis(&x, "took at most (log scale)", time);
    for (part, latency) in &lines {
        let class = class_of(part);
        plot.line(class, points(latency, nines).map(|(ms, tick)| Some((x.at(ms), y.at(tick)))));
        if lines.len() > 1 {
            plot.legend(Swatch::Line, class, &over(part));
        }
    }
    let told: Vec<_> = lines
        .iter()
        .map(|(part, latency)| {
            let s = latency.summary();
            format!("{} median {}, p99 {}", over(part), time(s.p50_ms), time(s.p99_ms))
        })
        .collect();
    plot.end(&format!("Latency distribution: {}", told.join("; ")))
}

fn nine(share: f64) -> f64 {
    -(1.0 - share).log10()
}

/// The nines of the `rank`-th of `count`; half a rank is taken off, or the last would be infinite.
fn nines_of(rank: u64, count: u64) -> f64 {
    nine((rank as f64 - 0.5) / count as f64)
}

/// Milliseconds and nines, ascending and no denser than can be seen.
fn points(latency: &Histogram, nines: f64) -> impl Iterator<Item = (f64, f64)> + '_ {
    let (mut seen, mut last) = (0, -1.0_f64);
    let count = latency.len();
    latency.counts().filter_map(move |(nanoseconds, found)| {
        seen += found;
        let tick = nines_of(seen, count);
        let far = tick - last >= nines / POINTS || seen == count;
        (far && last < nines).then(|| {
            last = tick;
            (nanoseconds as f64 / 1e6, tick)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_many_samples_stay_short() {
        let mut latency = Histogram::default();
        (1..200_000).for_each(|n| latency.record_n(n * 1000, 1 + n % 7));
        let all: Vec<_> = points(&latency, NINES_MAX).collect();
        assert!((100..=302).contains(&all.len()), "{}", all.len());
        assert!(all.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1));
    }

    fn plot_of(samples: u64) -> String {
        let mut latency = Histogram::default();
        latency.record_n(5_000_000, samples);
        let timings = [(names::LATENCY.to_owned(), latency)].into();
        let part = Part { timings, ..Part::default() };
        draw(&Section { name: "x", scenario: None, parts: vec![&part] })
    }

    #[test]
    fn samples_of_one_size_are_drawn_and_too_few_left_to_the_table() {
        let plot = plot_of(ANSWERS_MIN);
        assert!(plot.contains("<path class=\"line") && !plot.contains("NaN"), "{plot}");
        assert_eq!(plot_of(ANSWERS_MIN - 1), "");
    }
}
