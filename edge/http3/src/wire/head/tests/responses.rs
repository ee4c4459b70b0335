//! What responses and trailers look like in bytes.

use http::{HeaderValue, Response, StatusCode};

use super::*;
use crate::wire::{Event, FrameReader, StreamKind, varint};

fn parts(status: u16, fields: &[Pair<'_>]) -> http::response::Parts {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).unwrap().into_parts().0
}

fn decoded(payload: Bytes) -> Vec<(String, String)> {
    let limits = Limits { field_section_bytes: 1 << 20, ..Limits::default() };
    let mut section = Section::new(payload, &limits).unwrap();
    let mut fields = Vec::new();
    while let Some(field) = section.next_field().unwrap() {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        fields.push((text(field.name()), text(field.value())));
    }
    fields
}

fn encoded(parts: &http::response::Parts) -> Vec<(String, String)> {
    let mut out = BytesMut::new();
    encode_response(parts, &mut out);
    decoded(out.freeze())
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.into(), value.into())
}

#[test]
fn the_status_comes_first_whatever_it_is() {
    for status in (100..600).chain([999]) {
        let fields = encoded(&parts(status, &[("x", "y")]));
        assert_eq!(fields, [pair(":status", &status.to_string()), pair("x", "y")]);
    }
}

#[test]
fn fields_of_the_connection_are_left_out() {
    let response = parts(
        200,
        &[
            ("connection", "close"),
            ("keep-alive", "1"),
            ("proxy-connection", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("content-length", "3"),
        ],
    );
    assert_eq!(encoded(&response), [pair(":status", "200"), pair("content-length", "3")]);
}

#[test]
fn fields_given_twice_are_written_twice() {
    let response = parts(200, &[("set-cookie", "a=1"), ("set-cookie", "b=2")]);
    let cookies = &encoded(&response)[1..];
    assert_eq!(cookies, [pair("set-cookie", "a=1"), pair("set-cookie", "b=2")]);
}

#[test]
fn common_heads_are_short() {
    let mut out = BytesMut::new();
    let common = [("content-type", "application/json"), ("vary", "origin")];
    encode_response(&parts(200, &common), &mut out);
    assert_eq!(out, &b"\0\0\xd9\xee\xfc"[..]);
}

#[test]
fn sensitive_values_are_never_indexed() {
    let mut response = parts(StatusCode::OK.as_u16(), &[]);
    let mut secret = HeaderValue::from_static("}}}");
    secret.set_sensitive(true);
    response.headers.insert("set-cookie", secret);
    let mut out = BytesMut::new();
    encode_response(&response, &mut out);
    assert_eq!(out, &b"\0\0\xd9\x7e\x03}}}"[..]);
}

#[test]
fn frames_of_any_size_have_the_length_of_their_section() {
    for size in [0, 10, 16_300, 16_370, 16_380, 16_390, 17_000, 200_000] {
        // No letter that Huffman coding makes shorter.
        let value = "}".repeat(size);
        let response = parts(200, &[("x-large", &value)]);
        let (mut section, mut frame) = (BytesMut::new(), BytesMut::from("before"));
        encode_response(&response, &mut section);
        response_frame(&response, &mut frame);
        assert!(frame.starts_with(b"before\x01"));
        let (length, bytes) = varint::decode(&frame[7..]).unwrap();
        assert_eq!(usize::try_from(length), Ok(section.len()), "{size}");
        assert_eq!(frame[7 + bytes..], section[..]);
        assert_eq!(decoded(section.freeze())[1], pair("x-large", &value));
    }
}

#[test]
fn trailers_are_written_as_they_are_read() {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.append("x", HeaderValue::from_static("1"));
    trailers.append("x", HeaderValue::from_static("2"));
    let kept = trailers.clone();
    for name in ["content-length", "host", "connection"] {
        trailers.insert(name, HeaderValue::from_static("1"));
    }
    let mut frame = BytesMut::new();
    trailers_frame(&trailers, &mut frame);
    let mut reader = FrameReader::new(StreamKind::Request, Limits::default());
    reader.push(frame.freeze());
    let Ok(Some(Event::Headers(payload))) = reader.next_event() else { panic!("no headers") };
    assert_eq!(decode_trailers(payload, &Limits::default()), Ok(kept));
}
