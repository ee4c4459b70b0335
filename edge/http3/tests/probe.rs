//! What a client does that keeps no rules, byte by byte: who is answered, reset, sent away.

mod support;

use std::time::Duration;

use edge_http3::{Config, ConnectionError};
use support::*;

const MESSAGE_ERROR: Outcome = Outcome::Reset(0x10e);

fn server() -> Server {
    Server::start(Config::default(), length)
}

async fn outcome_of(bytes: &[u8]) -> Outcome {
    server().raw().await.request(bytes).await
}

fn with(head: &[(&str, &str)], more: &[(&str, &str)]) -> Vec<u8> {
    headers(&[head, more].concat())
}

#[tokio::test]
async fn heads_that_could_be_read_two_ways_are_reset_and_the_connection_goes_on() {
    let server = server();
    let raw = server.raw().await;
    let rows: [(&str, &[(&str, &str)]); 11] = [
        ("two paths", &[(":path", "/evil")]),
        ("two authorities", &[(":authority", "b.test")]),
        ("status in a request", &[(":status", "200")]),
        ("pseudo-header field after a field", &[("a", "b"), (":path", "/")]),
        ("connection", &[("connection", "close")]),
        ("transfer-encoding", &[("transfer-encoding", "chunked")]),
        ("te", &[("te", "gzip")]),
        ("two lengths", &[("content-length", "1"), ("content-length", "2")]),
        ("another host", &[("host", "b.test")]),
        ("upper case", &[("Accept", "x")]),
        ("line break", &[("accept", "x\r\ny: z")]),
    ];
    for (row, more) in rows {
        assert_eq!(raw.request(&with(&GET, more)).await, MESSAGE_ERROR, "{row}");
    }
    assert_eq!(count(&server.counters.malformed), 11);
    assert_eq!(raw.request(&headers(&GET)).await.status(), b"200");
}

#[tokio::test]
async fn a_body_is_as_long_as_content_length_says() {
    let server = server();
    let raw = server.raw().await;
    let head = with(&POST, &[("content-length", "5")]);
    let longer = [&head[..], &frame(0, b"0123456789")].concat();
    assert_eq!(raw.request(&longer).await, MESSAGE_ERROR);
    let longer = [&head[..], &frame(0, b"01234"), &frame(0, b"5")].concat();
    assert_eq!(raw.request(&longer).await, MESSAGE_ERROR);
    let shorter = [&head[..], &frame(0, b"0123")].concat();
    assert_eq!(raw.request(&shorter).await, MESSAGE_ERROR);
    assert_eq!(raw.request(&head).await, MESSAGE_ERROR);
    let shorter = [&head[..], &frame(0, b"0123"), &headers(&[("a", "b")])].concat();
    assert_eq!(raw.request(&shorter).await, MESSAGE_ERROR);
    let exact = [&head[..], &frame(0, b"01"), &frame(0, b"234"), &headers(&[("a", "b")])].concat();
    assert_eq!(raw.request(&exact).await.status(), b"200");
}

#[tokio::test]
async fn frames_out_of_place_close_the_connection() {
    let get = headers(&GET);
    let rows: [(&str, u64, Vec<u8>); 8] = [
        ("data first", 0x105, frame(0, b"x")),
        ("settings", 0x105, [&get[..], &frame(4, b"")].concat()),
        ("goaway", 0x105, [&get[..], &frame(7, b"\0")].concat()),
        ("push promise", 0x105, [&get[..], &frame(5, b"\0")].concat()),
        ("ping of HTTP/2", 0x105, [&get[..], &frame(6, b"")].concat()),
        (
            "data after trailers",
            0x105,
            [&get[..], &headers(&[("a", "b")]), &frame(0, b"x")].concat(),
        ),
        ("end inside of data", 0x106, [&get[..], &announce(0, 9)].concat()),
        ("dynamic table", 0x200, frame(1, &[0x01, 0x00, 0x80])),
    ];
    for (row, code, bytes) in rows {
        assert_eq!(outcome_of(&bytes).await, Outcome::Closed(code), "{row}");
    }
}

#[tokio::test]
async fn a_stream_without_a_head_is_incomplete() {
    assert_eq!(outcome_of(&[]).await, Outcome::Reset(0x10d));
    assert_eq!(outcome_of(&frame(0x21, b"grease")).await, Outcome::Reset(0x10d));
}

#[tokio::test]
async fn a_head_beyond_the_limits_is_answered_431() {
    let server = server();
    let raw = server.raw().await;
    let (mut send, recv) = raw.quic.open_bi().await.unwrap();
    send.write_all(&announce(1, 1 << 30)).await.unwrap();
    assert_eq!(outcome(recv).await.status(), b"431");
    assert_eq!(send.stopped().await.unwrap().unwrap().into_inner(), 0x100);
    // Small encoded, large decoded; and many.
    let large = "x".repeat(20_000);
    let large = with(&GET, &[("a", &large), ("b", &large)]);
    assert_eq!(raw.request(&large).await.status(), b"431");
    let many = with(&GET, &[("a", "b"); 125]);
    assert_eq!(raw.request(&many).await.status(), b"431");
    assert_eq!(count(&server.counters.head_too_large), 3);
    assert_eq!(raw.request(&with(&GET, &[("a", "b"); 124])).await.status(), b"200");
}

#[tokio::test]
async fn a_head_that_does_not_come_is_rejected() {
    let config = Config { head_timeout: Duration::from_millis(100), ..Config::default() };
    let server = Server::start(config, length);
    let raw = server.raw().await;
    let (mut send, recv) = raw.quic.open_bi().await.unwrap();
    send.write_all(&announce(1, 100)).await.unwrap();
    assert_eq!(outcome(recv).await, Outcome::Reset(0x10b));
    assert_eq!(send.stopped().await.unwrap().unwrap().into_inner(), 0x10b);
    assert_eq!(count(&server.counters.head_late), 1);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_late_and_stopped_after_the_answer() {
    let config = Config { body_idle_timeout: Duration::from_millis(100), ..Config::default() };
    let server = Server::start(config, length);
    let raw = server.raw().await;
    let (mut send, recv) = raw.quic.open_bi().await.unwrap();
    send.write_all(&headers(&POST)).await.unwrap();
    let Outcome::Answer(answer) = outcome(recv).await else { panic!("no answer") };
    assert!(answer.ends_with(b"too slowly"));
    assert_eq!(send.stopped().await.unwrap().unwrap().into_inner(), 0x100);
    assert_eq!(count(&server.counters.body_late), 1);
}

#[tokio::test]
async fn the_control_stream_is_one_begins_with_settings_and_stays() {
    let rows: [(&str, u64, &[&[u8]], bool); 9] = [
        ("no settings", 0x10a, &[&[0x00, 0x07, 0x01, 0x00]], false),
        ("settings twice", 0x105, &[&[0x00, 0x04, 0x00, 0x04, 0x00]], false),
        ("a setting of HTTP/2", 0x109, &[&[0x00, 0x04, 0x02, 0x02, 0x00]], false),
        ("two control streams", 0x103, &[&[0x00, 0x04, 0x00], &[0x00]], false),
        ("two encoder streams", 0x103, &[&[0x02], &[0x02]], false),
        ("closed", 0x104, &[&[0x00, 0x04, 0x00]], true),
        ("push", 0x103, &[&[0x01]], false),
        ("an insertion", 0x201, &[&[0x02, 0x80]], false),
        ("a growing push id", 0x108, &[&[0, 4, 0, 7, 1, 1, 7, 1, 2]], false),
    ];
    for (row, code, streams, finish) in rows {
        let server = server();
        let quic = server.connect().await;
        let mut open = Vec::new();
        for bytes in streams {
            open.push(open_uni(&quic, bytes).await);
        }
        if finish {
            open.iter_mut().for_each(|stream| stream.finish().unwrap());
        }
        let control = open.pop().unwrap();
        let raw = Raw { quic, control };
        assert_eq!(raw.closed().await, code, "{row}");
        assert_eq!(count(&server.counters.protocol), 1, "{row}");
    }
}

#[tokio::test]
async fn unknown_streams_are_stopped_and_too_many_of_them_close_the_connection() {
    let mut server = server();
    let raw = server.raw().await;
    let unknown = open_uni(&raw.quic, &[0x21, 1, 2, 3]).await;
    assert_eq!(unknown.stopped().await.unwrap().unwrap().into_inner(), 0x103);
    assert_eq!(raw.request(&headers(&GET)).await.status(), b"200");
    for _ in 0..100 {
        let Ok(mut stream) = raw.quic.open_uni().await else { break };
        let _ = stream.write_all(&[0x21]).await; // the connection may be gone
    }
    assert_eq!(raw.closed().await, 0x107);
    assert_eq!(count(&server.counters.uni_excess), 1);
    assert!(matches!(server.ended().await, Err(ConnectionError::Refused { .. })));
}

#[tokio::test]
async fn frames_that_bring_nothing_close_the_connection() {
    for ty in [0x21, 0x00] {
        let server = server();
        let raw = server.raw().await;
        let bytes = [headers(&POST), frame(ty, b"").repeat(65)].concat();
        assert_eq!(raw.request(&bytes).await, Outcome::Closed(0x107));
        assert_eq!(count(&server.counters.empty_frames), 1);
    }
}

#[tokio::test]
async fn a_client_that_gives_up_request_after_request_is_sent_away() {
    let config = Config { resets_per_second_max: 20, ..Config::default() };
    let service = |_| -> Answer { Box::pin(std::future::pending()) };
    let server = Server::start(config, service);
    let raw = server.raw().await;
    // More than a second's worth in each of the seconds that this may take.
    for _ in 0..1000 {
        let Ok((mut send, mut recv)) = raw.quic.open_bi().await else { break };
        let _ = send.write_all(&headers(&POST)).await; // the connection may be gone
        let _ = send.reset(0x10c_u32.into());
        let _ = recv.stop(0x10c_u32.into());
    }
    assert_eq!(raw.closed().await, 0x107);
    assert_eq!(count(&server.counters.resets_excess), 1);
}

#[tokio::test]
async fn a_flood_of_control_frames_is_sent_away() {
    let server = server();
    let mut raw = server.raw().await;
    let update = frame(0xf_0700, b"\0u=1");
    let _ = raw.control.write_all(&update.repeat(20_000)).await; // the connection may be gone
    assert_eq!(raw.closed().await, 0x107);
    assert_eq!(count(&server.counters.control_excess), 1);
}

#[tokio::test]
async fn a_priority_for_a_stream_that_cannot_be_is_an_id_error() {
    for id in [&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc][..], &[0x02]] {
        let server = server();
        let mut raw = server.raw().await;
        raw.control.write_all(&frame(0xf_0700, id)).await.unwrap();
        assert_eq!(raw.closed().await, 0x108);
    }
}
