//! RFC 9113 6.9 and 6.10: windows, and heads in more than one frame.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use crate::{
    raw::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL, FRAME_SIZE, HEADERS, PROTOCOL,
        Raw, SETTINGS, Told, WINDOW_UPDATE, case, frame, get, head, post, try_all,
    },
    support::{Server, report},
};

fn setting(id: u16, value: u32) -> Vec<u8> {
    [id.to_be_bytes().as_slice(), &value.to_be_bytes()].concat()
}

#[tokio::test]
async fn windows_are_as_6_9_says() {
    let server = Server::start(report).await;
    let update = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    try_all(
        &server,
        vec![
            case("6.9 by 0 on the connection", update(0, 0), Told::Connection(PROTOCOL)),
            case(
                "6.9 by 0 on a stream",
                [post(1), update(1, 0)].concat(),
                Told::Stream(1, PROTOCOL),
            ),
            case(
                "6.9 of 3 bytes",
                frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]),
                Told::Connection(FRAME_SIZE),
            ),
            case("6.9 on an idle stream", update(7, 1), Told::Connection(PROTOCOL)),
            case(
                "6.9.1 beyond 2^31-1 on the connection",
                [update(0, (1 << 31) - 1), update(0, (1 << 31) - 1)].concat(),
                Told::Connection(FLOW_CONTROL),
            ),
            case(
                "6.9.1 beyond 2^31-1 on a stream",
                [post(1), update(1, (1 << 31) - 1), update(1, (1 << 31) - 1)].concat(),
                Told::Stream(1, FLOW_CONTROL),
            ),
            case(
                "6.9.2 settings push a window beyond 2^31-1",
                [
                    post(1),
                    update(1, (1 << 31) - 1 - 65_535),
                    frame(SETTINGS, 0, 0, &setting(4, (1 << 31) - 1)),
                ]
                .concat(),
                Told::Connection(FLOW_CONTROL),
            ),
        ],
    )
    .await;
    let mut raw = Raw::with_settings(&server, &setting(4, 1)).await;
    raw.send(get(1)).await;
    let first = raw.until(DATA, 1).await;
    assert_eq!(first.payload.len(), 1, "6.9.2 the client's window is heeded");
    raw.send(update(1, 2)).await;
    assert_eq!(raw.until(DATA, 1).await.payload.len(), 2);
    raw.send(frame(SETTINGS, 0, 0, &setting(4, 100))).await;
    let last = raw.until(DATA, 1).await;
    assert_eq!(last.flags & END_STREAM, END_STREAM, "6.9.2 a change reaches open streams");
}

#[tokio::test]
async fn continuations_are_as_6_10_says() {
    let server = Server::start(report).await;
    let block = head("GET", &[]);
    let (first, second) = block.split_at(9);
    let open = frame(HEADERS, END_STREAM, 1, first);
    let rest = |flags| frame(CONTINUATION, flags, 1, second);
    try_all(
        &server,
        vec![
            case("6.10 a head in two", [open.clone(), rest(END_HEADERS)].concat(), Told::Answer(1)),
            case(
                "6.10 many, some empty",
                [
                    open.clone(),
                    frame(CONTINUATION, 0, 1, b""),
                    rest(0),
                    frame(CONTINUATION, END_HEADERS, 1, b""),
                ]
                .concat(),
                Told::Answer(1),
            ),
            case(
                "6.10 followed by something else",
                [open.clone(), frame(DATA, 0, 1, b"x")].concat(),
                Told::Connection(PROTOCOL),
            ),
            case(
                "6.10 on stream 0",
                [open.clone(), frame(CONTINUATION, END_HEADERS, 0, second)].concat(),
                Told::Connection(PROTOCOL),
            ),
            case(
                "6.10 of another stream",
                [open, frame(CONTINUATION, END_HEADERS, 3, second)].concat(),
                Told::Connection(PROTOCOL),
            ),
            case(
                "6.10 behind END_HEADERS",
                [post(1), frame(CONTINUATION, END_HEADERS, 1, b"")].concat(),
                Told::Connection(PROTOCOL),
            ),
            case(
                "6.10 behind DATA",
                [post(1), frame(DATA, 0, 1, b"x"), frame(CONTINUATION, END_HEADERS, 1, b"")]
                    .concat(),
                Told::Connection(PROTOCOL),
            ),
            case(
                "6.10 out of nowhere",
                frame(CONTINUATION, END_HEADERS, 1, &block),
                Told::Connection(PROTOCOL),
            ),
        ],
    )
    .await;
}
