//! Field sections: bytes of the RFC, limits, and what is refused.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::{Section, SectionError, write_field, write_prefix};
use crate::wire::{Code, Limits};

type Pair = (Vec<u8>, Vec<u8>);

fn decoded(payload: &[u8], limits: &Limits) -> Result<Vec<Pair>, SectionError> {
    let mut section = Section::new(Bytes::copy_from_slice(payload), limits)?;
    let mut fields = Vec::new();
    while let Some(field) = section.next_field()? {
        fields.push((field.name().to_vec(), field.value().to_vec()));
    }
    Ok(fields)
}

fn encoded<'a>(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> BytesMut {
    let mut out = BytesMut::new();
    write_prefix(&mut out);
    for (name, value) in fields {
        write_field(name, value, false, &mut out);
    }
    out
}

fn pair(name: &str, value: &str) -> Pair {
    (name.into(), value.into())
}

fn refused(payload: &[u8]) {
    let error = decoded(payload, &Limits::default()).unwrap_err();
    assert_eq!(error.code(), Code::QPACK_DECOMPRESSION_FAILED, "{payload:x?}: {error}");
}

#[test]
fn the_section_of_the_rfc_without_a_dynamic_table_is_read() {
    // RFC 9204 B.1.
    let payload = b"\x00\x00\x51\x0b/index.html";
    assert_eq!(decoded(payload, &Limits::default()), Ok(vec![pair(":path", "/index.html")]));
    let ours = encoded([(&b":path"[..], &b"/index.html"[..])]);
    assert!(ours.starts_with(&[0, 0, 0x51]));
    assert!(ours.len() < payload.len(), "huffman code is shorter");
    assert_eq!(decoded(&ours, &Limits::default()), decoded(payload, &Limits::default()));
}

#[test]
fn the_sections_of_the_rfc_with_a_dynamic_table_are_refused() {
    refused(b"\x03\x81\x10\x11"); // RFC 9204 B.2
    refused(b"\x05\x00\x80\xc1\x81"); // B.4
}

#[test]
fn every_kind_of_field_is_read() {
    let payload = b"\x00\x00\xd1\x5f\x50\x01x\x23abc\x02de\x33abc\x00\x7f\x45\x01y";
    let fields = decoded(payload, &Limits::default()).unwrap();
    let expected = [
        pair(":method", "GET"),
        pair("if-none-match", "x"),
        pair("abc", "de"),
        pair("abc", ""),
        pair("authorization", "y"),
    ];
    // 0x5f 0x50 is 15 + 80 = 95, user-agent; 0x7f 0x45 is 84.
    assert_eq!(fields[1].0, b"user-agent");
    assert_eq!(fields[0], expected[0]);
    assert_eq!(fields[2..], expected[2..]);
}

#[test]
fn secrets_are_marked_in_both_directions() {
    let mut out = BytesMut::new();
    write_prefix(&mut out);
    write_field(b"authorization", b"basic 1", true, &mut out);
    write_field(b"x-key", b"1", true, &mut out);
    write_field(b"x-frame-options", b"deny", true, &mut out);
    write_field(b"x-frame-options", b"deny", false, &mut out);
    let mut section = Section::new(out.freeze(), &Limits::default()).unwrap();
    let mut marks = Vec::new();
    while let Some(field) = section.next_field().unwrap() {
        marks.push(field.never_indexed);
        let never_indexed = field.never_indexed;
        assert_eq!(field.into_header_value().unwrap().is_sensitive(), never_indexed);
    }
    assert_eq!(marks, [true, true, true, false]);
}

#[test]
fn references_to_a_dynamic_table_are_refused() {
    refused(b"\x01\x00\xd1"); // required insert count
    refused(b"\x00\x80\xd1"); // negative base
    refused(b"\x00\x00\x80"); // indexed
    refused(b"\x00\x00\x10"); // indexed, post-base
    refused(b"\x00\x00\x40\x01x"); // name
    refused(b"\x00\x00\x00\x01x"); // name, post-base
    assert_eq!(decoded(b"\x00\x05\xd1", &Limits::default()).unwrap().len(), 1, "any base");
}

#[test]
fn what_is_cut_short_or_out_of_range_is_refused() {
    for payload in [&b""[..], b"\0", b"\0\0\xff", b"\0\0\x51", b"\0\0\x51\x02/", b"\0\0\x23ab"] {
        refused(payload);
    }
    refused(b"\0\0\xff\x24"); // 63 + 36 = 99
    refused(b"\0\0\x5f\x54\0"); // 15 + 84 = 99
    refused(b"\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
    refused(b"\0\0\x51\x7f\xff\xff\xff\xff\xff\xff\xff\xff\x7f"); // a length of 62 bits
    refused(b"\0\0\x51\x81\x00"); // padding of zeros
    refused(b"\0\0\x51\x84\xff\xff\xff\xff"); // end of string
}

#[test]
fn limits_count_names_values_and_32_bytes_for_each_field() {
    let payload = encoded([(&b"abc"[..], &b"defg"[..]), (b":method", b"GET")]);
    let exact = Limits { field_section_bytes: 39 + 42, fields: 2, ..Limits::default() };
    assert_eq!(decoded(&payload, &exact).unwrap().len(), 2);
    let less = Limits { field_section_bytes: 39 + 41, ..exact };
    assert_eq!(decoded(&payload, &less), Err(SectionError::TooLarge { limit: 80 }));
    let fewer = Limits { fields: 1, ..exact };
    let error = decoded(&payload, &fewer).unwrap_err();
    assert_eq!(error, SectionError::TooMany { limit: 1 });
    assert_eq!(error.code(), Code::H3_EXCESSIVE_LOAD);
}

#[test]
fn indexed_fields_that_expand_meet_the_limit() {
    // One byte each, 85 bytes decoded: a bomb of 4000 bytes.
    let bomb = [&b"\0\0"[..], &[0xff, 22].repeat(4000)].concat();
    let limits = Limits { fields: usize::MAX, ..Limits::default() };
    assert_eq!(decoded(&bomb, &limits), Err(SectionError::TooLarge { limit: 32 * 1024 }));
}

proptest! {
    #[test]
    fn fields_survive_the_round_trip(
        fields in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), any::<Vec<u8>>()), 0..20),
    ) {
        let payload = encoded(fields.iter().map(|(name, value)| (&name[..], &value[..])));
        prop_assert_eq!(decoded(&payload, &Limits::default()).unwrap(), fields);
    }
}
