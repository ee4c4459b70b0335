//! RFC 9113 5: the states of streams, their numbers, how many there may be.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use edge_http2::Config;

use crate::{
    raw::{
        CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PROTOCOL, REFUSED,
        RST_STREAM, Raw, STREAM_CLOSED, Told, WINDOW_UPDATE, case, frame, get, head, post, told,
        try_all,
    },
    support::{Server, report},
};

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

#[tokio::test]
async fn frames_fit_the_state_of_their_stream() {
    // Never answers, so that half-closed streams stay so.
    let server = Server::start(|_| Box::pin(std::future::pending())).await;
    let trailers = |flags| frame(HEADERS, flags, 1, &crate::raw::fields(&[("x-sum", "1")]));
    try_all(
        &server,
        vec![
            case("5.1 idle: DATA", frame(DATA, END_STREAM, 1, b"x"), Told::Connection(PROTOCOL)),
            case("5.1 idle: RST_STREAM", reset(1), Told::Connection(PROTOCOL)),
            case(
                "5.1 idle: WINDOW_UPDATE",
                frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
                Told::Connection(PROTOCOL),
            ),
            case(
                "5.1 idle: CONTINUATION",
                frame(CONTINUATION, END_HEADERS, 1, b""),
                Told::Connection(PROTOCOL),
            ),
            case(
                "5.1 half-closed: DATA",
                [get(1), frame(DATA, END_STREAM, 1, b"x")].concat(),
                Told::Stream(1, STREAM_CLOSED),
            ),
            case(
                "5.1 half-closed: HEADERS",
                [get(1), get(1)].concat(),
                Told::Stream(1, STREAM_CLOSED),
            ),
            case(
                "5.1 half-closed: CONTINUATION",
                [get(1), frame(CONTINUATION, END_HEADERS, 1, b"")].concat(),
                Told::Connection(PROTOCOL),
            ),
            case(
                "5.1 half-closed: WINDOW_UPDATE",
                [get(1), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])].concat(),
                Told::Nothing,
            ),
            case("5.1 half-closed: RST_STREAM", [get(1), reset(1)].concat(), Told::Nothing),
            case(
                "5.1 reset: DATA",
                [post(1), reset(1), frame(DATA, END_STREAM, 1, b"x")].concat(),
                Told::Stream(1, STREAM_CLOSED),
            ),
            case(
                "5.1 reset: HEADERS",
                [post(1), reset(1), trailers(END_HEADERS | END_STREAM)].concat(),
                Told::Stream(1, STREAM_CLOSED),
            ),
            case(
                "5.1 reset: CONTINUATION",
                [post(1), reset(1), frame(CONTINUATION, END_HEADERS, 1, b"")].concat(),
                Told::Connection(PROTOCOL),
            ),
            case(
                "5.1 open: trailers without END_STREAM",
                [post(1), trailers(END_HEADERS)].concat(),
                Told::Stream(1, PROTOCOL),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn frames_of_a_stream_that_has_ended_are_errors() {
    let server = Server::start(report).await;
    for (what, late) in [
        ("5.1 closed: DATA", frame(DATA, END_STREAM, 1, b"x")),
        ("5.1 closed: HEADERS", get(1)),
        ("5.1 closed: CONTINUATION", frame(CONTINUATION, END_HEADERS, 1, b"")),
    ] {
        let mut raw = Raw::open(&server).await;
        raw.send(get(1)).await;
        while raw.until(DATA, 1).await.flags & END_STREAM == 0 {}
        let told = told(&mut raw, &late).await;
        let fits = matches!(
            told,
            Told::Connection(STREAM_CLOSED | PROTOCOL) | Told::Stream(1, STREAM_CLOSED)
        );
        assert!(fits, "{what}: {told:?}");
    }
}

#[tokio::test]
async fn streams_are_numbered_as_5_1_1_says() {
    let server = Server::start(report).await;
    try_all(
        &server,
        vec![
            case("5.1.1 an even number", get(2), Told::Connection(PROTOCOL)),
            case("5.1.1 a smaller number", [get(5), get(3)].concat(), Told::Connection(PROTOCOL)),
            case("5.1.1 numbers may be left out", get(101), Told::Answer(101)),
            case("5.1.1 the largest number", get(0x7fff_ffff), Told::Answer(0x7fff_ffff)),
        ],
    )
    .await;
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused() {
    let config = Config { max_concurrent_streams: 4, ..Config::default() };
    let server = Server::with(config, report).await;
    let mut raw = Raw::open(&server).await;
    let many: Vec<u8> = (0..4).flat_map(|number| post(number * 2 + 1)).collect();
    assert_eq!(told(&mut raw, &many).await, Told::Nothing);
    let fifth = told(&mut raw, &get(9)).await;
    assert!(matches!(fifth, Told::Stream(9, REFUSED | PROTOCOL)), "5.1.2 {fifth:?}");
    raw.send(frame(DATA, END_STREAM, 1, b"x")).await;
    raw.until(HEADERS, 1).await;
    assert_eq!(told(&mut raw, &get(11)).await, Told::Answer(11), "there is a place again");
}

#[tokio::test]
async fn errors_end_what_they_concern_and_no_more() {
    let server = Server::start(report).await;
    let mut raw = Raw::open(&server).await;
    raw.send(post(1)).await;
    let bad = frame(HEADERS, END_HEADERS | END_STREAM, 3, &head("GET", &[("te", "gzip")]));
    assert_eq!(told(&mut raw, &bad).await, Told::Stream(3, PROTOCOL), "5.4.2");
    raw.send(frame(DATA, END_STREAM, 1, b"x")).await;
    raw.until(HEADERS, 1).await;
    assert_eq!(told(&mut raw, &get(2)).await, Told::Connection(PROTOCOL), "5.4.1");
    assert!(raw.next().await.is_none(), "5.4.1 the connection is closed behind its GOAWAY");
}

#[tokio::test]
async fn what_is_unknown_is_passed_over_as_5_5_says() {
    let server = Server::start(report).await;
    let inside = [frame(HEADERS, END_STREAM, 1, &head("GET", &[])), frame(0x16, 0, 0, b"12345678")];
    try_all(
        &server,
        vec![
            case("5.5 an unknown frame", frame(0x16, 0, 0, b"12345678"), Told::Nothing),
            case(
                "5.5 an unknown frame on a new stream",
                frame(0x16, 0, 9, b"12345678"),
                Told::Nothing,
            ),
            case("5.5 an unknown frame inside a head", inside.concat(), Told::Connection(PROTOCOL)),
        ],
    )
    .await;
}
