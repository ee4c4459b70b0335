//! RFC 9113 3.4, 4 and 6 but for 6.9 and 6.10: the preface and each kind of frame, as h2spec 2.6 tries them.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use crate::{
    raw::{
        ACK, CANCEL, COMPRESSION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL, FRAME_SIZE, GOAWAY,
        HEADERS, PADDED, PING, PREFACE, PRIORITY, PROTOCOL, PUSH_PROMISE, RST_STREAM, Raw,
        SETTINGS, Told, WITH_PRIORITY, case, frame, get, head, post, told, try_all,
    },
    support::{Server, report},
};

fn setting(id: u16, value: u32) -> Vec<u8> {
    [id.to_be_bytes().as_slice(), &value.to_be_bytes()].concat()
}

#[tokio::test]
async fn a_connection_begins_with_its_preface_and_settings() {
    let server = Server::start(report).await;
    for (what, bytes) in [
        ("3.4 not HTTP/2", b"GET / HTTP/1.1\r\nhost: h\r\n\r\n".to_vec()),
        (
            "3.4 a wrong preface",
            [b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, b"")].concat(),
        ),
    ] {
        let mut raw = Raw::silent(&server).await;
        let told = told(&mut raw, &bytes).await;
        assert!(matches!(told, Told::Connection(PROTOCOL) | Told::Closed), "{what} {told:?}");
    }
    let mut raw = Raw::silent(&server).await;
    let first = told(&mut raw, &[PREFACE, &get(1)].concat()).await;
    assert_eq!(first, Told::Connection(PROTOCOL), "3.4 HEADERS before SETTINGS");
}

#[tokio::test]
async fn frames_are_formed_as_section_4_says() {
    let server = Server::start(report).await;
    let large = vec![0; 16_385];
    try_all(
        &server,
        vec![
            case("4.1 unknown type is ignored", frame(0xbe, 0, 0, b"what?"), Told::Nothing),
            case("4.1 unknown type on a stream", frame(0xbe, 0xff, 1, b"what?"), Told::Nothing),
            case("4.1 undefined flags", frame(PING, 0x16, 0, b"12345678"), Told::Nothing),
            case("4.1 the reserved bit", frame(PING, 0, 0x8000_0000, b"12345678"), Told::Nothing),
            case(
                "4.2 DATA too large",
                [post(1), frame(DATA, 0, 1, &large)].concat(),
                Told::Connection(FRAME_SIZE),
            ),
            case(
                "4.2 HEADERS too large",
                frame(HEADERS, END_HEADERS, 1, &large),
                Told::Connection(FRAME_SIZE),
            ),
            case("4.2 unknown too large", frame(0xbe, 0, 0, &large), Told::Connection(FRAME_SIZE)),
        ],
    )
    .await;
}

#[tokio::test]
async fn field_sections_are_as_4_3_says() {
    let server = Server::start(report).await;
    try_all(
        &server,
        vec![
            case(
                "4.3 bad index",
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0xff, 0xff, 0xff]),
                Told::Connection(COMPRESSION),
            ),
            case(
                "4.3 index 0",
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x80]),
                Told::Connection(COMPRESSION),
            ),
            case(
                "4.3 index beyond the tables",
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xc6]),
                Told::Connection(COMPRESSION),
            ),
            case(
                "4.3 PRIORITY inside a head",
                [
                    frame(HEADERS, END_STREAM, 1, &head("GET", &[])),
                    frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]),
                ]
                .concat(),
                Told::Connection(PROTOCOL),
            ),
            case(
                "4.3 HEADERS of another stream inside a head",
                [frame(HEADERS, END_STREAM, 1, &head("GET", &[])), get(3)].concat(),
                Told::Connection(PROTOCOL),
            ),
            case(
                "7541 4.2 table size beyond what is allowed",
                frame(
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    1,
                    &[&[0x3f, 0xff, 0xff, 0x7f], head("GET", &[]).as_slice()].concat(),
                ),
                Told::Connection(COMPRESSION),
            ),
            case(
                "7541 5.2 Huffman padding of zeros",
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x00, 0x81, 0x00, 0x01, b'x']),
                Told::Connection(COMPRESSION),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn data_and_headers_are_as_6_1_and_6_2_say() {
    let server = Server::start(report).await;
    let padded = |stream, pad: u8, block: &[u8]| {
        frame(HEADERS, END_HEADERS | END_STREAM | PADDED, stream, &[&[pad], block].concat())
    };
    try_all(
        &server,
        vec![
            case("6.1 DATA on stream 0", frame(DATA, 0, 0, b"x"), Told::Connection(PROTOCOL)),
            case("6.1 DATA on an idle stream", frame(DATA, 0, 5, b"x"), Told::Connection(PROTOCOL)),
            case(
                "6.1 padding as long as the payload",
                [post(1), frame(DATA, PADDED, 1, &[5, b'x', b'x'])].concat(),
                Told::Connection(PROTOCOL),
            ),
            case(
                "6.1 padding without a length",
                [post(1), frame(DATA, PADDED, 1, b"")].concat(),
                Told::Connection(FRAME_SIZE),
            ),
            case(
                "6.1 padding is fine",
                [post(1), frame(DATA, PADDED | END_STREAM, 1, &[1, b'x', 0])].concat(),
                Told::Answer(1),
            ),
            case(
                "6.2 HEADERS on stream 0",
                frame(HEADERS, END_HEADERS | END_STREAM, 0, &head("GET", &[])),
                Told::Connection(PROTOCOL),
            ),
            case(
                "6.2 padding too long",
                padded(1, 250, &head("GET", &[])),
                Told::Connection(PROTOCOL),
            ),
            case(
                "6.2 padding is fine",
                padded(1, 2, &[head("GET", &[]), vec![0, 0]].concat()),
                Told::Answer(1),
            ),
            case(
                "6.2 a priority inside",
                frame(
                    HEADERS,
                    END_HEADERS | END_STREAM | WITH_PRIORITY,
                    1,
                    &[&[0, 0, 0, 0, 9], head("GET", &[]).as_slice()].concat(),
                ),
                Told::Answer(1),
            ),
            case(
                "7540 5.3.1 a stream that depends on itself",
                frame(
                    HEADERS,
                    END_HEADERS | END_STREAM | WITH_PRIORITY,
                    1,
                    &[&[0, 0, 0, 1, 9], head("GET", &[]).as_slice()].concat(),
                ),
                Told::Stream(1, PROTOCOL),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn priority_and_resets_are_as_6_3_and_6_4_say() {
    let server = Server::start(report).await;
    try_all(
        &server,
        vec![
            case(
                "6.3 PRIORITY on stream 0",
                frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 9]),
                Told::Connection(PROTOCOL),
            ),
            case(
                "6.3 PRIORITY of 4 bytes",
                [post(1), frame(PRIORITY, 0, 1, &[0, 0, 0, 9])].concat(),
                Told::Stream(1, FRAME_SIZE),
            ),
            // An idle stream can't be reset (6.4).
            case(
                "6.3 PRIORITY of 4 bytes on an idle stream",
                frame(PRIORITY, 0, 1, &[0, 0, 0, 9]),
                Told::Connection(FRAME_SIZE),
            ),
            case(
                "6.3 PRIORITY on an idle stream",
                frame(PRIORITY, 0, 5, &[0, 0, 0, 1, 9]),
                Told::Nothing,
            ),
            case(
                "6.4 RST_STREAM on stream 0",
                frame(RST_STREAM, 0, 0, &CANCEL.to_be_bytes()),
                Told::Connection(PROTOCOL),
            ),
            case(
                "6.4 RST_STREAM on an idle stream",
                frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()),
                Told::Connection(PROTOCOL),
            ),
            case(
                "6.4 RST_STREAM of 3 bytes",
                [post(1), frame(RST_STREAM, 0, 1, &[0, 0, 8])].concat(),
                Told::Connection(FRAME_SIZE),
            ),
            case(
                "6.4 RST_STREAM with an unknown code",
                [post(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 0xff])].concat(),
                Told::Nothing,
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn settings_are_as_6_5_says() {
    let server = Server::start(report).await;
    let set = |id, value| frame(SETTINGS, 0, 0, &setting(id, value));
    try_all(
        &server,
        vec![
            case(
                "6.5 ACK with a payload",
                frame(SETTINGS, ACK, 0, &setting(1, 1)),
                Told::Connection(FRAME_SIZE),
            ),
            case(
                "6.5 on a stream",
                frame(SETTINGS, 0, 1, &setting(3, 1)),
                Told::Connection(PROTOCOL),
            ),
            case(
                "6.5 a length of 3",
                frame(SETTINGS, 0, 0, &[0, 3, 0]),
                Told::Connection(FRAME_SIZE),
            ),
            case("6.5.2 ENABLE_PUSH of 2", set(2, 2), Told::Connection(PROTOCOL)),
            case(
                "6.5.2 INITIAL_WINDOW_SIZE of 2^31",
                set(4, 1 << 31),
                Told::Connection(FLOW_CONTROL),
            ),
            case(
                "6.5.2 MAX_FRAME_SIZE of 2^14-1",
                set(5, (1 << 14) - 1),
                Told::Connection(PROTOCOL),
            ),
            case("6.5.2 MAX_FRAME_SIZE of 2^24", set(5, 1 << 24), Told::Connection(PROTOCOL)),
            case("6.5.2 an unknown setting", set(0xfe, 7), Told::Nothing),
            case(
                "6.5.2 one setting twice",
                frame(SETTINGS, 0, 0, &[setting(3, 1), setting(3, 100)].concat()),
                Told::Nothing,
            ),
            case("6.5.3 an ACK of nothing", frame(SETTINGS, ACK, 0, b""), Told::Nothing),
            case("8441 3 ENABLE_CONNECT_PROTOCOL of 2", set(8, 2), Told::Connection(PROTOCOL)),
        ],
    )
    .await;
    let mut raw = Raw::open(&server).await;
    raw.send(set(3, 5)).await;
    assert_eq!(raw.until(SETTINGS, 0).await.flags, ACK, "6.5.3 settings are acknowledged at once");
}

#[tokio::test]
async fn pings_goaways_and_pushes_are_as_6_6_to_6_8_say() {
    let server = Server::start(report).await;
    try_all(
        &server,
        vec![
            case(
                "6.6 PUSH_PROMISE from a client",
                [
                    post(1),
                    frame(
                        PUSH_PROMISE,
                        END_HEADERS,
                        1,
                        &[&[0, 0, 0, 2], head("GET", &[]).as_slice()].concat(),
                    ),
                ]
                .concat(),
                Told::Connection(PROTOCOL),
            ),
            case("6.7 PING ACK unasked", frame(PING, ACK, 0, b"12345678"), Told::Nothing),
            case(
                "6.7 PING on a stream",
                frame(PING, 0, 1, b"12345678"),
                Told::Connection(PROTOCOL),
            ),
            case("6.7 PING of 6 bytes", frame(PING, 0, 0, b"123456"), Told::Connection(FRAME_SIZE)),
            case(
                "6.8 GOAWAY on a stream",
                frame(GOAWAY, 0, 1, &[0; 8]),
                Told::Connection(PROTOCOL),
            ),
            case(
                "6.8 GOAWAY of 7 bytes",
                frame(GOAWAY, 0, 0, &[0; 7]),
                Told::Connection(FRAME_SIZE),
            ),
        ],
    )
    .await;
    let mut raw = Raw::open(&server).await;
    raw.send(frame(PING, 0, 0, b"h2spec!!")).await;
    let pong = raw.until(PING, 0).await;
    assert_eq!((pong.flags, pong.payload), (ACK, b"h2spec!!".to_vec()), "6.7");
}
