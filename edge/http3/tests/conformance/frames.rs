//! Which frames may be where, and how they are laid out: RFC 9114 4.1, 5.2, 7 and 9, RFC 9218 7.

use super::{Due::*, Sent, check, get_then};
use crate::support::*;

const UNEXPECTED: super::Due = ConnectionError(0x105);
const LAYOUT: super::Due = ConnectionError(0x106);
const ID: super::Due = ConnectionError(0x108);

fn raw(frames: &[Vec<u8>]) -> Sent {
    Sent::Request(frames.concat())
}

fn control(frames: &[Vec<u8>]) -> Sent {
    Sent::Control(frames.concat())
}

#[tokio::test]
async fn frames_of_a_request_keep_their_order() {
    let (get, trailers, data) = (headers(&GET), headers(&[("a", "b")]), frame(0, b"x"));
    let unknown = || frame(0x21, b"anything");
    let rows = vec![
        ("4.1: DATA before HEADERS", raw(&[data.clone(), get.clone()]), UNEXPECTED),
        ("4.1: DATA after trailers", get_then(&[trailers.clone(), data.clone()]), UNEXPECTED),
        ("4.1: a third HEADERS", get_then(&[trailers.clone(), trailers.clone()]), UNEXPECTED),
        ("4.1: head, data, trailers", get_then(&[data.clone(), trailers.clone()]), Status("200")),
        ("4.1: a head without a body", raw(std::slice::from_ref(&get)), Status("200")),
        (
            "4.1, 9: unknown frames anywhere",
            raw(&[unknown(), get.clone(), unknown(), data, unknown(), trailers, unknown()]),
            Status("200"),
        ),
        ("4.1.1: no head", raw(&[]), StreamError(0x10d)),
        ("4.1.1: no head but unknown frames", raw(&[unknown()]), StreamError(0x10d)),
        ("7.1: the end inside of DATA", get_then(&[announce(0, 2), vec![7]]), LAYOUT),
        ("7.1: the end inside of HEADERS", raw(&[get[..9].to_vec()]), LAYOUT),
        ("7.1: the end inside of a frame's type", get_then(&[vec![0x40]]), LAYOUT),
        ("7.1: the end inside of an unknown frame", get_then(&[announce(0x21, 1)]), LAYOUT),
    ];
    check(rows).await;
}

#[tokio::test]
async fn frames_of_the_control_stream_are_none_of_a_request() {
    let rows = vec![
        ("7.2.3: CANCEL_PUSH", get_then(&[frame(3, &[0])]), UNEXPECTED),
        ("7.2.4: SETTINGS", get_then(&[frame(4, &[])]), UNEXPECTED),
        ("7.2.4: SETTINGS first", raw(&[frame(4, &[])]), UNEXPECTED),
        ("7.2.5: PUSH_PROMISE", get_then(&[frame(5, &[0, 0, 0])]), UNEXPECTED),
        ("7.2.6: GOAWAY", get_then(&[frame(7, &[0])]), UNEXPECTED),
        ("7.2.7: MAX_PUSH_ID", get_then(&[frame(0xd, &[0])]), UNEXPECTED),
        ("7.2.8: PRIORITY of HTTP/2", get_then(&[frame(2, &[])]), UNEXPECTED),
        ("7.2.8: PING of HTTP/2", get_then(&[frame(6, &[])]), UNEXPECTED),
        ("7.2.8: WINDOW_UPDATE of HTTP/2", get_then(&[frame(8, &[])]), UNEXPECTED),
        ("7.2.8: CONTINUATION of HTTP/2", get_then(&[frame(9, &[])]), UNEXPECTED),
        ("9218 7.2: PRIORITY_UPDATE", get_then(&[frame(0xf_0700, b"\0")]), UNEXPECTED),
        ("9218 7.2: PRIORITY_UPDATE of a push", get_then(&[frame(0xf_0701, b"\0")]), UNEXPECTED),
    ];
    check(rows).await;
}

#[tokio::test]
async fn the_control_stream_carries_its_own_frames_only() {
    let rows = vec![
        ("7.2.1: DATA", control(&[frame(0, b"x")]), UNEXPECTED),
        ("7.2.2: HEADERS", control(&[headers(&GET)]), UNEXPECTED),
        ("7.2.4: SETTINGS again", control(&[frame(4, &[])]), UNEXPECTED),
        ("7.2.5: PUSH_PROMISE", control(&[frame(5, &[0, 0, 0])]), UNEXPECTED),
        ("7.2.8: PRIORITY of HTTP/2", control(&[frame(2, &[])]), UNEXPECTED),
        ("7.2.8: PING of HTTP/2", control(&[frame(6, &[])]), UNEXPECTED),
        ("7.2.8: WINDOW_UPDATE of HTTP/2", control(&[frame(8, &[])]), UNEXPECTED),
        ("7.2.8: CONTINUATION of HTTP/2", control(&[frame(9, &[])]), UNEXPECTED),
        ("7.2.8, 9: unknown frames", control(&[frame(0x21, b"x"), frame(0x40, b"")]), Nothing),
        ("7.1: GOAWAY without an id", control(&[frame(7, &[])]), LAYOUT),
        ("7.1: GOAWAY with more than an id", control(&[frame(7, &[0, 0])]), LAYOUT),
        ("7.1: MAX_PUSH_ID cut", control(&[frame(0xd, &[0x40])]), LAYOUT),
        ("7.1: CANCEL_PUSH with more than an id", control(&[frame(3, &[0, 0])]), LAYOUT),
        ("5.2: GOAWAY", control(&[frame(7, &[4]), frame(7, &[4]), frame(7, &[0])]), Nothing),
        ("5.2: a growing GOAWAY", control(&[frame(7, &[0]), frame(7, &[1])]), ID),
        ("7.2.3: CANCEL_PUSH of what was never promised", control(&[frame(3, &[0])]), ID),
        ("7.2.7: MAX_PUSH_ID", control(&[frame(0xd, &[0]), frame(0xd, &[9])]), Nothing),
        ("7.2.7: a shrinking MAX_PUSH_ID", control(&[frame(0xd, &[9]), frame(0xd, &[8])]), ID),
        ("9218 7.2: PRIORITY_UPDATE", control(&[frame(0xf_0700, b"\0u=1, i")]), Nothing),
        ("9218 5: a priority that is none", control(&[frame(0xf_0700, b"\0(((")]), Nothing),
        ("9218 7.2: no id", control(&[frame(0xf_0700, b"")]), LAYOUT),
        ("9218 7.2: no request's id", control(&[frame(0xf_0700, b"\x01u=1")]), ID),
        ("9218 7.2: of a push", control(&[frame(0xf_0701, b"\0u=1")]), ID),
    ];
    check(rows).await;
}
