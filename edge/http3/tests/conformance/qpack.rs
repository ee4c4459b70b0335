//! Field sections and the streams beside them, without a dynamic table: RFC 9204.

use super::{Due::*, Sent, check};
use crate::support::*;

const DECOMPRESSION: super::Due = ConnectionError(0x200);
const ENCODER: super::Due = ConnectionError(0x201);
const DECODER: super::Due = ConnectionError(0x202);

/// A request whose field section has these bytes.
fn section(bytes: &[u8]) -> Sent {
    Sent::Request(frame(1, bytes))
}

/// GET, https, a path and a host out of the static table and by literals, then more lines.
fn get_with(lines: &[u8]) -> Sent {
    let get = [&[0, 0, 0xd1, 0xd7, 0xc1, 0x50, 0x06][..], b"a.test", lines].concat();
    section(&get)
}

#[tokio::test]
async fn field_sections_keep_their_rules() {
    let overflow = [&[0, 0, 0xff][..], &[0xff; 10]].concat();
    let rows = vec![
        ("4.5: lines of the static table", get_with(&[]), Status("200")),
        ("4.5: a line of the static table's last", get_with(&[0xff, 98 - 63]), Status("200")),
        ("3.1: past the static table", get_with(&[0xff, 99 - 63]), DECOMPRESSION),
        ("3.1: a name past the static table", get_with(&[0x5f, 99 - 15, 0]), DECOMPRESSION),
        ("4.5.1: an insert count without a table", section(&[1, 0, 0xd1]), DECOMPRESSION),
        ("4.5.1: a base below zero", section(&[0, 0x80, 0xd1]), DECOMPRESSION),
        ("4.5.1: no prefix", section(&[]), DECOMPRESSION),
        ("4.5.1: half a prefix", section(&[0]), DECOMPRESSION),
        ("4.5.2: a line of a table that is none", get_with(&[0x80]), DECOMPRESSION),
        ("4.5.3: a line past the base", get_with(&[0x10]), DECOMPRESSION),
        ("4.5.4: a name of a table that is none", get_with(&[0x40, 0]), DECOMPRESSION),
        ("4.5.5: a name past the base", get_with(&[0x00, 0]), DECOMPRESSION),
        ("4.1.1: a number too large", section(&overflow), DECOMPRESSION),
        ("4.1.1: a number cut", get_with(&[0xff]), DECOMPRESSION),
        ("4.1.2: a string cut", get_with(&[0x50, 9, b'x']), DECOMPRESSION),
        ("4.1.2: eight bits of padding", get_with(&[0x50, 0x81, 0xff]), DECOMPRESSION),
        ("4.1.2: padding of zeros", get_with(&[0x50, 0x81, 0x00]), DECOMPRESSION),
    ];
    check(rows).await;
}

#[tokio::test]
async fn the_streams_beside_them_keep_their_rules() {
    let with = |bytes: &[u8]| Sent::Streams(vec![vec![0, 4, 0], bytes.to_vec()]);
    let rows = vec![
        ("3.2.3: a capacity of none", with(&[2, 0x20]), Nothing),
        ("3.2.3: a capacity above ours", with(&[2, 0x21]), ENCODER),
        ("4.3.2: an insertion by a name of the static table", with(&[2, 0xc0, 0]), ENCODER),
        ("4.3.3: an insertion of a literal", with(&[2, 0x41, b'a', 1, b'b']), ENCODER),
        ("4.3.4: a duplicate", with(&[2, 0x00]), ENCODER),
        ("4.4.1: a section is acknowledged that needs it not", with(&[3, 0x84]), DECODER),
        ("4.4.2: a stream is cancelled", with(&[3, 0x40]), Nothing),
        ("4.4.3: an increment of nothing", with(&[3, 0x00]), DECODER),
        ("4.4.3: more than was inserted", with(&[3, 0x01]), DECODER),
    ];
    check(rows).await;
}
