//! What a comparison says, as values, text and JSON.

use std::fmt::Write as _;

use jiff::Timestamp;
use loadtest_model::RunReport;
use serde::{Deserialize, Serialize};

use super::rows;
use crate::{
    figure::{NONE, count, number},
    table::{Table, printable},
    words,
};

/// Two runs, compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The run before.
    pub a: Side,
    /// The run after.
    pub b: Side,
    /// In what they are unlike, if somebody insisted on comparing them anyway.
    pub unlike: Vec<String>,
    /// What may differ and is worth knowing.
    pub notes: Vec<String>,
    /// Figures, in the order of the parts.
    pub rows: Vec<Row>,
}

/// One of two runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Its name.
    pub name: String,
    /// The commit it was made at.
    pub commit: Option<String>,
    /// When it began.
    pub started: Timestamp,
}

/// One figure of one part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The part, see `Part::id`.
    pub part: String,
    /// What was measured, e.g. `latency p99`.
    pub figure: String,
    /// Of the two values.
    pub unit: Unit,
    /// Before; none if it was not measured.
    pub a: Option<f64>,
    /// After; none if it was not measured.
    pub b: Option<f64>,
    /// From one to the other; none if there are too few samples to tell.
    pub change: Option<Change>,
    /// Samples before.
    pub samples_a: u64,
    /// Samples after.
    pub samples_b: u64,
    /// Where the interval comes from.
    pub method: Method,
    /// What it means.
    pub verdict: Verdict,
}

/// A change with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// As measured.
    pub value: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
    /// Of these three: percent of the value before, or points.
    pub unit: Unit,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Milliseconds.
    Ms,
    /// Per second.
    PerSecond,
    /// Percent.
    Percent,
    /// The difference of two percentages.
    Points,
}

/// Where an interval comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Bootstrap of segments of the run.
    Segments,
    /// Bootstrap of single requests.
    Counts,
    /// Bootstrap of pieces of time.
    Ticks,
    /// Two Poisson counts.
    Poisson,
    /// Newcombe's interval of a difference of shares.
    Newcombe,
}

/// What a row means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is on the good side.
    Better,
    /// The whole interval is on the bad side.
    Worse,
    /// No change is within the interval.
    NoDifference,
    /// There are too few samples for an interval.
    TooFew,
}

impl Verdict {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NoDifference => "no difference seen",
            Self::TooFew => "too few",
        }
    }
}

pub(super) fn build(a: &RunReport, b: &RunReport, unlike: Vec<String>) -> Comparison {
    let side = |report: &RunReport| Side {
        name: report.plan.name.clone(),
        commit: report.commit.clone(),
        started: report.started,
    };
    let mut notes = Vec::new();
    if a.version != b.version {
        notes.push(format!("versions of the harness differ: {} and {}", a.version, b.version));
    }
    if a.machine.os != b.machine.os {
        notes.push(format!("systems differ: {} and {}", a.machine.os, b.machine.os));
    }
    let rows = a
        .parts
        .iter()
        .filter_map(|part| Some((part, b.parts.iter().find(|other| other.id() == part.id())?)))
        .flat_map(|(a, b)| rows::of(a, b))
        .collect();
    Comparison { a: side(a), b: side(b), unlike, notes, rows }
}

impl Comparison {
    /// Rows with this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == verdict).count()
    }

    /// A table for a terminal of 100 columns, and how far it can be trusted.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (name, side) in [("a", &self.a), ("b", &self.b)] {
            let commit = words::commit(side.commit.as_deref());
            let when = side.started.strftime("%Y-%m-%d %H:%M UTC");
            line(&mut out, &format!("{name}: {}, {when}, commit {commit}", side.name));
        }
        for reason in &self.unlike {
            line(&mut out, &format!("NOT ALIKE, compared anyway: {reason}"));
        }
        for note in &self.notes {
            line(&mut out, &format!("note: {note}"));
        }
        let mut parts: Vec<&str> = self.rows.iter().map(|row| row.part.as_str()).collect();
        parts.dedup();
        for part in parts {
            line(&mut out, &format!("\n== {part}"));
            out += &self.table(part).text();
        }
        out + "\n" + &self.trust()
    }

    fn table(&self, part: &str) -> Table {
        let mut table = Table::new(&[
            "<figure (times in ms)",
            "a",
            "b",
            "change",
            "95 % interval",
            "<samples",
            "<verdict",
        ]);
        for row in self.rows.iter().filter(|row| row.part == part) {
            let value = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), number);
            let unit = match row.unit {
                Unit::Ms => "",
                Unit::PerSecond => ", /s",
                Unit::Percent | Unit::Points => ", %",
            };
            let (change, interval) = row.change.map_or_else(Default::default, Change::words);
            let samples = match (row.samples_a, row.samples_b) {
                (a, b) if a == b => format!("{} each", count(a)),
                (a, b) => format!("{}, {}", count(a), count(b)),
            };
            table.row(vec![
                format!("{}{unit}", row.figure),
                value(row.a),
                value(row.b),
                change,
                interval,
                samples,
                row.verdict.words().to_owned(),
            ]);
        }
        table
    }

    fn trust(&self) -> String {
        let tested = self.rows.len() - self.count(Verdict::TooFew);
        let mut out = format!(
            "{} better, {} worse, {} without a difference that was seen, {} with too few samples.\n",
            self.count(Verdict::Better),
            self.count(Verdict::Worse),
            self.count(Verdict::NoDifference),
            self.count(Verdict::TooFew),
        );
        if tested > 0 {
            let _ = writeln!(
                out,
                "Of {tested} such rows about {} would differ by chance alone if nothing had changed.",
                number(tested as f64 * 0.05)
            );
        }
        let mut methods: Vec<Method> =
            self.rows.iter().filter(|row| row.change.is_some()).map(|row| row.method).collect();
        methods.sort_unstable();
        methods.dedup();
        for method in methods {
            out += method.words();
            out.push('\n');
        }
        out
    }

    /// The same as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("it is plain values with names as keys")
    }
}

impl Change {
    /// The change and its interval.
    fn words(self) -> (String, String) {
        let unit = if self.unit == Unit::Points { "pt" } else { "%" };
        let signed = |value: f64| {
            let rounded = (value * 100.0).round() / 100.0;
            let sign = if rounded > 0.0 { "+" } else { "" };
            // No minus before a zero.
            format!("{sign}{:.2}", rounded + 0.0)
        };
        let interval = format!("{} to {}", signed(self.low), signed(self.high));
        (format!("{} {unit}", signed(self.value)), interval)
    }
}

impl Method {
    const fn words(self) -> &'static str {
        match self {
            Self::Segments => {
                "latency: block bootstrap of the run's segments, 1,000 resamples; drift within the run is in it."
            }
            Self::Counts => {
                "times without segments: bootstrap of single requests, 1,000 resamples; if neighbours are\n\
                 \x20  alike (drift, bursts), these intervals are too narrow."
            }
            Self::Ticks => {
                "rate: block bootstrap of up to some 20 pieces of the run, 1,000 resamples."
            }
            Self::Poisson => "rate without ticks: ratio of Poisson counts.",
            Self::Newcombe => {
                "error share: difference in points, Newcombe's interval; errors that come together make it\n\
                 \x20  too narrow."
            }
        }
    }
}

fn line(out: &mut String, text: &str) {
    // A new line may only come from here.
    let (before, text) = text.strip_prefix('\n').map_or(("", text), |text| ("\n", text));
    let _ = writeln!(out, "{before}{}", printable(text));
}
