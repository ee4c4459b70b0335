//! How fields become the bytes of a field section (RFC 9204 4.5).
//!
//! Nothing is remembered: each field is a number of the static table, a name of it with a value, or
//! both spelled out. Strings are Huffman coded if that is shorter.

use bytes::{BufMut, BytesMut};

use edge_fields::{Found, huffman, integer};

use super::static_table;

/// Writes what a field section begins with: it needs no entry of a dynamic table (RFC 9204 4.5.1).
#[inline]
pub fn write_prefix(out: &mut BytesMut) {
    out.put_slice(&[0, 0]);
}

/// Writes one field. The name has to be in lower case. A field that is `never_indexed` stays
/// spelled out through all proxies (RFC 9204 7.1.3).
#[inline]
pub fn write_field(name: &[u8], value: &[u8], never_indexed: bool, out: &mut BytesMut) {
    let found = static_table::find(name, value);
    let never = u8::from(never_indexed);
    match found {
        Found::Field(index) if !never_indexed => write_indexed(index, out),
        Found::Field(index) | Found::Name(index) => {
            integer::encode(u64::from(index), 4, 0x50 | (never << 5), out);
            write_string(value, 7, 0, out);
        }
        Found::Nothing => {
            write_string(name, 3, 0x20 | (never << 4), out);
            write_string(value, 7, 0, out);
        }
    }
}

/// Writes `:status` with a code of three digits.
#[inline]
pub fn write_status(status: http::StatusCode, out: &mut BytesMut) {
    // The commonest answer, without looking for it.
    if status == http::StatusCode::OK {
        write_indexed(25, out);
    } else {
        write_field(b":status", status.as_str().as_bytes(), false, out);
    }
}

fn write_indexed(index: u8, out: &mut BytesMut) {
    integer::encode(u64::from(index), 6, 0xc0, out);
}

/// Writes a string: its length in `prefix` bits after one bit that says whether it is Huffman code,
/// in a byte whose bits before are `first`.
fn write_string(text: &[u8], prefix: u32, first: u8, out: &mut BytesMut) {
    let huffman_len = huffman::encoded_len(text);
    if huffman_len < text.len() {
        integer::encode(huffman_len as u64, prefix, first | (1 << prefix), out);
        huffman::encode(text, out);
    } else {
        integer::encode(text.len() as u64, prefix, first, out);
        out.put_slice(text);
    }
}
