//! What the fuzzers call: the parsers, without a connection.

use bytes::{Bytes, BytesMut};

use crate::{
    chunk::Chunked,
    decode::Decoded,
    head::{self, Finder},
};

/// The outcome of decoding a chunked body: content and whether it ended; `None` if refused.
#[must_use]
pub fn chunked(input: &[u8], step: usize) -> Option<(Vec<u8>, bool)> {
    let mut decoder = Chunked::new();
    let mut buf = BytesMut::new();
    let mut content = Vec::new();
    let mut pieces = input.chunks(step.max(1));
    loop {
        match decoder.decode(&mut buf).ok()? {
            Decoded::Data(data) => content.extend_from_slice(&data),
            Decoded::Trailers(_) | Decoded::End => return Some((content, true)),
            Decoded::More => match pieces.next() {
                Some(piece) => buf.extend_from_slice(piece),
                None => return Some((content, false)),
            },
        }
    }
}

/// Where a request's head ends when `input` comes in pieces, and what it says.
#[must_use]
pub fn request(input: &[u8], step: usize) -> Option<(usize, Result<String, String>)> {
    let mut finder = Finder::default();
    let mut seen = 0;
    while seen < input.len() {
        seen = (seen + step.max(1)).min(input.len());
        if let Some(end) = finder.find(&input[..seen]) {
            let head = head::parse_request(Bytes::copy_from_slice(&input[..end]), &finder, 100);
            let said = head.map(|head| format!("{:?} {:?}", head.parts, head.body));
            return Some((end, said.map_err(|fault| fault.to_string())));
        }
    }
    None
}

/// The same for an answer's head.
#[must_use]
pub fn response(input: &[u8]) -> Option<Result<String, String>> {
    let mut finder = Finder::default();
    let end = finder.find(input)?;
    let head = head::parse_response(Bytes::copy_from_slice(&input[..end]), &finder);
    Some(head.map(|head| format!("{:?}", head.parts)).map_err(|fault| fault.to_string()))
}
