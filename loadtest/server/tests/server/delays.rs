//! Delays are what they say, and a stall holds up everybody.

use std::time::{Duration, Instant};

use http::{Request, StatusCode};

use crate::{
    client::{ALL, Client, Proto, timing},
    start,
};

/// For what may come late on a busy machine, but not by any amount.
const SLACK: Duration = Duration::from_secs(5);

#[tokio::test]
async fn delays_take_what_is_reported_and_no_less_than_asked() {
    let server = start().await;
    for proto in ALL {
        let mut client = Client::new(&server, proto).await;
        for (name, ms) in [("ms", 0.0), ("ms", 1.25), ("first_ms", 20.5)] {
            let answer = client.get(&format!("/delay?{name}={ms}")).await;
            let asked = Duration::from_secs_f64(ms / 1e3);
            let reported = timing(&answer.headers, "delay");
            assert_eq!((answer.status, answer.text()), (StatusCode::OK, "ok\n"), "{proto:?}");
            assert!(reported >= asked && reported < asked + SLACK, "{proto:?}: {reported:?}");
            // Four decimals of a millisecond may be rounded up.
            let seen = answer.head_after + Duration::from_nanos(50);
            assert!(seen >= reported, "{proto:?}: {seen:?} for {reported:?}");
            assert!(seen < reported + SLACK, "{proto:?}: {seen:?} for {reported:?}");
        }
    }
}

#[tokio::test]
async fn bodies_come_in_two_halves_if_asked_for() {
    let server = start().await;
    for proto in ALL {
        let mut client = Client::new(&server, proto).await;
        let path = "/delay?ms=3&last_ms=40&body=1000";
        let request = Request::get(path).header("te", "trailers").body(bytes::Bytes::new());
        let answer = client.send(request.unwrap()).await;
        assert!(answer.is_whole && answer.body.len() == 1000, "{proto:?}: {answer:?}");
        assert!(timing(&answer.headers, "delay") >= Duration::from_millis(3));
        assert_eq!(timing(&answer.headers, "last"), Duration::from_millis(40));
        let trailers = answer.trailers.unwrap_or_else(|| panic!("{proto:?} has trailers"));
        assert!(timing(&trailers, "last") >= Duration::from_millis(40), "{trailers:?}");
        assert!(answer.end_after >= Duration::from_millis(43), "{:?}", answer.end_after);
    }
}

#[tokio::test]
async fn heads_come_before_a_late_rest() {
    let server = start().await;
    for proto in ALL {
        let mut client = Client::new(&server, proto).await;
        // The head is there while the rest is far off: no delay of the machine is that long.
        let answer = client.get("/delay?last_ms=1500").await;
        let between = answer.end_after - answer.head_after;
        assert!(between > Duration::from_millis(500), "{proto:?}: {between:?}");
        assert_eq!(answer.text(), "ok\n");
    }
}

#[tokio::test]
async fn a_stall_holds_up_all_protocols_until_its_end() {
    const LENGTH: Duration = Duration::from_secs(3);
    let server = start().await;
    for (nth, proto) in ALL.into_iter().enumerate() {
        let mut stalling = Client::new(&server, Proto::ClearH1).await;
        let mut other = Client::new(&server, proto).await;
        let before = stalling.get("/stall?every=1000000&ms=0").await;
        assert_eq!(before.header("x-stalls"), nth.to_string());
        let begun = Instant::now();
        let stall = tokio::spawn(async move { stalling.get("/stall?every=1&ms=3000").await });
        // It begins some time from now; whatever is asked for then has to wait for its end.
        let held = loop {
            let answer = other.get("/").await;
            assert_eq!(answer.text(), "ok\n");
            if answer.end_after > LENGTH / 3 || begun.elapsed() > 4 * LENGTH {
                break answer.end_after;
            }
        };
        assert!(held > LENGTH / 3 && begun.elapsed() >= LENGTH, "{proto:?}: {held:?}");
        let answer = stall.await.unwrap();
        assert_eq!(answer.header("x-stalls"), (nth + 1).to_string());
        assert!(timing(&answer.headers, "stall") >= LENGTH, "{:?}", answer.headers);
    }
}

#[tokio::test]
async fn only_every_so_manyth_stalls() {
    let server = start().await;
    let mut client = Client::new(&server, Proto::ClearH1).await;
    let mut stalls = Vec::new();
    for _ in 0..6 {
        stalls.push(client.get("/stall?every=3&ms=1").await.header("x-stalls").to_owned());
    }
    assert_eq!(stalls, ["0", "0", "1", "1", "1", "2"]);
}

#[tokio::test]
async fn a_stall_holds_up_what_is_under_way() {
    let server = start().await;
    let mut delayed = Client::new(&server, Proto::ClearH2).await;
    let mut stalling = Client::new(&server, Proto::ClearH1).await;
    // Both begin at once, if the machine lets them; then the longer one ends both.
    for _ in 0..5 {
        let (delay, stall) = ("/delay?ms=500", "/stall?every=1&ms=2000");
        let (answer, _) = tokio::join!(delayed.get(delay), stalling.get(stall));
        if timing(&answer.headers, "delay") > Duration::from_millis(1500) {
            return;
        }
    }
    panic!("no delay was made longer by a stall in its midst");
}
