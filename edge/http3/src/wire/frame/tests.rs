//! Frames: what each stream may carry, where, how large and in which pieces.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use super::*;
use crate::wire::Code;

const LIMITS: Limits = Limits { field_section_bytes: 1000, fields: 16, idle_frames: 3 };

fn frame(ty: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    write_frame_header(ty, payload.len() as u64, &mut out);
    out.extend_from_slice(payload);
    out.to_vec()
}

/// Only a frame's type and length.
fn announced(ty: u64, length: u64) -> Vec<u8> {
    let mut out = BytesMut::new();
    write_frame_header(ty, length, &mut out);
    out.to_vec()
}

/// All events of a stream that comes in chunks of `size`, and how it ended.
fn read(kind: StreamKind, bytes: &[u8], size: usize) -> (Vec<Event>, Result<(), FrameError>) {
    let mut reader = FrameReader::new(kind, LIMITS);
    let mut events = Vec::new();
    for chunk in bytes.chunks(size) {
        reader.push(Bytes::copy_from_slice(chunk));
        loop {
            match reader.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(reader.next_event(), Err(error), "it stays refused");
                    assert_eq!(reader.finish(), Err(error));
                    return (events, Err(error));
                }
            }
        }
    }
    (events, reader.finish())
}

fn request(frames: &[Vec<u8>]) -> (Vec<Event>, Result<(), FrameError>) {
    read(StreamKind::Request, &frames.concat(), usize::MAX)
}

/// A control stream that begins as it should.
fn control(frames: &[Vec<u8>]) -> (Vec<Event>, Result<(), FrameError>) {
    let (mut events, end) =
        read(StreamKind::Control, &[frame(SETTINGS, &[]), frames.concat()].concat(), usize::MAX);
    assert_eq!(events.remove(0), Event::Settings(PeerSettings::default()));
    (events, end)
}

fn head() -> Vec<u8> {
    frame(HEADERS, b"head")
}

fn headers(payload: &'static [u8]) -> Event {
    Event::Headers(payload.into())
}

#[test]
fn a_request_is_head_data_and_trailers_in_whatever_pieces() {
    let frames = [
        head(),
        frame(DATA, b"first"),
        frame(0x21, b"?"),
        frame(DATA, b"second"),
        frame(HEADERS, b"trailers"),
    ]
    .concat();
    for size in 1..=frames.len() {
        let (events, end) = read(StreamKind::Request, &frames, size);
        assert_eq!(end, Ok(()));
        assert_eq!(events.first(), Some(&headers(b"head")));
        assert_eq!(events.last(), Some(&headers(b"trailers")));
        let data: Vec<u8> = events
            .iter()
            .filter_map(|event| if let Event::Data(data) = event { Some(&data[..]) } else { None })
            .collect::<Vec<_>>()
            .concat();
        assert_eq!(data, b"firstsecond");
        assert_eq!(events.iter().filter(|event| **event == Event::DataEnd).count(), 2);
    }
}

#[test]
fn data_and_whole_heads_are_not_copied() {
    let bytes = Bytes::from([head(), frame(DATA, b"body")].concat());
    let memory = bytes.as_ptr_range();
    let mut reader = FrameReader::new(StreamKind::Request, LIMITS);
    reader.push(bytes.clone());
    let Some(Event::Headers(head)) = reader.next_event().unwrap() else { panic!("no head") };
    let Some(Event::Data(data)) = reader.next_event().unwrap() else { panic!("no data") };
    assert!(memory.contains(&head.as_ptr()) && memory.contains(&data.as_ptr()));
    assert_eq!(reader.buffered_bytes(), 0);
}

#[test]
fn a_chunk_that_comes_too_early_waits_behind_the_one_before() {
    let mut reader = FrameReader::new(StreamKind::Request, LIMITS);
    let bytes = head();
    reader.push(Bytes::copy_from_slice(&bytes[..3]));
    reader.push(Bytes::copy_from_slice(&bytes[3..]));
    assert_eq!(reader.next_event(), Ok(Some(headers(b"head"))));
}

#[test]
fn what_a_request_stream_may_not_carry_is_unexpected() {
    for ty in [
        0x2,
        CANCEL_PUSH,
        SETTINGS,
        PUSH_PROMISE,
        0x6,
        GOAWAY,
        0x8,
        0x9,
        MAX_PUSH_ID,
        PRIORITY_UPDATE,
        PRIORITY_UPDATE_PUSH,
    ] {
        for frames in [vec![frame(ty, b"\0")], vec![head(), frame(ty, b"\0")]] {
            let (_, end) = request(&frames);
            assert_eq!(end, Err(FrameError::Unexpected(ty)));
            assert_eq!(end.unwrap_err().code(), Code::H3_FRAME_UNEXPECTED);
        }
    }
}

#[test]
fn what_the_control_stream_may_not_carry_is_unexpected() {
    for ty in [DATA, HEADERS, 0x2, SETTINGS, PUSH_PROMISE, 0x6, 0x8, 0x9] {
        let (events, end) = control(&[frame(ty, b"\0")]);
        assert_eq!((events, end), (vec![], Err(FrameError::Unexpected(ty))));
    }
}

#[test]
fn a_request_keeps_the_order_of_its_frames() {
    assert_eq!(request(&[frame(DATA, b"x")]).1, Err(FrameError::Unexpected(DATA)));
    let trailers = || frame(HEADERS, b"trailers");
    for (late, ty) in [(frame(DATA, b"x"), DATA), (trailers(), HEADERS)] {
        let (events, end) = request(&[head(), trailers(), late]);
        assert_eq!((events.len(), end), (2, Err(FrameError::Unexpected(ty))));
    }
    assert_eq!(request(&[frame(0x21, b""), head(), trailers(), frame(0x21, b"")]).1, Ok(()));
}

#[test]
fn a_tunnel_has_nothing_but_data() {
    for (then, expected) in [
        (frame(DATA, b"x"), Ok(Some(Event::Data(Bytes::from_static(b"x"))))),
        (frame(HEADERS, b"x"), Err(FrameError::Unexpected(HEADERS))),
    ] {
        let mut reader = FrameReader::new(StreamKind::Request, LIMITS);
        reader.push([head(), then].concat().into());
        assert_eq!(reader.next_event(), Ok(Some(headers(b"head"))));
        reader.tunnel();
        assert_eq!(reader.next_event(), expected);
    }
}

#[test]
fn the_control_stream_begins_with_settings() {
    for ty in [DATA, GOAWAY, 0x21, 0x2] {
        let (_, end) = read(StreamKind::Control, &frame(ty, b"\0"), 1);
        assert_eq!(end, Err(FrameError::MissingSettings(ty)));
        assert_eq!(end.unwrap_err().code(), Code::H3_MISSING_SETTINGS);
    }
    let (_, end) = read(StreamKind::Control, &frame(SETTINGS, b"\x02\x00"), 1);
    assert_eq!(end.unwrap_err().code(), Code::H3_SETTINGS_ERROR);
}

#[test]
fn the_control_stream_says_what_concerns_the_connection() {
    let bytes = [
        frame(SETTINGS, b"\x06\x40\x64\x21\x05"),
        frame(MAX_PUSH_ID, b"\x05"),
        frame(GOAWAY, b"\x40\x08"),
        frame(0x40, b"skipped"),
        frame(PRIORITY_UPDATE, b"\x04u=1"),
        frame(GOAWAY, b"\x00"),
        frame(MAX_PUSH_ID, b"\x05"),
    ]
    .concat();
    let settings = PeerSettings { max_field_section_bytes: Some(100), ..PeerSettings::default() };
    let expected = vec![
        Event::Settings(settings),
        Event::MaxPushId(5),
        Event::GoAway(8),
        Event::PriorityUpdate { stream_id: 4, value: "u=1".into() },
        Event::GoAway(0),
        Event::MaxPushId(5),
    ];
    for size in 1..=bytes.len() {
        assert_eq!(read(StreamKind::Control, &bytes, size), (expected.clone(), Ok(())));
    }
}

#[test]
fn ids_that_cannot_be_are_refused() {
    for (frames, id) in [
        (vec![frame(GOAWAY, b"\x04"), frame(GOAWAY, b"\x05")], 5),
        (vec![frame(MAX_PUSH_ID, b"\x04"), frame(MAX_PUSH_ID, b"\x03")], 3),
        (vec![frame(CANCEL_PUSH, b"\x00")], 0),
        (vec![frame(PRIORITY_UPDATE, b"\x02u=1")], 2),
        (vec![frame(PRIORITY_UPDATE_PUSH, b"\x04u=1")], 4),
    ] {
        let error = control(&frames).1.unwrap_err();
        assert!(matches!(error, FrameError::Id { id: found, .. } if found == id), "{error}");
        assert_eq!(error.code(), Code::H3_ID_ERROR);
    }
}

#[test]
fn payloads_that_are_no_single_number_are_malformed() {
    for ty in [GOAWAY, MAX_PUSH_ID, CANCEL_PUSH] {
        for payload in [&b""[..], b"\x00\x00", b"\x40", b"\0\0\0\0\0\0\0\0\0"] {
            let (_, end) = control(&[frame(ty, payload)]);
            assert_eq!(end, Err(FrameError::Malformed(ty)), "{payload:?}");
            assert_eq!(end.unwrap_err().code(), Code::H3_FRAME_ERROR);
        }
    }
    assert_eq!(
        control(&[frame(PRIORITY_UPDATE, b"")]).1,
        Err(FrameError::Malformed(PRIORITY_UPDATE))
    );
}

#[test]
fn a_field_section_beyond_the_limit_is_refused_at_its_announcement() {
    assert_eq!(request(&[frame(HEADERS, &[0; 1000])]).1, Ok(()));
    for length in [1001, 1 << 30, varint::MAX] {
        let (events, end) = request(&[announced(HEADERS, length)]);
        let expected = FrameError::TooLarge { announced: length, limit: 1000 };
        assert_eq!((events, end), (vec![], Err(expected)));
        assert!(expected.is_stream_error());
    }
}

#[test]
fn control_frames_beyond_any_use_are_refused_at_their_announcement() {
    let (_, end) = read(StreamKind::Control, &announced(SETTINGS, 1 << 20), usize::MAX);
    assert_eq!(end, Err(FrameError::Oversized { ty: SETTINGS, announced: 1 << 20 }));
    let (_, end) = control(&[announced(PRIORITY_UPDATE, 513)]);
    assert_eq!(end.unwrap_err().code(), Code::H3_EXCESSIVE_LOAD);
    assert!(!end.unwrap_err().is_stream_error());
}

#[test]
fn a_large_unknown_frame_is_skipped_and_none_of_it_held() {
    let mut reader = FrameReader::new(StreamKind::Request, LIMITS);
    reader.push(announced(0x21, 1 << 30).into());
    let chunk = Bytes::from(vec![0; 1 << 20]);
    for _ in 0..1 << 10 {
        assert_eq!(reader.next_event(), Ok(None));
        assert_eq!((reader.buffered_bytes(), reader.input.len()), (0, 0));
        reader.push(chunk.clone());
    }
    assert_eq!(reader.next_event(), Ok(None));
    reader.push(head().into());
    assert_eq!(reader.next_event(), Ok(Some(headers(b"head"))));
}

#[test]
fn frames_that_bring_nothing_have_an_end() {
    for idle in [frame(0x21, b""), frame(0x21, b"some"), frame(DATA, b"")] {
        let within = [head(), idle.repeat(3), frame(DATA, b"x"), idle.repeat(3)];
        assert_eq!(request(&within).1, Ok(()), "DATA in between is progress");
        let (_, end) = request(&[head(), idle.repeat(4)]);
        assert_eq!(end, Err(FrameError::Idle(4)));
        assert_eq!(end.unwrap_err().code(), Code::H3_EXCESSIVE_LOAD);
    }
    assert_eq!(control(&[frame(0x21, b"").repeat(4)]).1, Err(FrameError::Idle(4)));
}

#[test]
fn a_stream_that_ends_inside_of_a_frame_is_truncated() {
    let bytes = [head(), frame(DATA, b"body"), frame(0x21, b"some")].concat();
    let between = [head().len(), head().len() + 6, bytes.len()];
    for cut in 1..=bytes.len() {
        let (_, end) = read(StreamKind::Request, &bytes[..cut], usize::MAX);
        let expected = if between.contains(&cut) { Ok(()) } else { Err(FrameError::Truncated) };
        assert_eq!(end, expected, "{cut}");
    }
    assert_eq!(FrameError::Truncated.code(), Code::H3_FRAME_ERROR);
}

#[test]
fn a_request_without_a_head_is_incomplete() {
    for frames in [vec![], vec![frame(0x21, b"x")]] {
        let (_, end) = request(&frames);
        assert_eq!(end, Err(FrameError::Incomplete));
        assert_eq!(end.unwrap_err().code(), Code::H3_REQUEST_INCOMPLETE);
        assert!(end.unwrap_err().is_stream_error());
    }
}
