//! What holds for every schedule, whatever its process.

use std::time::Duration;

use loadtest_model::{Arrivals, Level, Schedule};
use proptest::prelude::*;

fn any_arrivals() -> impl Strategy<Value = Arrivals> {
    let rate = 0.01..100_000.0_f64;
    let level = (prop_oneof![Just(0.0), rate.clone()], 1_u64..20_000)
        .prop_map(|(rate_per_s, for_ms)| Level { rate_per_s, for_ms });
    let levels = prop::collection::vec(level, 1..6)
        .prop_filter("some rate", |levels| levels.iter().any(|level| level.rate_per_s > 0.0));
    let bursty = (rate.clone(), 1.001..50.0_f64, 1_u64..5000, 0.001..=1.0_f64);
    prop_oneof![
        rate.clone().prop_map(|rate_per_s| Arrivals::Constant { rate_per_s }),
        rate.prop_map(|rate_per_s| Arrivals::Poisson { rate_per_s }),
        bursty.prop_map(|(rate_per_s, factor, burst_ms, part)| {
            let share = 0.999 * part / factor;
            Arrivals::Bursty { rate_per_s, factor, burst_ms, share }
        }),
        levels.prop_map(|levels| Arrivals::Steps { levels }),
        (0.01..100.0_f64).prop_map(|speed| Arrivals::Replay { file: "trace".into(), speed }),
    ]
}

fn any_trace() -> impl Strategy<Value = Vec<Duration>> {
    prop::collection::vec(0_u64..3_600_000_000_000, 1..300).prop_map(|mut times| {
        times.sort_unstable();
        times.into_iter().map(Duration::from_nanos).collect()
    })
}

proptest! {
    #[test]
    fn times_never_go_back(arrivals in any_arrivals(), seed: u64, trace in any_trace()) {
        let times: Vec<_> = Schedule::new(&arrivals, seed, &trace).unwrap().take(1000).collect();
        prop_assert!(times.is_sorted(), "{times:?}");
    }

    #[test]
    fn one_seed_has_one_stream(arrivals in any_arrivals(), seed: u64, trace in any_trace()) {
        let schedule = || Schedule::new(&arrivals, seed, &trace).unwrap().take(300);
        prop_assert!(schedule().eq(schedule()));
    }

    #[test]
    fn workers_share_the_stream_without_loss_or_double(
        arrivals in any_arrivals(), seed: u64, trace in any_trace(), workers in 1_usize..9,
    ) {
        let schedule = Schedule::new(&arrivals, seed, &trace).unwrap();
        let whole: Vec<_> = schedule.clone().take(workers * 40).collect();
        let mut shares: Vec<_> =
            (0..workers).map(|index| schedule.clone().worker(index, workers)).collect();
        let merged: Vec<_> =
            (0..whole.len()).map_while(|number| shares[number % workers].next()).collect();
        prop_assert_eq!(&merged, &whole);
        if whole.len() < workers * 40 {
            prop_assert!(shares.iter_mut().all(|share| share.next().is_none()));
        }
    }

    #[test]
    fn shares_can_be_shared_again(seed: u64) {
        let whole = Schedule::new(&Arrivals::Poisson { rate_per_s: 5.0 }, seed, &[]).unwrap();
        let twice = whole.clone().worker(1, 2).worker(2, 3);
        prop_assert!(twice.take(20).eq(whole.worker(5, 6).take(20)));
    }

    #[test]
    fn constant_counts_are_exact(rate in 0.01..50_000.0_f64, length in 0.1..20.0_f64) {
        let schedule = Schedule::new(&Arrivals::Constant { rate_per_s: rate }, 1, &[]).unwrap();
        let count = schedule.take_while(|time| time.as_secs_f64() < length).count();
        prop_assert!((count as f64 - rate * length).abs() <= 1.0, "{count}");
    }

    #[test]
    fn levels_of_whole_counts_are_exact(
        levels in prop::collection::vec((0_u32..300, 1_u64..20), 1..8), tail in 1_u32..300,
    ) {
        // Tenths of seconds at multiples of ten per second.
        let mut all: Vec<_> = levels.iter().map(|(tens, tenths)| Level {
            rate_per_s: f64::from(*tens) * 10.0, for_ms: tenths * 100,
        }).collect();
        all.push(Level { rate_per_s: f64::from(tail), for_ms: 1000 });
        let times = Schedule::new(&Arrivals::Steps { levels: all }, 1, &[]).unwrap();
        let mut times = times.peekable();
        let mut end_ms = 0;
        for (tens, tenths) in levels {
            end_ms += tenths * 100;
            let end = Duration::from_millis(end_ms);
            let mut count = 0;
            while times.next_if(|time| *time < end).is_some() {
                count += 1;
            }
            prop_assert_eq!(count, u64::from(tens) * tenths);
        }
    }
}

#[test]
fn values_that_cannot_be_are_refused_by_their_place() {
    let bursty = |factor, share| Arrivals::Bursty { rate_per_s: 10.0, factor, burst_ms: 10, share };
    let steps = |rate_per_s, for_ms| Arrivals::Steps {
        levels: vec![Level { rate_per_s: 1.0, for_ms: 1 }, Level { rate_per_s, for_ms }],
    };
    let rate = "expected a number above 0 and at most 1000000";
    for (arrivals, message) in [
        (Arrivals::Constant { rate_per_s: -3.0 }, format!("rate_per_s: -3; {rate}")),
        (Arrivals::Poisson { rate_per_s: f64::NAN }, format!("rate_per_s: NaN; {rate}")),
        (Arrivals::Poisson { rate_per_s: 1e7 }, format!("rate_per_s: 10000000; {rate}")),
        (bursty(1.0, 0.5), "factor: 1; expected a number above 1 and at most 1000".into()),
        (bursty(2.0, 1.0), "share: 1; expected between 0 and 1".into()),
        (bursty(4.0, 0.3), "share: 0.3; expected at most 1 / factor, 0.25".into()),
        (steps(-1.0, 1), "levels[1].rate_per_s: -1; expected a number from 0 to 1000000".into()),
        (steps(1.0, 0), "levels[1].for_ms: 0; expected 1 to 86400000".into()),
        (Arrivals::Steps { levels: Vec::new() }, "levels: 0; expected 1 to 1000".into()),
        (
            Arrivals::Steps { levels: vec![Level { rate_per_s: 0.0, for_ms: 1 }] },
            "levels: all silent; expected a rate above 0 in one of them".into(),
        ),
        (Arrivals::Replay { file: "trace".into(), speed: 0.0 }, format!("speed: 0; {rate}")),
    ] {
        assert_eq!(Schedule::new(&arrivals, 1, &[]).unwrap_err().to_string(), message);
    }
}

#[test]
fn recorded_times_have_to_be_there_and_ascend() {
    let replay = Arrivals::Replay { file: "trace".into(), speed: 1.0 };
    let refused = |trace: &[Duration]| Schedule::new(&replay, 1, trace).unwrap_err().to_string();
    assert_eq!(refused(&[]), "file: no times; expected at least one");
    let trace = [3, 5, 4].map(Duration::from_secs);
    assert_eq!(refused(&trace), "file[2]: earlier than the one before; expected ascending times");
}
