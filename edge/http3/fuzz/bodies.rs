//! What has to hold for any bytes that a peer sends: an error, or what was read can be written and
//! read again; however the bytes were cut, and with no more of them held than the limits allow.

use bytes::{Bytes, BytesMut};
use edge_fields::{huffman, integer};
use edge_http3::fuzzing::{
    DecoderStream, EncoderStream, Event, FrameError, FrameReader, HeadError, Limits, Priority,
    StreamError, StreamKind, code::Code, decode_request, decode_trailers, encode_trailers,
    priority, qpack, settings, trailers_frame, varint,
};

/// Small, so that short inputs reach them.
const LIMITS: Limits = Limits { field_section_bytes: 600, fields: 8, idle_frames: 4 };

/// Cuts for the pieces of an input: all at once, byte by byte, and two that follow the input.
fn cuts(data: &[u8]) -> [Vec<usize>; 4] {
    let len = data.len();
    let by_content = |step: usize| {
        let chosen = move |&(index, byte): &(usize, &u8)| (usize::from(*byte) + index) % step == 0;
        data.iter().enumerate().filter(chosen).map(|(index, _)| index)
    };
    [vec![], (1..len).collect(), by_content(3).collect(), by_content(17).collect()]
}

/// The pieces of `data` between the cuts, which are sorted.
fn pieces<'a>(data: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([data.len()]);
    starts.zip(ends).map(|(start, end)| &data[start..end])
}

/// A request stream.
pub(crate) fn request_frames(data: &[u8]) {
    let (events, end) = frames_in_any_pieces(StreamKind::Request, data, LIMITS.field_section_bytes);
    let heads = events.iter().filter(|event| matches!(event, Event::Headers(_))).count();
    assert!(heads <= 2, "head and trailers");
    assert!(!matches!(events.first(), Some(Event::Data(_) | Event::DataEnd)), "a head comes first");
    assert!(heads > 0 || end.is_err());
    for event in events {
        match event {
            Event::Headers(section) => field_section(&section),
            Event::Data(data) => assert!(!data.is_empty()),
            Event::DataEnd => {}
            other => panic!("{other:?} on a request stream"),
        }
    }
}

/// The control stream after its type.
pub(crate) fn control_frames(data: &[u8]) {
    let most = settings::PAYLOAD_BYTES_MAX;
    let (events, _) = frames_in_any_pieces(StreamKind::Control, data, most);
    let (mut go_away, mut push) = (u64::MAX, 0);
    for (index, event) in events.into_iter().enumerate() {
        assert_eq!(index == 0, matches!(event, Event::Settings(_)), "once, and first");
        match event {
            Event::Settings(_) => {}
            Event::GoAway(id) => {
                assert!(id <= go_away);
                go_away = id;
            }
            Event::MaxPushId(id) => {
                assert!(id >= push);
                push = id;
            }
            Event::PriorityUpdate { stream_id, value } => {
                assert_eq!(stream_id % 4, 0);
                priority(&value);
            }
            other => panic!("{other:?} on the control stream"),
        }
    }
}

type Read = (Vec<Event>, Result<(), FrameError>);

/// The events of a stream, which are the same however it is cut.
fn frames_in_any_pieces(kind: StreamKind, data: &[u8], most: usize) -> Read {
    let cuts = cuts(data);
    let mut reads = cuts.iter().map(|cuts| frames(kind, pieces(data, cuts), most));
    let first = reads.next().expect("there are four ways to cut");
    for other in reads {
        assert_eq!(other, first);
    }
    if let Err(error) = first.1 {
        assert!(Code::ALL.contains(&error.code()));
    }
    first
}

fn frames<'a>(kind: StreamKind, pieces: impl Iterator<Item = &'a [u8]>, most: usize) -> Read {
    let mut reader = FrameReader::new(kind, LIMITS);
    let mut events = Vec::new();
    for piece in pieces {
        reader.push(Bytes::copy_from_slice(piece));
        loop {
            match (reader.next_event(), events.last_mut()) {
                // How DATA is cut is all that may differ.
                (Ok(Some(Event::Data(data))), Some(Event::Data(before))) => {
                    *before = [&before[..], &data[..]].concat().into();
                }
                (Ok(Some(event)), _) => events.push(event),
                (Ok(None), _) => break,
                (Err(error), _) => {
                    assert_eq!(reader.next_event(), Err(error));
                    assert_eq!(reader.finish(), Err(error));
                    return (events, Err(error));
                }
            }
        }
        assert!(reader.buffered_bytes() <= most + 2 * varint::MAX_BYTES);
    }
    (events, reader.finish())
}

/// The payload of a HEADERS frame.
pub(crate) fn field_section(data: &[u8]) {
    let payload = Bytes::copy_from_slice(data);
    let Ok(fields) = fields(payload.clone()) else {
        assert!(decode_trailers(payload, &LIMITS).is_err());
        return;
    };
    let size: usize = fields.iter().map(|(name, value, _)| name.len() + value.len() + 32).sum();
    assert!(size <= LIMITS.field_section_bytes && fields.len() <= LIMITS.fields);
    let mut again = BytesMut::new();
    qpack::write_prefix(&mut again);
    for (name, value, never_indexed) in &fields {
        qpack::write_field(name, value, *never_indexed, &mut again);
    }
    assert_eq!(self::fields(again.freeze()).as_ref(), Ok(&fields));
    request_head(payload.clone());
    trailers(payload);
}

type Field = (Vec<u8>, Vec<u8>, bool);

fn fields(payload: Bytes) -> Result<Vec<Field>, qpack::SectionError> {
    let mut section = qpack::Section::new(payload, &LIMITS)?;
    let mut fields = Vec::new();
    while let Some(field) = section.next_field()? {
        fields.push((field.name().to_vec(), field.value().to_vec(), field.never_indexed));
    }
    Ok(fields)
}

/// A head is an error of its stream, or a request that can be served as it is.
fn request_head(payload: Bytes) {
    let head = match decode_request(payload, &LIMITS) {
        Ok(head) => head,
        Err(error) => {
            assert!(matches!(error, HeadError::Malformed(_)), "the section can be decoded");
            return;
        }
    };
    let (uri, headers) = (&head.parts.uri, &head.parts.headers);
    let authority = uri.authority().expect("there is always one");
    assert!(!authority.host().is_empty() && !authority.as_str().contains('@'));
    let tunnel = head.is_connect() && uri.scheme().is_none();
    assert!(tunnel || uri.path().starts_with('/') || uri.path() == "*", "{uri}");
    let length = headers.get("content-length").map(|value| value.to_str().expect("digits"));
    assert_eq!(length.map(|length| length.parse().ok()), head.content_length.map(Some));
    for (name, value) in headers {
        assert!(!matches!(name.as_str(), "connection" | "transfer-encoding" | "upgrade"));
        assert!(!value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte)));
    }
    assert!(headers.get_all("cookie").iter().count() <= 1);
}

/// Trailers are written as they were read.
fn trailers(payload: Bytes) {
    let Ok(trailers) = decode_trailers(payload, &LIMITS) else { return };
    let (mut section, mut frame) = (BytesMut::new(), BytesMut::new());
    encode_trailers(&trailers, &mut section);
    trailers_frame(&trailers, &mut frame);
    let (read, _) = frames(StreamKind::Request, std::iter::once(&frame[..]), usize::MAX / 2);
    if section.len() <= LIMITS.field_section_bytes {
        assert_eq!(read, [Event::Headers(section.clone().freeze())]);
    }
    // Joined cookies may be longer than their crumbs, by two bytes each.
    let limits = Limits { field_section_bytes: 2 * LIMITS.field_section_bytes, ..LIMITS };
    assert_eq!(decode_trailers(section.freeze(), &limits), Ok(trailers));
}

/// A string that claims to be Huffman code.
pub(crate) fn huffman(data: &[u8]) {
    let (mut text, mut again) = (BytesMut::new(), BytesMut::new());
    if huffman::decode(data, &mut text).is_ok() {
        assert_eq!(huffman::encoded_len(&text), data.len());
        huffman::encode(&text, &mut again);
        assert_eq!(again, data, "there is one way to write a string");
    }
    (text, again) = (BytesMut::new(), BytesMut::new());
    huffman::encode(data, &mut again);
    huffman::decode(&again, &mut text).expect("what we write can be read");
    assert_eq!(text, data);
}

/// The peer's QPACK encoder stream after its type.
pub(crate) fn encoder_stream(data: &[u8]) {
    let read = |cuts: &Vec<usize>| {
        let mut stream = EncoderStream::default();
        let end = pieces(data, cuts).try_for_each(|piece| stream.push(piece));
        (end, stream.buffered_bytes())
    };
    same_in_any_pieces(data, read);
}

/// The peer's QPACK decoder stream after its type.
pub(crate) fn decoder_stream(data: &[u8]) {
    let read = |cuts: &Vec<usize>| {
        let mut stream = DecoderStream::default();
        let end = pieces(data, cuts).try_for_each(|piece| stream.push(piece));
        (end, stream.buffered_bytes())
    };
    same_in_any_pieces(data, read);
}

fn same_in_any_pieces(data: &[u8], read: impl Fn(&Vec<usize>) -> (Result<(), StreamError>, usize)) {
    let cuts = cuts(data);
    let whole = read(&cuts[0]);
    assert!(whole.1 <= integer::MAX_BYTES);
    for cuts in &cuts[1..] {
        assert_eq!(read(cuts), whole);
    }
}

/// A `priority` field.
pub(crate) fn priority(data: &[u8]) {
    let read = Priority::parse(data);
    assert!(read.urgency <= priority::URGENCY_MAX);
    let incremental = if read.incremental { "?1" } else { "?0" };
    let again = format!("u={}, i={incremental}", read.urgency);
    assert_eq!(Priority::parse(again.as_bytes()), read);
    assert_eq!(read.merged(data), read, "merging twice changes nothing");
}
