//! How the fields of an answer become bytes (RFC 7541 6), without anything that is remembered.

use bytes::{BufMut as _, BytesMut};
use edge_fields::{Found, integer};
use http::StatusCode;

use super::static_table;

/// Says that no table is used: a client that has lowered its limit waits for that (RFC 7541 4.2).
pub(crate) fn write_no_table(out: &mut BytesMut) {
    out.put_u8(0b0010_0000);
}

/// Writes `:status`.
#[inline]
pub(crate) fn write_status(status: StatusCode, out: &mut BytesMut) {
    write_field(b":status", status.as_str().as_bytes(), false, out);
}

/// Writes one field, whose name has to be in lower case. One that is `never_indexed` stays spelled out
/// through all proxies (RFC 7541 7.1.3).
#[inline]
pub(crate) fn write_field(name: &[u8], value: &[u8], never_indexed: bool, out: &mut BytesMut) {
    let kind = u8::from(never_indexed) << 4;
    match static_table::find(name, value) {
        Found::Field(index) if !never_indexed => {
            integer::encode(u64::from(index) + 1, 7, 0b1000_0000, out);
        }
        Found::Field(index) | Found::Name(index) => {
            integer::encode(u64::from(index) + 1, 4, kind, out);
            write_string(value, out);
        }
        Found::Nothing => {
            out.put_u8(kind);
            write_string(name, out);
            write_string(value, out);
        }
    }
}

/// Plainly: Huffman code is a quarter shorter, and takes longer than the rest of an answer's head.
#[inline]
fn write_string(text: &[u8], out: &mut BytesMut) {
    integer::encode(text.len() as u64, 7, 0, out);
    out.put_slice(text);
}
