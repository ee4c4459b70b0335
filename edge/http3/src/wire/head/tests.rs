//! Heads and trailers: each rule with what it refuses and what it accepts.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod fields;
mod responses;
mod target;

use std::fmt;

use bytes::BytesMut;
use http::Method;

use super::*;
use crate::wire::qpack::{write_field, write_prefix};

type Pair<'a> = (&'a str, &'a str);

const GET: [Pair<'_>; 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/x?y")];

const CONNECT: [Pair<'_>; 2] = [(":method", "CONNECT"), (":authority", "a.test:443")];

const WEBSOCKET: [Pair<'_>; 5] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "https"),
    (":authority", "a.test"),
    (":path", "/chat"),
];

fn section(fields: &[Pair<'_>]) -> Bytes {
    let bytes: Vec<_> = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
    section_of_bytes(&bytes)
}

fn section_of_bytes(fields: &[(&[u8], &[u8])]) -> Bytes {
    let mut out = BytesMut::new();
    write_prefix(&mut out);
    for (name, value) in fields {
        write_field(name, value, false, &mut out);
    }
    out.freeze()
}

fn request(fields: &[Pair<'_>]) -> Result<RequestHead, HeadError> {
    decode_request(section(fields), &Limits::default())
}

/// A GET with more fields.
fn get_with(fields: &[Pair<'_>]) -> Result<RequestHead, HeadError> {
    request(&[&GET, fields].concat())
}

/// `fields` with another value for `name`, or without it.
fn but<'a>(fields: &[Pair<'a>], name: &str, value: Option<&'a str>) -> Vec<Pair<'a>> {
    assert!(fields.iter().any(|field| field.0 == name));
    let replaced = |&(n, v): &Pair<'a>| if n == name { Some((n, value?)) } else { Some((n, v)) };
    fields.iter().filter_map(replaced).collect()
}

#[track_caller]
fn refused<T: fmt::Debug>(result: Result<T, HeadError>, because: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code(), Code::H3_MESSAGE_ERROR);
    assert!(!error.is_connection_error() && !error.is_over_limit());
    assert!(error.to_string().contains(because), "{error}, not {because}");
}

#[test]
fn a_head_becomes_a_request() {
    let head = get_with(&[("accept", "*/*"), ("x-id", "1"), ("content-length", "12")]).unwrap();
    assert_eq!(head.parts.method, Method::GET);
    assert_eq!(head.parts.uri, "https://a.test/x?y");
    assert_eq!(head.parts.version, Version::HTTP_3);
    assert_eq!(head.parts.headers["accept"], "*/*");
    assert_eq!(head.parts.headers["x-id"], "1");
    assert_eq!(head.content_length, Some(12));
    assert!(!head.is_connect() && head.parts.extensions.get::<Protocol>().is_none());
    assert_eq!(get_with(&[]).unwrap().content_length, None);
}

#[test]
fn limits_and_qpack_are_told_apart_from_malformed_messages() {
    let limits = Limits { field_section_bytes: 200, fields: 6, idle_frames: 0 };
    let decode = |fields: &[Pair<'_>]| decode_request(section(fields), &limits).unwrap_err();
    let large = decode(&[&GET[..], &[("x", &"y".repeat(200))]].concat());
    assert!(large.is_over_limit() && !large.is_connection_error());
    let many = decode(&[("a", "b"); 7]);
    assert!(many.is_over_limit());
    let broken = decode_request(Bytes::from_static(b"\x01\x00"), &limits).unwrap_err();
    assert!(broken.is_connection_error() && !broken.is_over_limit());
    assert_eq!(broken.code(), Code::QPACK_DECOMPRESSION_FAILED);
    let trailers = decode_trailers(Bytes::from_static(b"\0\0\x80"), &limits).unwrap_err();
    assert!(trailers.is_connection_error());
}
