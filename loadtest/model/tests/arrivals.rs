//! Arrivals come as their process says. Chance has fixed seeds here: a bound that holds once holds
//! always, and the last test shows that a wrong process would not keep them.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small counts of windows

use std::{iter, time::Duration};

use loadtest_model::{Arrivals, Level, Schedule};

/// Seeds of every statistical test.
const SEEDS: std::ops::Range<u64> = 0..20;
/// Kolmogorov's statistic times the root of the number: 1 of 10,000 right samples exceeds this.
const KS_MOST: f64 = 2.226;

#[test]
fn poisson_gaps_are_exponential_and_as_many_as_asked() {
    let (rate, mut all) = (250.0, 0);
    for seed in SEEDS {
        let times = times(&Arrivals::Poisson { rate_per_s: rate }, seed, 80.0);
        let mean = rate * 80.0;
        assert_near(times.len() as f64, mean, 5.0 * mean.sqrt(), "count");
        let distance = ks_exponential(&gaps(&times), rate);
        assert!(distance < KS_MOST, "seed {seed}: {distance}");
        all += times.len();
    }
    // Together they show a rate that is 1 % off.
    let mean = rate * 80.0 * SEEDS.count() as f64;
    assert_near(all as f64, mean, 5.0 * mean.sqrt(), "count of all");
}

#[test]
fn bursty_arrivals_are_a_poisson_process_while_nothing_changes() {
    // Hardly louder than usual: what is left is each state's own process.
    let rate_per_s = 250.0;
    let arrivals = Arrivals::Bursty { rate_per_s, factor: 1.001, burst_ms: 500, share: 0.5 };
    for seed in SEEDS {
        let distance = ks_exponential(&gaps(&times(&arrivals, seed, 80.0)), rate_per_s);
        assert!(distance < KS_MOST, "seed {seed}: {distance}");
    }
}

#[test]
fn poisson_counts_are_as_scattered_as_large_and_independent() {
    for seed in SEEDS {
        let counts = counts(&times(&Arrivals::Poisson { rate_per_s: 100.0 }, seed, 400.0), 0.1);
        let windows = counts.len() as f64;
        assert_near(dispersion(&counts), 1.0, 5.0 * (2.0 / windows).sqrt(), "dispersion");
        assert_near(lag_1(&counts), 0.0, 4.0 / windows.sqrt(), "correlation");
    }
}

#[test]
fn bursty_arrivals_keep_their_mean_and_come_in_bursts() {
    for (factor, share) in [(3.0, 0.2), (10.0, 0.1), (4.0, 0.05)] {
        let (rate, burst_s, length_s) = (200.0, 0.25, 4000.0);
        let arrivals = Arrivals::Bursty { rate_per_s: rate, factor, burst_ms: 250, share };
        for seed in SEEDS.take(5) {
            let times = times(&arrivals, seed, length_s);
            let quiet = rate * (1.0 - share * factor) / (1.0 - share);
            // Of a two-state process over a time far longer than its states.
            let switching = 1.0 / burst_s + share / (burst_s * (1.0 - share));
            let spread = share * (1.0 - share) * (rate * factor - quiet).powi(2);
            let expected = 1.0 + 2.0 * spread / (switching * rate);
            let mean = rate * length_s;
            assert_near(times.len() as f64, mean, 5.0 * (expected * mean).sqrt(), "count");
            let scattered = dispersion(&counts(&times, 10.0));
            assert!(scattered > 1.5, "factor {factor}: {scattered}");
            assert_near(scattered, expected, 0.35 * expected, "dispersion");
            assert!(lag_1(&counts(&times, 0.1)) > 0.2, "what is loud stays so for a while");
        }
    }
}

#[test]
fn bursty_arrivals_begin_as_if_they_had_been_going_on() {
    let arrivals = Arrivals::Bursty { rate_per_s: 100.0, factor: 5.0, burst_ms: 2000, share: 0.2 };
    let all: usize = (0..2000).map(|seed| times(&arrivals, seed, 1.0).len()).sum();
    // Each run is nearly all loud (500) or all quiet (none): a spread of about 200.
    assert_near(all as f64 / 2000.0, 100.0, 5.0 * 200.0 / 2000_f64.sqrt(), "mean of short runs");
}

#[test]
fn constant_arrivals_do_not_drift() {
    let third = Arrivals::Constant { rate_per_s: 3.0 };
    let mut schedule = Schedule::new(&third, 1, &[]).unwrap();
    assert_eq!(schedule.next(), Some(Duration::ZERO));
    assert_eq!(schedule.next(), Some(Duration::from_nanos(333_333_333)));
    assert_eq!(schedule.nth(300_000 - 2), Some(Duration::from_secs(100_000)));
    assert_eq!(schedule.rate_at(Duration::ZERO), Some(3.0));
}

#[test]
fn steps_have_exact_counts_and_no_gap_or_double_at_their_borders() {
    let levels = steps(&[(100.0, 1000), (250.0, 2000), (0.0, 500), (50.0, 1000)]);
    let times = times(&levels, 1, 5.5);
    let within = |from: f64, to: f64| times.iter().filter(|t| (from..to).contains(*t)).count();
    let found = [within(0.0, 1.0), within(1.0, 3.0), within(3.0, 3.5), within(3.5, 4.5)];
    assert_eq!(found, [100, 500, 0, 50]);
    assert_eq!(within(4.5, 5.5), 50, "the last level stays");
    for (border, before, after) in [(1.0, 0.01, 0.004), (3.5, 0.504, 0.02)] {
        let at = times.iter().position(|time| *time >= border).unwrap();
        assert_near(times[at], border, 1e-8, "first of a level");
        assert_near(times[at] - times[at - 1], before, 1e-8, "gap before the border");
        assert_near(times[at + 1] - times[at], after, 1e-8, "gap after the border");
    }
    let schedule = Schedule::new(&levels, 1, &[]).unwrap();
    let asked = [0, 999, 1000, 3200, 4499, 99_000].map(|ms| schedule.rate_at(millis(ms)));
    assert_eq!(asked, [100.0, 100.0, 250.0, 0.0, 50.0, 50.0].map(Some));
}

#[test]
fn an_arrival_on_its_way_at_a_border_comes_at_the_new_pace() {
    // Three quarters of a gap of 400 ms have passed at 300 ms; the rest takes a tenth of the time.
    let times = times(&steps(&[(2.5, 300), (25.0, 1000)]), 1, 0.37);
    assert_eq!(times.len(), 3, "{times:?}");
    assert_near(times[1], 0.31, 1e-8, "the one on its way");
    assert_near(times[2], 0.35, 1e-8, "the next");
}

#[test]
fn steps_that_end_in_silence_end() {
    let levels = steps(&[(0.0, 100), (10.0, 1000), (0.0, 100)]);
    let all: Vec<Duration> = Schedule::new(&levels, 1, &[]).unwrap().collect();
    assert_eq!(all, Vec::from_iter((0..10).map(|n| millis(100 * (n + 1)))));
}

#[test]
fn recorded_times_come_again_as_fast_as_asked() {
    let trace = [0, 7, 7, 1_234, 90_000].map(millis);
    let replay = |speed| {
        let arrivals = Arrivals::Replay { file: "trace".into(), speed };
        Schedule::new(&arrivals, 1, &trace).unwrap()
    };
    assert_eq!(replay(1.0).collect::<Vec<_>>(), trace);
    assert_eq!(replay(2.0).collect::<Vec<_>>(), trace.map(|time| time / 2));
    assert_eq!(replay(0.5).collect::<Vec<_>>(), trace.map(|time| time * 2));
    assert_eq!(replay(1.0).rate_at(Duration::ZERO), None);
}

#[test]
fn the_seed_decides() {
    let poisson = Arrivals::Poisson { rate_per_s: 10.0 };
    assert_eq!(times(&poisson, 1, 10.0), times(&poisson, 1, 10.0));
    assert_ne!(times(&poisson, 1, 10.0), times(&poisson, 2, 10.0));
}

#[test]
fn a_wrong_process_keeps_none_of_the_bounds() {
    let even = times(&Arrivals::Constant { rate_per_s: 250.0 }, 1, 80.0);
    assert!(ks_exponential(&gaps(&even), 250.0) > 10.0 * KS_MOST, "even gaps");
    let slower = times(&Arrivals::Poisson { rate_per_s: 240.0 }, 1, 80.0);
    assert!(ks_exponential(&gaps(&slower), 250.0) > KS_MOST, "4 % too slow");
    assert!((slower.len() as f64 - 20_000.0).abs() > 5.0 * 20_000_f64.sqrt(), "4 % too few");
    assert!(dispersion(&counts(&even, 0.1)) < 0.1, "even counts");
    let bursty = Arrivals::Bursty { rate_per_s: 250.0, factor: 3.0, burst_ms: 500, share: 0.2 };
    let bursty = times(&bursty, 1, 80.0);
    assert!(ks_exponential(&gaps(&bursty), 250.0) > KS_MOST, "bursts");
    assert!(lag_1(&counts(&bursty, 0.1)) > 4.0 / 800_f64.sqrt(), "bursts");
}

/// Times before an end, seconds.
fn times(arrivals: &Arrivals, seed: u64, end_s: f64) -> Vec<f64> {
    let schedule = Schedule::new(arrivals, seed, &[]).expect("its values are good");
    schedule.map(|time| time.as_secs_f64()).take_while(|time| *time < end_s).collect()
}

fn gaps(times: &[f64]) -> Vec<f64> {
    iter::once(times[0]).chain(times.windows(2).map(|two| two[1] - two[0])).collect()
}

/// How many fall into each of the windows that are full.
fn counts(times: &[f64], window_s: f64) -> Vec<f64> {
    let windows = (times[times.len() - 1] / window_s).floor();
    let mut counts = vec![0.0; windows as usize];
    for time in times {
        if let Some(count) = counts.get_mut((time / window_s) as usize) {
            *count += 1.0;
        }
    }
    counts
}

/// Largest distance between the distribution of gaps and the exponential one, times the root of
/// their number.
fn ks_exponential(gaps: &[f64], rate: f64) -> f64 {
    let mut sorted = gaps.to_vec();
    sorted.sort_by(f64::total_cmp);
    let number = sorted.len() as f64;
    let distances = sorted.iter().enumerate().map(|(index, gap)| {
        let expected = 1.0 - (-rate * gap).exp();
        let (below, above) = (index as f64 / number, (index + 1) as f64 / number);
        (expected - below).abs().max((above - expected).abs())
    });
    distances.fold(0.0, f64::max) * number.sqrt()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Variance by mean: 1 of a Poisson process.
fn dispersion(counts: &[f64]) -> f64 {
    let mean = mean(counts);
    let squares: f64 = counts.iter().map(|count| (count - mean).powi(2)).sum();
    squares / (counts.len() as f64 - 1.0) / mean
}

/// Correlation of each count with the next.
fn lag_1(counts: &[f64]) -> f64 {
    let mean = mean(counts);
    let squares: f64 = counts.iter().map(|count| (count - mean).powi(2)).sum();
    counts.windows(2).map(|two| (two[0] - mean) * (two[1] - mean)).sum::<f64>() / squares
}

fn steps(levels: &[(f64, u64)]) -> Arrivals {
    let level =
        |(rate_per_s, for_ms): &(f64, u64)| Level { rate_per_s: *rate_per_s, for_ms: *for_ms };
    Arrivals::Steps { levels: levels.iter().map(level).collect() }
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[track_caller]
fn assert_near(found: f64, expected: f64, within: f64, what: &str) {
    assert!((found - expected).abs() <= within, "{what}: {found}, not {expected} +- {within}");
}
