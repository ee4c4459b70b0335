//! A running test, as a block that is redrawn in place or as lines of a log.

use loadtest_model::{Phase, PoolLevel, Progress};

use super::line::{Ink, Line};
use crate::{
    figure::{NONE, count, number, percent, time},
    table::printable,
};

/// Narrowest terminal that is drawn for, columns.
const WIDTH_MIN: usize = 20;
/// Widest that is used, columns: longer bars say nothing more.
const WIDTH_MAX: usize = 100;

/// Shows how a run goes on. What it returns is to be written as it is.
#[derive(Debug)]
pub struct Live {
    /// None: lines without escapes.
    width: Option<usize>,
    /// Lines of the block that is on the screen.
    drawn: usize,
    /// Largest number of sandboxes seen, so that bars keep their scale.
    pool_max: u32,
}

impl Live {
    /// For a terminal so many columns wide.
    #[must_use]
    pub fn for_terminal(width: usize) -> Self {
        // The last column stays free: some terminals wrap once it is written to.
        let width = width.saturating_sub(1).clamp(WIDTH_MIN, WIDTH_MAX);
        Self { width: Some(width), drawn: 0, pool_max: 0 }
    }

    /// For a file or a pipe: one line per call.
    #[must_use]
    pub fn plain() -> Self {
        Self { width: None, drawn: 0, pool_max: 0 }
    }

    /// Draws one moment, in a terminal over the one before.
    pub fn show(&mut self, progress: &Progress) -> String {
        let Some(width) = self.width else { return plain(progress) };
        let mut out = self.clear();
        let pool = progress.pool.unwrap_or_default();
        self.pool_max = self.pool_max.max(pool.warm.max(pool.restoring).max(pool.leased));
        let mut lines = vec![title(progress, width), bar(progress, width)];
        lines.extend([rate(progress, width), latency(progress, width), requests(progress, width)]);
        if let Some(level) = progress.pool {
            lines.push(pool_line(level, self.pool_max, width));
        }
        if let Some(what) = &progress.disturbance {
            lines.push(Line::new(width).label("chaos").put(Ink::Busy, what).end());
        }
        self.drawn = lines.len();
        for line in lines {
            out += &line;
            out.push('\n');
        }
        out
    }

    /// Removes what was drawn, before something else is written.
    pub fn clear(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r\x1b[J"),
        }
    }
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Preparing => "preparing",
        Phase::WarmUp => "warming up",
        Phase::Measuring => "measuring",
        Phase::Draining => "draining",
    }
}

fn name(progress: &Progress) -> String {
    match progress.protocol {
        Some(protocol) => format!("{} over {protocol}", progress.scenario),
        None => progress.scenario.clone(),
    }
}

fn title(progress: &Progress, width: usize) -> String {
    Line::new(width)
        .put(Ink::Strong, &name(progress))
        .put(Ink::Faint, &format!("  part {} of {} · ", progress.part, progress.parts))
        .put(Ink::Plain, phase(progress.phase))
        .end()
}

fn bar(progress: &Progress, width: usize) -> String {
    let elapsed = time(progress.elapsed_s * 1e3);
    let Some(length) = progress.length_s.filter(|length| *length > 0.0) else {
        return Line::new(width).label("elapsed").put(Ink::Plain, &elapsed).end();
    };
    let told = format!("  {elapsed} of {}", time(length * 1e3));
    let line = Line::new(width);
    let wide = line.left().saturating_sub(told.chars().count().max(22));
    line.bar(Ink::Good, progress.elapsed_s / length, wide).put(Ink::Plain, &told).end()
}

fn rate(progress: &Progress, width: usize) -> String {
    let line = Line::new(width).label("rate");
    let Some(asked) = progress.asked_rate else {
        return line.put(Ink::Strong, &format!("{}/s", number(progress.rate))).end();
    };
    // An open loop falls behind when the target does; a tenth is more than chance.
    let ink = if progress.rate < asked * 0.9 { Ink::Busy } else { Ink::Strong };
    line.put(ink, &format!("{}/s", number(progress.rate)))
        .put(Ink::Faint, &format!(" of {}/s asked", number(asked)))
        .end()
}

fn latency(progress: &Progress, width: usize) -> String {
    let line = Line::new(width).label("latency");
    let seen = progress.latency;
    if seen.count == 0 {
        return line.put(Ink::Faint, NONE).end();
    }
    let of =
        [("p50", seen.p50_ms), ("p90", seen.p90_ms), ("p99", seen.p99_ms), ("max", seen.max_ms)];
    let line = of.into_iter().fold(line, |line, (name, ms)| {
        line.put(Ink::Faint, name).put(Ink::Plain, &format!(" {:<10}", time(ms)))
    });
    line.end()
}

fn requests(progress: &Progress, width: usize) -> String {
    let line = Line::new(width)
        .label("requests")
        .put(Ink::Plain, &format!("{} good", count(progress.succeeded)))
        .put(Ink::Faint, " · ")
        .put(Ink::Plain, &format!("{} in flight", count(progress.in_flight)))
        .put(Ink::Faint, " · ");
    if progress.failed == 0 {
        return line.put(Ink::Faint, "0 failed").end();
    }
    let share = percent(progress.failed, progress.failed.saturating_add(progress.succeeded));
    let worst = progress
        .worst_error
        .as_deref()
        .map_or_else(String::new, |worst| format!(", mostly {worst}"));
    line.put(Ink::Bad, &format!("{} failed ({share}){worst}", count(progress.failed))).end()
}

fn pool_line(level: PoolLevel, most: u32, width: usize) -> String {
    let levels = [
        ("warm", level.warm, Ink::Good),
        ("restoring", level.restoring, Ink::Busy),
        ("leased", level.leased, Ink::Plain),
    ];
    let line = Line::new(width).label("pool");
    // Three labels with figures take 40 columns; what is left is for the bars.
    let wide = (line.left().saturating_sub(40) / 3).min(12);
    let line = levels.into_iter().fold(line, |line, (name, value, ink)| {
        line.put(Ink::Faint, &format!("{name} "))
            .bar(ink, f64::from(value) / f64::from(most.max(1)), wide)
            .put(Ink::Plain, &format!(" {value:<4}"))
    });
    line.end()
}

fn plain(progress: &Progress) -> String {
    let mut text = format!(
        "[{}/{}] {}, {} {}",
        progress.part,
        progress.parts,
        name(progress),
        phase(progress.phase),
        time(progress.elapsed_s * 1e3)
    );
    if let Some(length) = progress.length_s {
        text += &format!(" of {}", time(length * 1e3));
    }
    text += &format!(": {}/s", number(progress.rate));
    if let Some(asked) = progress.asked_rate {
        text += &format!(" of {}/s", number(asked));
    }
    let seen = progress.latency;
    if seen.count > 0 {
        let (p50, p90) = (time(seen.p50_ms), time(seen.p90_ms));
        let (p99, max) = (time(seen.p99_ms), time(seen.max_ms));
        text += &format!(", p50 {p50}, p90 {p90}, p99 {p99}, max {max}");
    }
    text += &format!(
        ", {} in flight, {} good, {} failed",
        count(progress.in_flight),
        count(progress.succeeded),
        count(progress.failed)
    );
    if let Some(worst) = progress.worst_error.as_deref().filter(|_| progress.failed > 0) {
        text += &format!(" (mostly {worst})");
    }
    if let Some(pool) = progress.pool {
        let (warm, restoring, leased) = (pool.warm, pool.restoring, pool.leased);
        text += &format!(", pool {warm} warm {restoring} restoring {leased} leased");
    }
    if let Some(what) = &progress.disturbance {
        text += &format!(", disturbed: {what}");
    }
    printable(&text) + "\n"
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
