//! When arrivals come, and what a run keeps of them.

use std::time::Duration;

use loadtest::Runner;
use loadtest_model::{Arrivals, Budgets, Level, Load, Share, Work, names};
use tokio_util::sync::CancellationToken;

use crate::peer::{Peer, each, requests, run, scenario};

fn open(arrivals: Arrivals, duration_ms: u64) -> Load {
    Load::Open { arrivals, duration_ms, max_in_flight: 512 }
}

#[tokio::test]
async fn open_loops_send_what_was_planned_whatever_the_answers_do() {
    let peer = Peer::start().await;
    let constant = open(Arrivals::Constant { rate_per_s: 100.0 }, 1000);
    let report = peer.run(Work::get("/delay?ms=300"), constant).await;
    each(&report, |part| {
        assert_eq!((part.planned, part.succeeded), (100, 100));
        // One after the other they would have taken 30 s.
        assert!(part.duration_s < 15.0, "{}", part.duration_s);
        assert!(part.timings[names::LATENCY].quantile_ms(0.01) >= 295.0);
    });
    assert_eq!(report.harness.timed_sends, 300);
}

#[tokio::test]
async fn steps_have_figures_of_each_level() {
    let peer = Peer::start().await;
    let levels = [20.0, 40.0, 80.0].map(|rate_per_s| Level { rate_per_s, for_ms: 500 });
    let steps = open(Arrivals::Steps { levels: levels.into() }, 1500);
    let report = peer.run(Work::get("/"), steps).await;
    each(&report, |part| {
        assert_eq!(part.planned, 70);
        let counts: Vec<_> = part.segments.iter().map(loadtest_model::Histogram::len).collect();
        assert_eq!(counts, [10, 20, 40]);
        assert!((part.extra["level2.asked_per_s"] - 40.0).abs() < 1e-9);
        assert!(part.extra.contains_key("level3.p99_ms"));
    });
}

#[tokio::test]
async fn traces_are_replayed_and_staggered_loads_counted() {
    let peer = Peer::start().await;
    let file = peer.dir().join("trace.txt");
    std::fs::write(&file, "# three\n0\n0.1\n0.4\n").unwrap();
    let replay = Arrivals::Replay { file: file.clone(), speed: 2.0 };
    let report = peer.run(Work::get("/"), open(replay, 10_000)).await;
    each(&report, |part| {
        assert_eq!(part.succeeded, 3);
        assert!(part.duration_s >= 0.2, "{}", part.duration_s);
    });
    let report = peer.run(Work::get("/"), Load::Staggered { count: 5, delay_ms: 50 }).await;
    each(&report, |part| {
        assert_eq!(part.succeeded, 5);
        assert!(part.extra["wall_clock_ms"] >= 200.0);
    });
    let gone = Arrivals::Replay { file: peer.dir().join("gone"), speed: 1.0 };
    let plan = peer.plan(vec![scenario("test", Work::get("/"), open(gone, 1000))]);
    let error = Runner::new(plan, Budgets::default()).unwrap_err().to_string();
    assert!(error.contains("gone"), "{error}");
}

#[tokio::test]
async fn a_closed_loop_has_no_more_under_way_than_users() {
    let peer = Peer::start().await;
    let load = Load::Closed { concurrency: 3, duration_ms: Some(700), requests: None };
    let mut plan = peer.plan(vec![scenario("test", Work::get("/delay?ms=20"), load)]);
    (plan.warmup_ms, plan.rounds, plan.workers) = (100, 2, 2);
    let report = run(plan).await;
    each(&report, |part| {
        assert!(part.succeeded > 0 && part.failed() == 0);
        assert!(part.warmup_requests > 0);
        assert!(part.ticks.iter().all(|tick| tick.in_flight <= 3), "{:?}", part.ticks);
        let ended: u64 = part.ticks.iter().map(|tick| tick.succeeded).sum();
        assert_eq!(ended, part.succeeded, "every answer is in one step");
        assert!(part.ticks.windows(2).all(|pair| pair[0].at_s < pair[1].at_s));
        assert!(part.duration_s >= 1.4, "two rounds of 0.7 s: {}", part.duration_s);
    });
}

#[tokio::test]
async fn a_mix_keeps_to_its_weights() {
    let peer = Peer::start().await;
    let of = vec![
        Share { weight: 3.0, work: Work::get("/") },
        Share { weight: 1.0, work: Work::get("/status?code=404") },
    ];
    let report = peer.run(Work::Mix { of }, requests(400)).await;
    each(&report, |part| {
        let other = part.errors["status_404"];
        // Five standard deviations of a binomial with n = 400 and p = 1/4.
        assert!((57..=143).contains(&other), "{other}");
        assert_eq!(part.succeeded + other, 400);
    });
}

#[tokio::test]
async fn what_waits_for_a_place_is_named_as_held_back() {
    let peer = Peer::start().await;
    let arrivals = Arrivals::Constant { rate_per_s: 100.0 };
    let load = Load::Open { arrivals, duration_ms: 500, max_in_flight: 1 };
    let report = peer.run(Work::get("/delay?ms=50"), load).await;
    each(&report, |part| {
        assert_eq!(part.succeeded, 50);
        // 50 requests of 50 ms one after the other: the last waited for seconds, and that counts.
        assert!(part.timings[names::LATENCY].summary().max_ms > 1500.0);
        assert!(part.timings[names::SERVICE].quantile_ms(0.5) < 1500.0);
    });
    assert!(report.harness.held_back > 100);
    assert!(report.harness.bottlenecks.iter().any(|text| text.contains("max_in_flight")));
}

#[tokio::test]
async fn an_interrupted_run_gives_what_was_measured() {
    let peer = Peer::start().await;
    let load = open(Arrivals::Constant { rate_per_s: 50.0 }, 600_000);
    let plan = peer.plan(vec![scenario("test", Work::get("/"), load)]);
    let cancel = CancellationToken::new();
    let runner = Runner::new(plan, Budgets::default()).unwrap();
    let mut progress = runner.progress();
    let (report, ()) = tokio::join!(runner.run(&cancel), async {
        progress.wait_for(|shown| shown.succeeded >= 20).await.unwrap();
        cancel.cancel();
    });
    let report = report.unwrap();
    assert!(report.parts[0].succeeded >= 20);
    assert!(report.harness.bottlenecks.iter().any(|text| text.contains("interrupted")));
    assert!(report.took_s < Duration::from_secs(300).as_secs_f64());
}

#[tokio::test]
async fn thousands_of_connections_are_held_at_once() {
    let peer = Peer::start().await;
    // As many users as the server's and this process's files allow in a test.
    let load = Load::Closed { concurrency: 1500, duration_ms: None, requests: Some(4500) };
    let mut plan = peer.plan(vec![scenario("test", Work::get("/delay?ms=200"), load)]);
    plan.target.url = Some(format!("http://{}/", peer.clear()));
    plan.target.ca_file = None;
    plan.protocols = vec![loadtest::Protocol::H1];
    let report = run(plan).await;
    let part = &report.parts[0];
    assert_eq!((part.succeeded, part.failed()), (4500, 0), "{:?}", part.samples);
    assert!(part.connections >= 1500, "{}", part.connections);
}
