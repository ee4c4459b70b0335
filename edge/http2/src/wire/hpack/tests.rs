//! Field blocks: those of the RFC, what is refused, and what is remembered.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::{Decoder, HpackError, write_field, write_no_table, write_status};

type Pair = (String, String);

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Pair>, HpackError> {
    let mut fields = Vec::new();
    decoder.decode(Bytes::copy_from_slice(block), |field| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        fields.push((text(field.name()), text(field.value())));
    })?;
    Ok(fields)
}

fn pairs(list: &[(&str, &str)]) -> Vec<Pair> {
    list.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn refused(block: &[u8], because: &str) {
    let error = decode(&mut Decoder::new(), block).unwrap_err();
    assert!(error.to_string().contains(because), "{error}, not {because}");
}

#[test]
fn the_requests_of_the_rfc_are_read_plain_and_in_huffman_code() {
    let get = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
    let first = [&get[..], &[(":authority", "www.example.com")]].concat();
    let second = [&first[..], &[("cache-control", "no-cache")]].concat();
    let third = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ];
    // RFC 7541 C.3 and C.4.
    let plain: [&[u8]; 3] = [
        b"\x82\x86\x84\x41\x0fwww.example.com",
        b"\x82\x86\x84\xbe\x58\x08no-cache",
        b"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
    ];
    let huffman: [&[u8]; 3] = [
        b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
        b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
        b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
    ];
    for blocks in [plain, huffman] {
        let mut decoder = Decoder::new();
        for (block, fields) in blocks.into_iter().zip([&first[..], &second, &third]) {
            assert_eq!(decode(&mut decoder, block).unwrap(), pairs(fields));
        }
    }
}

#[test]
fn what_has_no_room_is_forgotten_oldest_first() {
    // RFC 7541 C.5, whose table has 256 bytes.
    let mut decoder = Decoder::new();
    decode(&mut decoder, b"\x3f\xe1\x01").unwrap();
    let first = b"\x48\x03302\x58\x07private\x61\x1dMon, 21 Oct 2013 20:13:21 GMT\x6e\x17https://www.example.com";
    decode(&mut decoder, first).unwrap();
    let again = decode(&mut decoder, b"\x48\x03307\xc1\xc0\xbf").unwrap();
    assert_eq!(
        again,
        pairs(&[
            (":status", "307"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("location", "https://www.example.com"),
        ])
    );
    // `:status: 302` went when 307 came.
    assert_eq!(decode(&mut decoder, b"\xc1").unwrap()[0].1, "private");
    assert!(decode(&mut decoder, b"\xc2").is_err());
}

#[test]
fn a_field_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::new();
    decode(&mut decoder, b"\x40\x01a\x01b").unwrap();
    assert_eq!(decode(&mut decoder, b"\xbe").unwrap(), pairs(&[("a", "b")]));
    let large = [b"\x40\x01c\x7f\x81\x1f".as_slice(), &[b'x'; 4096]].concat();
    decode(&mut decoder, &large).unwrap();
    assert!(decode(&mut decoder, b"\xbe").is_err());
}

#[test]
fn sizes_may_be_lowered_and_raised_again_but_not_above_the_limit() {
    let mut decoder = Decoder::new();
    decode(&mut decoder, b"\x40\x01a\x01b").unwrap();
    assert!(decode(&mut decoder, b"\x20\xbe").is_err(), "it was emptied");
    let mut decoder = Decoder::new();
    decode(&mut decoder, b"\x20\x3f\xe1\x1f\x40\x01a\x01b").unwrap();
    assert_eq!(decode(&mut decoder, b"\xbe").unwrap(), pairs(&[("a", "b")]));
    refused(b"\x3f\xe2\x1f", "larger than allowed");
    refused(b"\x82\x20", "late");
}

#[test]
fn blocks_that_are_none_are_refused() {
    refused(b"\x80", "beyond the tables");
    refused(b"\xbe", "beyond the tables");
    refused(b"\x7e\x01x", "beyond the tables");
    refused(b"\xff\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", "too large");
    refused(b"\xff", "cut short");
    refused(b"\x40", "cut short");
    refused(b"\x40\x05abc", "cut short");
    refused(b"\x00\x01a\x81\x00", "huffman");
}

#[test]
fn answers_are_read_as_they_are_written() {
    let mut block = BytesMut::new();
    write_no_table(&mut block);
    for status in [200, 404, 418] {
        write_status(http::StatusCode::from_u16(status).unwrap(), &mut block);
    }
    write_field(b"content-type", b"text/plain", false, &mut block);
    write_field(b"accept-encoding", b"gzip, deflate", false, &mut block);
    write_field(b"set-cookie", b"a=1", true, &mut block);
    write_field(b"x-mine", b"", true, &mut block);
    let mut secrets = Vec::new();
    let mut decoder = Decoder::new();
    decoder.decode(block.clone().freeze(), |field| secrets.push(field.never_indexed)).unwrap();
    assert_eq!(secrets, [false, false, false, false, false, true, true]);
    assert_eq!(
        decode(&mut decoder, &block).unwrap(),
        pairs(&[
            (":status", "200"),
            (":status", "404"),
            (":status", "418"),
            ("content-type", "text/plain"),
            ("accept-encoding", "gzip, deflate"),
            ("set-cookie", "a=1"),
            ("x-mine", ""),
        ])
    );
}

proptest! {
    #[test]
    fn fields_survive_the_round_trip(
        fields in proptest::collection::vec(("[a-z-]{1,40}", "[ -~]{0,300}", any::<bool>()), 0..12),
    ) {
        let mut block = BytesMut::new();
        for (name, value, secret) in &fields {
            write_field(name.as_bytes(), value.as_bytes(), *secret, &mut block);
        }
        let wanted: Vec<Pair> = fields.into_iter().map(|(name, value, _)| (name, value)).collect();
        prop_assert_eq!(decode(&mut Decoder::new(), &block).unwrap(), wanted);
    }
}
