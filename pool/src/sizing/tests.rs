//! What must hold of a target, whatever the callers do?

use std::time::Duration;

use proptest::prelude::*;

use super::{Demand, Sizing};

fn sizing() -> Sizing {
    Sizing {
        min_warm: 0,
        max_warm: 1000,
        burst: 0,
        idle_ttl: Duration::from_secs(600),
        refill_concurrency: 256,
    }
}

fn secs(value: f64) -> Duration {
    Duration::from_secs_f64(value)
}

/// A demand with a refill time of 400 ms that saw callers at these times.
fn seen(times: &[f64]) -> Demand {
    let mut demand = Demand::new();
    demand.restored(Duration::from_millis(400));
    times.iter().for_each(|&at| demand.arrived(secs(at)));
    demand
}

/// Poisson arrivals by a small linear congruential generator.
fn poisson(rate: f64, until: f64, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(3_037_000_493);
    let mut at = 0.0;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        at -= (1.0 - (state >> 11) as f64 / (1_u64 << 53) as f64).ln() / rate;
        Some(at)
    };
    std::iter::from_fn(next).take_while(|&at| at < until).collect()
}

/// The size at which one more saves fewer than one caller in `patience` seconds, by definition.
fn ideal(rate: f64, refill: f64, patience: f64) -> u32 {
    let mean = rate * refill;
    let (mut probability, mut below, mut n) = ((-mean).exp(), 0.0, 0);
    loop {
        below += probability;
        if rate * probability < below / patience {
            return n;
        }
        n += 1;
        probability *= mean / f64::from(n);
    }
}

#[test]
fn before_the_first_caller_the_minimum_is_kept() {
    let target = Demand::new().target(&Sizing { min_warm: 3, ..sizing() }, secs(100.0));
    assert_eq!(target.warm, 3);
    assert!(target.review_at > secs(100.0));
}

#[test]
fn a_constant_rate_settles_at_little_and_its_margin() {
    for rate in [2.0, 20.0, 100.0] {
        let demand = seen(&poisson(rate, 900.0, 7));
        let (warm, ideal) = (
            f64::from(demand.target(&sizing(), secs(900.0)).warm),
            f64::from(ideal(rate, 0.4, 600.0)),
        );
        let slack = (0.2 * ideal).max(1.0);
        assert!((warm - ideal).abs() <= slack, "{rate}/s: {warm}, ideal {ideal}");
    }
}

#[test]
fn a_constant_rate_s_target_is_held_until_the_rate_changes() {
    let mut changes = 0;
    for seed in 1..=8 {
        let times = poisson(20.0, 1200.0, seed);
        let mut demand = seen(&[]);
        let mut last = 0_u32;
        for &at in &times {
            demand.arrived(secs(at));
            demand.restored(Duration::from_millis(if at % 0.02 < 0.01 { 340 } else { 460 }));
            let warm = demand.target(&sizing(), secs(at)).warm;
            changes += u32::from(at > 300.0 && warm != last);
            last = warm;
        }
        // Half as many again: not far from what that asks for within 20 seconds.
        let more: Vec<f64> = poisson(30.0, 20.0, seed).iter().map(|at| 1200.0 + at).collect();
        more.iter().for_each(|&at| demand.arrived(secs(at)));
        let warm = demand.target(&sizing(), secs(1220.0)).warm;
        let wanted = ideal(30.0, 0.4, 600.0);
        assert!(warm + 2 >= wanted && warm > last, "seed {seed}: {last}, {warm} of {wanted}");
    }
    assert!(changes <= 40, "{changes} changes in eight quarters of an hour");
}

#[test]
fn a_target_holds_while_its_revision_does() {
    let mut demand = Demand::new();
    let mut held: Option<(u64, super::Target)> = None;
    for &at in &poisson(3.0, 300.0, 11) {
        demand.arrived(secs(at));
        demand.restored(Duration::from_millis(400));
        let (revision, target) = (demand.revision(), demand.target(&sizing(), secs(at)));
        match held {
            Some((of, held)) if of == revision && secs(at) < held.review_at => {
                assert_eq!(held.warm, target.warm, "at {at}");
            }
            _ => held = Some((revision, target)),
        }
    }
}

#[test]
fn surplus_goes_soon_once_there_were_callers_and_never_later_than_the_idle_ttl() {
    let short = Sizing { idle_ttl: Duration::from_millis(300), ..sizing() };
    assert_eq!(Demand::new().grace(&sizing()), sizing().idle_ttl);
    let demand = seen(&[1.0]);
    assert_eq!(demand.grace(&sizing()), secs(1.0));
    assert_eq!(demand.grace(&short), short.idle_ttl);
}

#[test]
fn before_the_first_caller_only_hours_of_patience_keep_one_and_not_for_ever() {
    let demand = Demand::new();
    let patient = Sizing { idle_ttl: secs(20_000.0), ..sizing() };
    let at = |sizing: &Sizing, at: f64| demand.target(sizing, secs(at)).warm;
    assert_eq!((at(&sizing(), 0.0), at(&sizing(), 500.0)), (0, 0));
    assert_eq!((at(&patient, 0.0), at(&patient, 1000.0), at(&patient, 20_000.0)), (1, 1, 0));
}

#[test]
fn a_crowd_is_answered_within_two_seconds_and_let_go_slowly() {
    let mut demand = seen(&poisson(0.5, 600.0, 5));
    let before = demand.target(&sizing(), secs(600.0)).warm;
    for n in 0..100 {
        demand.arrived(secs(600.0 + f64::from(n) * 0.02));
    }
    let within = demand.target(&sizing(), secs(602.0)).warm;
    assert!(before < 8 && within >= 20, "{before}, then {within}");
    let soon = demand.target(&sizing(), secs(602.3)).warm;
    assert!(soon * 2 > within, "{within}, {soon} a moment later");
}

#[test]
fn a_clockwork_function_is_warm_when_it_is_due_and_not_between() {
    let times: Vec<f64> = (0..20).map(|n| 100.0 + 3600.0 * f64::from(n)).collect();
    let demand = seen(&times);
    let last = 100.0 + 3600.0 * 19.0;
    let at = |after: f64| demand.target(&sizing(), secs(last + after));
    assert_eq!(at(1800.0).warm, 0, "half-way");
    assert_eq!(at(3599.0).warm, 1, "due");
    let review = at(1800.0).review_at.as_secs_f64() - last;
    assert!((3000.0..3600.0).contains(&review), "asked again {review} s after the last");
    assert_eq!(at(9000.0).warm, 0, "it did not come");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn target_is_within_its_limits_and_rises_with_burst(
        gaps in prop::collection::vec(0.0..100.0_f64, 0..200),
        scale in 0.001..10.0_f64,
        (min_warm, above, burst, more) in (0..20_u32, 0..50_u32, 0..20_u32, 0..20_u32),
        after in 0.0..2000.0_f64,
    ) {
        let mut at = 0.0;
        let times: Vec<f64> = gaps.iter().map(|gap| { at += gap * scale; at }).collect();
        let demand = seen(&times);
        let now = secs(at + after);
        let one = Sizing { min_warm, max_warm: min_warm + above, burst, ..sizing() };
        let target = demand.target(&one, now);
        prop_assert!((min_warm..=min_warm + above).contains(&target.warm));
        prop_assert!(target.review_at > now);
        let higher = demand.target(&Sizing { burst: burst + more, ..one }, now);
        prop_assert!(higher.warm >= target.warm);
    }

    #[test]
    fn patience_never_lowers_the_target(rate in 0.1..50.0_f64, seed: u64, part in 0.01..1.0_f64) {
        let demand = seen(&poisson(rate, 200.0, seed));
        let at = |patience| demand.target_at(&sizing(), secs(patience), secs(200.0)).warm;
        prop_assert!(at(600.0 * part) <= at(600.0));
    }

    #[test]
    fn without_callers_the_minimum_is_reached_within_the_idle_ttl(
        rate in 0.02..50.0_f64, seed: u64, idle_ttl in 1.0..900.0_f64, min_warm in 0..3_u32,
    ) {
        let times = poisson(rate, 300.0, seed);
        let demand = seen(&times);
        let last = times.last().copied().unwrap_or(0.0);
        let limits = Sizing { min_warm, idle_ttl: secs(idle_ttl), ..sizing() };
        // Later it may be warm again before an expected caller, never for as long as the TTL.
        let mut warm_for = 0.0;
        for step in 0..400 {
            let after = idle_ttl * (1.0 + f64::from(step) * 0.05) + 0.001;
            let over = demand.target(&limits, secs(last + after)).warm > min_warm;
            prop_assert!(step > 0 || !over);
            warm_for = if over { warm_for + 0.05 } else { 0.0 };
            prop_assert!(warm_for <= 1.1, "warm for {warm_for} TTL");
        }
    }
}

#[test]
fn a_pool_costs_less_than_two_kibibytes() {
    assert!(size_of::<Demand>() <= 2048, "{}", size_of::<Demand>());
}
