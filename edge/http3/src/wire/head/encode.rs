//! How the heads and trailers of responses become bytes.

use bytes::{BufMut, BytesMut};
use edge_fields::is_connection_specific;
use http::{HeaderMap, HeaderName, header, response};

use crate::wire::{
    frame::HEADERS,
    qpack::encoder::{write_field, write_prefix, write_status},
    varint,
};

/// How many bytes the length of a HEADERS frame gets before it is known: enough for 16383.
const LENGTH_BYTES: usize = 2;

/// Writes the field section of a response's head, final or interim (1xx). Fields that belong to a
/// connection are left out (RFC 9114 4.2).
pub fn encode_response(parts: &response::Parts, out: &mut BytesMut) {
    write_prefix(out);
    write_status(parts.status, out);
    write_fields(&parts.headers, out, |_| true);
}

/// Writes the field section of trailers, without what belongs to a connection or into the head.
pub fn encode_trailers(trailers: &HeaderMap, out: &mut BytesMut) {
    write_prefix(out);
    write_fields(trailers, out, |name| *name != header::CONTENT_LENGTH && *name != header::HOST);
}

/// Writes the HEADERS frame of a response's head, final or interim (1xx).
pub fn response_frame(parts: &response::Parts, out: &mut BytesMut) {
    headers_frame(out, |out| encode_response(parts, out));
}

/// Writes the HEADERS frame of trailers.
pub fn trailers_frame(trailers: &HeaderMap, out: &mut BytesMut) {
    headers_frame(out, |out| encode_trailers(trailers, out));
}

fn write_fields(fields: &HeaderMap, out: &mut BytesMut, wanted: fn(&HeaderName) -> bool) {
    for (name, value) in fields {
        if !is_connection_specific(name) && wanted(name) {
            write_field(name.as_str().as_bytes(), value.as_bytes(), value.is_sensitive(), out);
        }
    }
}

/// Writes the section right behind room for its length, so that almost none has to be moved.
fn headers_frame(out: &mut BytesMut, section: impl FnOnce(&mut BytesMut)) {
    varint::encode(HEADERS, out);
    let length_at = out.len();
    out.put_bytes(0, LENGTH_BYTES);
    section(out);
    let length = out.len() - length_at - LENGTH_BYTES;
    match u16::try_from(length) {
        Ok(length) if length < 1 << 14 => {
            out[length_at..length_at + LENGTH_BYTES]
                .copy_from_slice(&(length | 1 << 14).to_be_bytes());
        }
        _ => {
            let section = out.split_off(length_at + LENGTH_BYTES);
            out.truncate(length_at);
            varint::encode(length as u64, out);
            out.put_slice(&section);
        }
    }
}
