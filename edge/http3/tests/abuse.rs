//! What a client may do only so often, by whichever means, and what it may do for ever.

mod support;

use std::time::Duration;

use edge_http3::Config;
use support::*;
use tokio::time::timeout;

/// A config in which only one of the limits can be met.
fn config(resets: u32, unanswered: u32, provoked: u32) -> Config {
    Config {
        resets_per_second_max: resets,
        unanswered_resets_per_second_max: unanswered,
        provoked_resets_per_second_max: provoked,
        ..Config::default()
    }
}

/// Sends requests of these bytes until the connection is closed: more than a second's worth in each
/// of the seconds that this may take.
async fn flood(raw: &Raw, bytes: &[u8], finish: bool) {
    for _ in 0..2000 {
        let Ok((mut send, recv)) = raw.quic.open_bi().await else { break };
        let _ = send.write_all(bytes).await; // the connection may be gone
        if finish {
            let _ = send.finish();
        }
        if let Outcome::Closed(_) = outcome(recv).await {
            break;
        }
    }
    assert_eq!(raw.closed().await, 0x107);
}

#[tokio::test]
async fn resets_that_a_client_provokes_are_limited_as_its_own_are() {
    let longer = headers(&[&POST[..], &[("content-length", "1")]].concat());
    let upper = headers(&[&GET[..], &[("Upper", "x")]].concat());
    for (row, bytes) in [
        ("longer than content-length", [&longer[..], &frame(0, b"xx")].concat()),
        ("shorter than content-length", longer.clone()),
        ("malformed head", upper),
        ("malformed trailers", [headers(&POST), headers(&[(":path", "/")])].concat()),
        ("no head", frame(0x21, b"")),
    ] {
        let server = Server::start(config(u32::MAX, u32::MAX, 20), length);
        flood(&server.raw().await, &bytes, true).await;
        assert_eq!(count(&server.counters.provoked_resets_excess), 1, "{row}");
        assert!(count(&server.counters.provoked_resets) > 20, "{row}");
        assert_eq!(count(&server.counters.resets), 0, "{row}");
    }
}

#[tokio::test]
async fn a_body_that_turns_out_wrong_while_the_service_runs_counts_too() {
    let server = Server::start(config(u32::MAX, u32::MAX, 20), length);
    let raw = server.raw().await;
    let head = headers(&[&POST[..], &[("content-length", "1")]].concat());
    let mut waiting = Vec::new();
    for _ in 0..21 {
        let (mut send, recv) = raw.quic.open_bi().await.unwrap();
        send.write_all(&head).await.unwrap();
        waiting.push((send, recv));
    }
    tokio::time::sleep(Duration::from_millis(200)).await; // the services wait for the body
    for (send, _) in &mut waiting {
        let _ = send.write_all(&frame(0, b"xx")).await; // the connection may be gone
    }
    assert_eq!(raw.closed().await, 0x107);
    assert_eq!(count(&server.counters.provoked_resets_excess), 1);
}

#[tokio::test]
async fn requests_given_up_before_and_after_their_answer_began_have_a_limit_each() {
    // Never answered: both could be met, the smaller one is.
    let never = |_| -> Answer { Box::pin(std::future::pending()) };
    let server = Server::start(config(u32::MAX, 20, u32::MAX), never);
    let raw = server.raw().await;
    for _ in 0..2000 {
        let Ok((mut send, mut recv)) = raw.quic.open_bi().await else { break };
        let _ = send.write_all(&headers(&POST)).await; // the connection may be gone
        let _ = send.reset(0x10c_u32.into());
        let _ = recv.stop(0x10c_u32.into());
    }
    assert_eq!(raw.closed().await, 0x107);
    assert_eq!(count(&server.counters.unanswered_resets_excess), 1);
    assert_eq!(count(&server.counters.resets_excess), 0);
    // Answered in part: these are no unanswered ones.
    let large =
        |_| -> Answer { Box::pin(std::future::ready(http::Response::new(full(vec![7; 8 << 20])))) };
    let server = Server::start(config(20, 1, u32::MAX), large);
    let raw = server.raw().await;
    for _ in 0..2000 {
        let Ok((mut send, mut recv)) = raw.quic.open_bi().await else { break };
        let _ = send.write_all(&headers(&GET)).await; // the connection may be gone
        let _ = send.finish();
        if timeout(PATIENCE, recv.read_chunk(1, true)).await.unwrap().is_err() {
            break;
        }
        let _ = recv.stop(0x10c_u32.into());
    }
    assert_eq!(raw.closed().await, 0x107);
    assert_eq!(count(&server.counters.resets_excess), 1);
    assert_eq!(count(&server.counters.unanswered_resets), 0);
}

#[tokio::test]
async fn stopping_our_control_stream_closes_the_connection() {
    let server = Server::start(Config::default(), length);
    let raw = server.raw().await;
    let mut control = timeout(PATIENCE, raw.quic.accept_uni()).await.unwrap().unwrap();
    control.stop(0x100_u32.into()).unwrap();
    assert_eq!(raw.closed().await, 0x104);
    assert_eq!(count(&server.counters.protocol), 1);
}

#[tokio::test]
async fn frames_without_meaning_on_the_control_stream_are_limited_by_the_second() {
    let config = Config { frames_without_progress_max: 8, ..Config::default() };
    let server = Server::start(config, length);
    let mut raw = server.raw().await;
    for _ in 0..3 {
        raw.control.write_all(&frame(0x21, b"").repeat(8)).await.unwrap();
        assert_eq!(raw.request(&headers(&GET)).await.status(), b"200");
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    let _ = raw.control.write_all(&frame(0x21, b"").repeat(9)).await; // the connection may be gone
    assert_eq!(raw.closed().await, 0x107);
    assert_eq!(count(&server.counters.empty_frames), 1);
}
