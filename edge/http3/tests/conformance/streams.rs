//! Which streams there are, and how they begin and end: RFC 9114 6 and 7.2.4, RFC 9204 4.2, RFC 9220 3.

use super::{Due::*, Sent, check};
use crate::support::*;

const CREATION: super::Due = ConnectionError(0x103);
const CLOSED_CRITICAL: super::Due = ConnectionError(0x104);
const SETTINGS_ERROR: super::Due = ConnectionError(0x109);

fn control() -> Vec<u8> {
    vec![0x00, 0x04, 0x00]
}

/// A control stream that begins with this payload of SETTINGS.
fn settings(payload: &[u8]) -> Sent {
    Sent::Streams(vec![[vec![0x00], frame(4, payload)].concat()])
}

#[tokio::test]
async fn streams_in_one_direction_keep_their_rules() {
    let streams = |all: &[&[u8]]| all.iter().map(|one| one.to_vec()).collect::<Vec<_>>();
    let rows = vec![
        ("6.2.1: a second control stream", Sent::Streams(vec![control(), control()]), CREATION),
        ("6.2.1: the control stream ends", Sent::Finished(vec![control()]), CLOSED_CRITICAL),
        ("6.2.1: the control stream is reset", Sent::Reset(vec![control()]), CLOSED_CRITICAL),
        (
            "6.2.1: no SETTINGS first",
            Sent::Streams(streams(&[&[0, 7, 1, 0]])),
            ConnectionError(0x10a),
        ),
        ("6.2.1: unknown first", Sent::Streams(streams(&[&[0, 0x21, 0]])), ConnectionError(0x10a)),
        ("6.2.2: a push stream", Sent::Streams(streams(&[&[0x01, 0]])), CREATION),
        ("6.2: an unknown stream", Sent::Streams(vec![control(), vec![0x21, 1, 2]]), Nothing),
        ("6.2: ... that ends", Sent::Finished(vec![control(), vec![0x21, 1, 2]]), Nothing),
        ("6.2: ... that is reset", Sent::Reset(vec![control(), vec![0x21, 1, 2]]), Nothing),
        ("6.2: one that ends before its type", Sent::Finished(vec![control(), vec![]]), Nothing),
        ("6.2: ... inside of its type", Sent::Finished(vec![control(), vec![0x40]]), Nothing),
        ("9204 4.2: QPACK streams", Sent::Streams(streams(&[&[2], &[3], &[0, 4, 0]])), Nothing),
        ("9204 4.2: two encoder streams", Sent::Streams(streams(&[&[2], &[2]])), CREATION),
        ("9204 4.2: two decoder streams", Sent::Streams(streams(&[&[3], &[3]])), CREATION),
        ("9204 4.2: the encoder stream ends", Sent::Finished(streams(&[&[2]])), CLOSED_CRITICAL),
        ("9204 4.2: the decoder stream ends", Sent::Finished(streams(&[&[3]])), CLOSED_CRITICAL),
        ("9204 4.2: the decoder stream is reset", Sent::Reset(streams(&[&[3]])), CLOSED_CRITICAL),
    ];
    check(rows).await;
}

#[tokio::test]
async fn settings_keep_their_rules() {
    let rows = vec![
        ("7.2.4: none at all", settings(&[]), Nothing),
        ("7.2.4: unknown ones", settings(&[0x21, 0x05, 0x40, 0x99, 0x00]), Nothing),
        ("7.2.4: one twice", settings(&[0x06, 0x40, 0x64, 0x06, 0x40, 0x64]), SETTINGS_ERROR),
        ("7.2.4.1: ENABLE_PUSH of HTTP/2", settings(&[0x02, 0x00]), SETTINGS_ERROR),
        (
            "7.2.4.1: MAX_CONCURRENT_STREAMS of HTTP/2",
            settings(&[0x03, 0x40, 0x64]),
            SETTINGS_ERROR,
        ),
        ("7.2.4.1: INITIAL_WINDOW_SIZE of HTTP/2", settings(&[0x04, 0x00]), SETTINGS_ERROR),
        ("7.2.4.1: MAX_FRAME_SIZE of HTTP/2", settings(&[0x05, 0x00]), SETTINGS_ERROR),
        ("7.1: a setting without a value", settings(&[0x06]), ConnectionError(0x106)),
        ("9220 3: CONNECT is extended", settings(&[0x08, 0x01]), Nothing),
        ("9220 3, 8441 3: neither yes nor no", settings(&[0x08, 0x02]), SETTINGS_ERROR),
        (
            "9204 5: a dynamic table of the client",
            settings(&[0x01, 0x40, 0x64, 0x07, 0x10]),
            Nothing,
        ),
    ];
    check(rows).await;
}

#[tokio::test]
async fn our_control_stream_is_one_and_begins_with_settings_without_those_of_http2() {
    let server = Server::start(edge_http3::Config::default(), length);
    let raw = server.raw().await;
    let mut control = raw.quic.accept_uni().await.expect("6.2.1: there is one");
    let mut head = [0; 3];
    control.read_exact(&mut head).await.expect("it has settings");
    assert_eq!(head[..2], [0x00, 0x04], "6.2.1, 7.2.4");
    let mut payload = vec![0; head[2].into()];
    control.read_exact(&mut payload).await.expect("they are whole");
    let mut at = 0;
    let mut number = || {
        let bytes = 1_usize << (payload[at] >> 6);
        let first = u64::from(payload[at] & 0x3f);
        let value =
            payload[at + 1..at + bytes].iter().fold(first, |sum, b| sum << 8 | u64::from(*b));
        at += bytes;
        (value, at == payload.len())
    };
    let mut ids = Vec::new();
    loop {
        let ((id, _), (_, last)) = (number(), number());
        assert!(!(2..=5).contains(&id), "7.2.4.1: {id}");
        assert!(!ids.contains(&id), "7.2.4: {id} twice");
        ids.push(id);
        if last {
            break;
        }
    }
    assert!(ids.contains(&0x08), "9220 3");
    let another = tokio::time::timeout(std::time::Duration::from_millis(100), raw.quic.accept_bi());
    assert!(another.await.is_err(), "6.1: a server opens no stream in both directions");
}
