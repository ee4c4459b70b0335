//! What does the edge say itself in a request to an agent? Fields as they go onto the wire.
//!
//! A dozen fields in a map cost more than all else that is done with a request's head: each is hashed,
//! has an allocation of its own, and is copied onto the wire in the end. These go there at once.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::TOKEN;
use crate::routes::AgentToken;

/// What most requests need: fields of an attempt included.
const CAPACITY_BYTES: usize = 768;

/// Further fields of a request. None of them may stand in its map, too.
#[derive(Debug)]
pub(crate) struct Added {
    wire: Vec<u8>,
    /// Bytes that every attempt has.
    of_request: usize,
}

impl Added {
    pub(super) fn new() -> Self {
        Self { wire: Vec::with_capacity(CAPACITY_BYTES), of_request: 0 }
    }

    /// Adds a field whose value is ours: it has nothing in it that a client chose.
    #[inline]
    pub(super) fn ours(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        self.wire.extend_from_slice(name.as_bytes());
        self.wire.extend_from_slice(b": ");
        write(&mut self.wire);
        self.wire.extend_from_slice(b"\r\n");
        self.of_request = self.wire.len();
    }

    /// Adds a field whose value may turn out to be none (RFC 9110 5.5): then it is left out.
    #[inline]
    pub(super) fn text(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.wire.len();
        self.ours(name, write);
        let value = &self.wire[before + name.len() + 2..self.wire.len() - 2];
        let odd = |byte: u8| (byte < b' ' && byte != b'\t') | (byte == 0x7f);
        // Without a way out: many bytes at a time, that is.
        if value.iter().fold(false, |any, byte| any | odd(*byte)) {
            self.wire.truncate(before);
            self.of_request = before;
        }
    }

    /// Makes the fields those of an attempt at an agent, which only that agent may see.
    pub(crate) fn address(&mut self, token: &AgentToken, expect: bool) {
        let of_request = self.of_request;
        self.wire.truncate(of_request);
        self.ours("x-wrenn-token", |out| out.extend_from_slice(token.bytes()));
        if expect {
            // The agent asks for the body once it has leased a sandbox.
            self.ours("expect", |out| out.extend_from_slice(b"100-continue"));
        }
        self.of_request = of_request;
    }

    /// The fields, each with its CRLF.
    pub(crate) fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// Adds them to a map: for HTTP/2, which has another wire.
    pub(crate) fn append_to(&self, headers: &mut HeaderMap) {
        for line in self.wire.split(|byte| *byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\r") else { continue };
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let value = line.get(colon + 2..).unwrap_or_default();
            let name = HeaderName::from_bytes(&line[..colon]);
            if let (Ok(name), Ok(mut value)) = (name, HeaderValue::from_bytes(value)) {
                value.set_sensitive(name == TOKEN);
                headers.append(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_line_is_left_out_and_what_is_strange_is_not() {
        let mut added = Added::new();
        for (name, value) in [("a", "x\r\nb: y"), ("c", "\t~ä"), ("d", "\u{7f}"), ("e", "")] {
            added.text(name, |out| out.extend_from_slice(value.as_bytes()));
        }
        assert_eq!(added.wire(), "c: \t~ä\r\ne: \r\n".as_bytes());
    }

    #[test]
    fn each_attempt_has_its_own_token() {
        let token = |text: &str| AgentToken::new(text).unwrap();
        let mut added = Added::new();
        added.ours("via", |out| out.extend_from_slice(b"1.1 wrenn"));
        added.address(&token("one"), true);
        let text = "via: 1.1 wrenn\r\nx-wrenn-token: one\r\nexpect: 100-continue\r\n";
        assert_eq!(added.wire(), text.as_bytes());
        added.address(&token("two"), false);
        let mut headers = HeaderMap::new();
        headers.insert("via", HeaderValue::from_static("1.1 other"));
        added.append_to(&mut headers);
        let via: Vec<_> = headers.get_all("via").iter().collect();
        assert_eq!(via, ["1.1 other", "1.1 wrenn"]);
        assert_eq!((&headers["x-wrenn-token"], headers.len()), (&"two".parse().unwrap(), 3));
        assert!(headers["x-wrenn-token"].is_sensitive());
    }
}
