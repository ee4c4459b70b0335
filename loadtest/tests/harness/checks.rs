//! What the harness notices.

use loadtest_model::{Stream, Work, names};

use crate::peer::{Peer, each, requests};

fn with_nonce(path: &str) -> Work {
    let mut work = Work::get(path);
    if let Work::Http { nonce, .. } = &mut work {
        *nonce = true;
    }
    work
}

#[tokio::test]
async fn right_answers_pass_over_every_protocol_with_every_phase_timed() {
    let peer = Peer::start().await;
    let report = peer.run(with_nonce("/echo"), requests(40)).await;
    each(&report, |part| {
        assert_eq!((part.planned, part.sent, part.succeeded, part.failed()), (40, 40, 40, 0));
        assert_eq!(part.checks["nonce"].passed, 40);
        assert_eq!(part.statuses["200"], 40);
        for name in [names::LATENCY, names::SERVICE, names::FIRST_BYTE, names::LAST_BYTE] {
            assert_eq!(part.timings[name].len(), 40, "{name}");
        }
        assert_eq!(part.timings[names::HANDSHAKE].len(), part.connections);
        assert!(part.connections >= 1 && part.connections <= 4);
        assert!(part.duration_s > 0.0 && part.bytes_received > 0);
    });
}

#[tokio::test]
async fn an_answer_to_another_request_is_cross_talk() {
    let peer = Peer::start().await;
    let report = peer.run(with_nonce("/mixup?every=10"), requests(40)).await;
    each(&report, |part| {
        let mixed_up = part.errors.get("check_cross_talk").copied().unwrap_or(0);
        assert!((3..=5).contains(&mixed_up), "{mixed_up}");
        assert_eq!(part.succeeded + mixed_up, 40);
        assert!(part.samples["check_cross_talk"].contains("another request's nonce"));
        assert_eq!(part.checks["cross_talk"].failed, mixed_up);
    });
}

#[tokio::test]
async fn errors_are_counted_by_kind() {
    let peer = Peer::start().await;
    let report = peer.run(Work::get("/error?every=10"), requests(40)).await;
    each(&report, |part| assert_eq!(part.errors["status_500"], 4));
    let report = peer.run(Work::get("/status?code=503"), requests(5)).await;
    each(&report, |part| {
        assert_eq!((part.errors["status_503"], part.succeeded), (5, 0));
        assert!(part.samples["status_503"].contains("503"), "{:?}", part.samples);
    });
    let report = peer.run(Work::get("/reset?every=10"), requests(40)).await;
    each(&report, |part| {
        assert!(part.failed() >= 4, "{:?}", part.errors);
        assert!(part.succeeded >= 20, "{:?}", part.errors);
        assert_eq!(part.failed() + part.succeeded, 40);
    });
}

#[tokio::test]
async fn bodies_are_compared_with_what_was_expected() {
    let peer = Peer::start().await;
    let expecting = |sha256: Option<&str>, text: Option<&str>, status| {
        let mut work = Work::get("/");
        if let Work::Http { expect_status, expect_sha256, expect_text, .. } = &mut work {
            *expect_status = status;
            *expect_sha256 = sha256.map(str::to_owned);
            *expect_text = text.map(str::to_owned);
        }
        work
    };
    // sha256 of "ok\n"
    let right = "dc51b8c96c2d745df3bd5590d990230a482fd247123599548e0632fdbf97fc22";
    let report = peer.run(expecting(Some(right), Some("ok"), Some(200)), requests(4)).await;
    each(&report, |part| assert_eq!(part.succeeded, 4));
    let wrong = right.replace('d', "0");
    for (work, kind) in [
        (expecting(Some(&wrong), None, None), "check_sha256"),
        (expecting(None, Some("nothing like it"), None), "check_text"),
        (expecting(None, None, Some(201)), "status_200"),
    ] {
        let report = peer.run(work, requests(4)).await;
        each(&report, |part| assert_eq!(part.errors[kind], 4, "{kind}"));
    }
}

#[tokio::test]
async fn events_are_counted_and_web_sockets_echo() {
    let peer = Peer::start().await;
    let stream = |path: &str| Stream {
        function: None,
        path: path.to_owned(),
        messages: 5,
        delay_ms: 1,
        message_bytes: 300,
    };
    let report = peer.run(Work::Sse(stream("/sse?n={n}&delay_ms={delay_ms}")), requests(4)).await;
    each(&report, |part| {
        assert_eq!(part.checks["events"].passed, 4);
        assert_eq!(part.timings["step.first_event"].len(), 4);
        assert_eq!(part.timings["step.event"].len(), 16);
    });
    let report = peer.run(Work::Sse(stream("/sse?n=3&delay_ms=0")), requests(2)).await;
    each(&report, |part| {
        assert_eq!(part.errors["check_events"], 2);
        assert!(part.samples["check_events"].contains("3 events came; expected 5"));
    });
    let report = peer.run(Work::Ws(stream("/ws")), requests(4)).await;
    assert_eq!(report.parts.len(), 1, "one protocol has them");
    let part = &report.parts[0];
    assert_eq!((part.succeeded, part.checks["echo"].passed), (4, 20), "{:?}", part.samples);
    assert_eq!(part.timings["step.message"].len(), 20);
    let report = peer.run(Work::Ws(stream("/status?code=403")), requests(1)).await;
    assert_eq!(report.parts[0].failed(), 1, "{:?}", report.parts[0].errors);
}
