//! The figures of a part, compared.

use std::collections::BTreeSet;

use loadtest_model::{Histogram, Part, Tick, names};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::{
    bootstrap::{Blocks, Counts, Statistic, interval, resample_ratio},
    result::{Change, Method, Row, Unit, Verdict},
};

/// Chance begins here, always.
const SEED: u64 = 0x7772_656e_6e00;
/// Segments with samples, or ticks, without which they are no sample of how a run goes.
const BLOCKS_MIN: usize = 10;
/// Blocks that the ticks of a part are joined to: neighbouring seconds are alike.
const TICK_BLOCKS: usize = 20;
/// The normal distribution's middle 95 % end here.
const Z: f64 = 1.96;

const ALL: [(&str, Statistic); 4] = [
    ("p50", Statistic::Quantile(0.5)),
    ("p90", Statistic::Quantile(0.9)),
    ("p99", Statistic::Quantile(0.99)),
    ("mean", Statistic::Mean),
];
const FEW: [(&str, Statistic); 2] =
    [("p50", Statistic::Quantile(0.5)), ("p99", Statistic::Quantile(0.99))];

/// All rows of a part that both runs have.
pub(super) fn of(a: &Part, b: &Part) -> Vec<Row> {
    let mut rows = timing(a, b, names::LATENCY, &ALL);
    rows.extend(timing(a, b, names::SERVICE, &ALL));
    let own = |name: &&String| name.starts_with("server.") || name.starts_with("step.");
    let both: BTreeSet<&String> = a.timings.keys().chain(b.timings.keys()).filter(own).collect();
    for name in both {
        rows.extend(timing(a, b, name, &FEW));
    }
    rows.push(rate(a, b));
    rows.push(error_share(a, b));
    rows
}

/// Chance for one row, whatever other rows there are.
fn chance(part: &Part, figure: &str) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let name = part.id() + figure;
    // FNV-1a: any spread of names over streams does.
    let stream = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    rng.set_stream(stream);
    rng
}

fn timing(a: &Part, b: &Part, name: &str, statistics: &[(&str, Statistic)]) -> Vec<Row> {
    let none = Histogram::default();
    let find = |part: &Part| part.timings.get(name).cloned().unwrap_or_else(|| none.clone());
    let (in_a, in_b) = (find(a), find(b));
    if in_a.is_empty() && in_b.is_empty() {
        return Vec::new();
    }
    let (counts_a, counts_b) = (Counts::of(&in_a), Counts::of(&in_b));
    let blocks = Some((Blocks::of(&a.segments), Blocks::of(&b.segments)))
        .filter(|(a, b)| name == names::LATENCY && a.len() >= BLOCKS_MIN && b.len() >= BLOCKS_MIN);
    let mut rng = chance(a, name);
    let only: Vec<Statistic> = statistics.iter().map(|(_, statistic)| *statistic).collect();
    let drawn = blocks.map(|(a, b)| (a.resample(&only, &mut rng), b.resample(&only, &mut rng)));
    let method = if drawn.is_some() { Method::Segments } else { Method::Counts };
    let mut rows = Vec::new();
    for (at, (short, statistic)) in statistics.iter().enumerate() {
        let samples = (in_a.len(), in_b.len());
        let (before, after) = (counts_a.value(*statistic), counts_b.value(*statistic));
        let enough = statistic.is_backed_by(samples.0) && statistic.is_backed_by(samples.1);
        let range = match &drawn {
            _ if !enough => None,
            Some((a, b)) => interval(&a[at], &b[at]),
            None => {
                let mut rng = chance(a, &format!("{name} {short}"));
                let drawn_a = counts_a.resample(*statistic, &mut rng);
                interval(&drawn_a, &counts_b.resample(*statistic, &mut rng))
            }
        };
        let value = before.zip(after).filter(|(a, _)| *a > 0.0).map(|(a, b)| b / a - 1.0);
        let figure = format!("{name} {short}");
        let change = percent(value, range);
        rows.push(row(a, figure, Unit::Ms, (before, after), samples, change, method, false));
    }
    rows
}

/// A change as a share, in percent; none if it or its interval is not known.
fn percent(value: Option<f64>, range: Option<(f64, f64)>) -> Option<Change> {
    let (value, (low, high)) = value.zip(range)?;
    let all = [value, low, high].map(|share| share * 100.0);
    all.iter().all(|share| share.is_finite()).then_some(Change {
        value: all[0],
        low: all[1],
        high: all[2],
        unit: Unit::Percent,
    })
}

fn rate(a: &Part, b: &Part) -> Row {
    let figure = "rate";
    let samples = (a.succeeded, b.succeeded);
    let values = (a.rate(), b.rate());
    let value = (values.0 > 0.0).then(|| values.1 / values.0 - 1.0);
    let (pairs_a, pairs_b) = (pairs(&a.ticks), pairs(&b.ticks));
    let mut rng = chance(a, figure);
    let enough = samples.0 >= super::SAMPLES_MIN && samples.1 >= super::SAMPLES_MIN;
    let (range, method) = if pairs_a.len() >= BLOCKS_MIN && pairs_b.len() >= BLOCKS_MIN {
        let drawn = resample_ratio(&pairs_a, &mut rng);
        (interval(&drawn, &resample_ratio(&pairs_b, &mut rng)), Method::Ticks)
    } else {
        // The logarithm of a ratio of two Poisson counts is nearly normal.
        let spread = Z * (1.0 / samples.0 as f64 + 1.0 / samples.1 as f64).sqrt();
        let range = value.map(|value| {
            let ratio = 1.0 + value;
            (ratio * (-spread).exp() - 1.0, ratio * spread.exp() - 1.0)
        });
        (range, Method::Poisson)
    };
    let change = percent(value, range.filter(|_| enough));
    let values = (Some(values.0), Some(values.1));
    row(a, figure.to_owned(), Unit::PerSecond, values, samples, change, method, true)
}

/// Good answers and seconds of blocks of ticks.
fn pairs(ticks: &[Tick]) -> Vec<(f64, f64)> {
    if ticks.len() < BLOCKS_MIN {
        return Vec::new();
    }
    let sum = |ticks: &[Tick]| {
        let good: u64 = ticks.iter().map(|tick| tick.succeeded).sum();
        (good as f64, ticks.iter().map(|tick| tick.length_s.max(0.0)).sum())
    };
    // As many as there may be, but never so few that they are none.
    let each = (ticks.len() / TICK_BLOCKS).max(1);
    ticks.chunks(each).map(sum).filter(|(_, seconds)| *seconds > 0.0).collect()
}

fn error_share(a: &Part, b: &Part) -> Row {
    let samples = (a.sent, b.sent);
    let share = |part: &Part| {
        (part.sent > 0).then(|| (part.failed() as f64 / part.sent as f64).min(1.0) * 100.0)
    };
    let values = (share(a), share(b));
    let enough = samples.0 >= super::SAMPLES_MIN && samples.1 >= super::SAMPLES_MIN;
    let change = values.0.zip(values.1).filter(|_| enough).map(|(p, q)| {
        let (p_low, p_high) = wilson(p / 100.0, samples.0 as f64);
        let (q_low, q_high) = wilson(q / 100.0, samples.1 as f64);
        // Newcombe's: the difference's bounds from those of both shares.
        let (p, q) = (p / 100.0, q / 100.0);
        let low = (q - p) - (q - q_low).hypot(p_high - p);
        let high = (q - p) + (q_high - q).hypot(p - p_low);
        Change { value: (q - p) * 100.0, low: low * 100.0, high: high * 100.0, unit: Unit::Points }
    });
    let figure = "error share".to_owned();
    row(a, figure, Unit::Percent, values, samples, change, Method::Newcombe, false)
}

/// Wilson's bounds of a share of `n`.
fn wilson(share: f64, n: f64) -> (f64, f64) {
    let z2 = Z * Z;
    let middle = share + z2 / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    let by = 1.0 + z2 / n;
    (((middle - spread) / by).clamp(0.0, share), ((middle + spread) / by).clamp(share, 1.0))
}

#[allow(clippy::too_many_arguments)] // the fields of a row, and which way is good
fn row(
    part: &Part,
    figure: String,
    unit: Unit,
    values: (Option<f64>, Option<f64>),
    samples: (u64, u64),
    change: Option<Change>,
    method: Method,
    more_is_better: bool,
) -> Row {
    let verdict = match change {
        None => Verdict::TooFew,
        Some(change) if change.low <= 0.0 && change.high >= 0.0 => Verdict::NoDifference,
        Some(change) if (change.low > 0.0) == more_is_better => Verdict::Better,
        Some(_) => Verdict::Worse,
    };
    Row {
        part: part.id(),
        figure,
        unit,
        a: values.0,
        b: values.1,
        change,
        samples_a: samples.0,
        samples_b: samples.1,
        method,
        verdict,
    }
}
