//! A record as one line of JSON.

use std::{io::Write as _, net::SocketAddr};

use jiff::Timestamp;
use pool_model::{IdText, TeamId};

use crate::{
    digits,
    record::{Outcome, RequestRecord},
};

/// What a line has besides the texts that a client chose, at most.
const LINE_BYTES: usize = 1024;

/// Writes records as lines. Remembers the texts of what often is the same in the next one.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    second: Last<u64>,
    client: Last<SocketAddr>,
    team: Last<TeamId>,
    upstream: Last<SocketAddr>,
}

/// The last value and its text.
#[derive(Debug)]
struct Last<T> {
    value: Option<T>,
    text: Vec<u8>,
}

impl<T> Default for Last<T> {
    fn default() -> Self {
        Self { value: None, text: Vec::new() }
    }
}

impl<T: Copy + PartialEq> Last<T> {
    #[inline]
    fn text(&mut self, value: T, write: impl FnOnce(&mut Vec<u8>, T)) -> &[u8] {
        if self.value != Some(value) {
            self.value = Some(value);
            self.text.clear();
            write(&mut self.text, value);
        }
        &self.text
    }
}

/// A field's name and what stands around it, as one constant: copied by a few instructions.
macro_rules! name {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

impl Lines {
    /// Appends the record as a line.
    pub(crate) fn write(&mut self, line: &mut Vec<u8>, record: &RequestRecord) {
        line.reserve(LINE_BYTES); // most lines as a whole: nothing grows in between
        let mut fields = Fields(line);
        fields.put("{ \"time\":\"");
        self.time(fields.0, record.at_ns);
        fields.put("\"");
        fields.id(name!("request_id"), record.id.0.text());
        if let Some(client) = record.client {
            fields.plain(name!("client"), self.client.text(client, digits::address));
        }
        fields.word(name!("protocol"), record.protocol.as_str());
        fields.truth(name!("tls"), record.tls);
        fields.text(name!("method"), record.method.as_str());
        fields.text(name!("host"), &record.host);
        fields.text(name!("path"), &record.path);
        fields.number(name!("status"), record.status.into());
        let complete = record.outcome == Outcome::Complete;
        fields.word(name!("outcome"), if complete { "complete" } else { "aborted" });
        write_route(&mut fields, record, &mut self.team);
        fields.word(name!("code"), record.code);
        fields.word(name!("error_source"), record.error_source.as_str());
        if let Some(upstream) = record.upstream {
            fields.plain(name!("upstream"), self.upstream.text(upstream, digits::address));
        }
        write_numbers(&mut fields, record);
        fields.text(name!("user_agent"), &record.user_agent);
        if let Some(trace) = &record.trace {
            fields.word(name!("trace_id"), &trace.trace_id_text());
        }
        fields.put("}\n");
    }

    /// RFC 3339 in UTC, with milliseconds.
    fn time(&mut self, line: &mut Vec<u8>, at_ns: u64) {
        let (second, ns) = (at_ns / SECOND_NS, at_ns % SECOND_NS);
        let text = self.second.text(second, |text, second| {
            let second = i64::try_from(second).ok();
            let at = second.and_then(|second| Timestamp::from_second(second).ok());
            let _ = write!(text, "{}", at.unwrap_or_default()); // a vector takes everything
            text.pop(); // the Z
        });
        line.extend_from_slice(text);
        line.push(b'.');
        digits::three(line, ns / (SECOND_NS / 1000));
        line.push(b'Z');
    }
}

fn write_route(fields: &mut Fields<'_>, record: &RequestRecord, last: &mut Last<TeamId>) {
    fields.word(name!("route"), record.route.as_str());
    fields.text(name!("function"), record.function.as_deref().unwrap_or_default());
    fields.text(name!("tag"), record.tag.as_deref().unwrap_or_default());
    if record.version > 0 {
        fields.number(name!("version"), record.version.into());
    }
    if let Some(team) = record.team {
        let write = |text: &mut Vec<u8>, team: TeamId| {
            text.extend_from_slice(team.text().as_bytes());
        };
        fields.plain(name!("team"), last.text(team, write));
    }
    if let Some(sandbox) = record.sandbox {
        fields.id(name!("sandbox"), sandbox.text());
    }
    if record.port > 0 {
        fields.number(name!("port"), record.port.into());
    }
}

fn write_numbers(fields: &mut Fields<'_>, record: &RequestRecord) {
    fields.number(name!("bytes_in"), record.bytes_in);
    fields.number(name!("bytes_out"), record.bytes_out);
    fields.ms(name!("route_ms"), Some(record.route_ms));
    fields.ms(name!("lease_ms"), record.lease_ms);
    fields.ms(name!("restore_ms"), record.restore_ms);
    fields.ms(name!("upstream_ms"), record.upstream_ms);
    fields.ms(name!("head_ms"), Some(record.head_ms));
    fields.ms(name!("total_ms"), Some(record.total_ms));
    if record.retries > 0 {
        fields.number(name!("retries"), record.retries.into());
    }
    if record.interims > 0 {
        fields.number(name!("interims"), record.interims.into());
    }
    fields.truth(name!("reused"), record.reused);
}

const SECOND_NS: u64 = 1_000_000_000;

/// Writes JSON fields behind the first one. Names are those of `name!`.
struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    #[inline]
    fn put(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// A string, escaped; left out if it is empty.
    #[inline]
    fn text(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() {
            self.put(name);
            escape(self.0, value);
        }
    }

    /// A string of ours, which has nothing to escape; left out if it is empty.
    #[inline]
    fn word(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() {
            self.plain(name, value.as_bytes());
        }
    }

    #[inline]
    fn id(&mut self, name: &'static str, value: IdText) {
        self.plain(name, value.as_bytes());
    }

    /// A string of ours, as ASCII.
    #[inline]
    fn plain(&mut self, name: &'static str, value: &[u8]) {
        self.put(name);
        self.put("\"");
        self.0.extend_from_slice(value);
        self.put("\"");
    }

    #[inline]
    fn number(&mut self, name: &'static str, value: u64) {
        self.put(name);
        digits::number(self.0, value);
    }

    #[inline]
    fn truth(&mut self, name: &'static str, value: bool) {
        self.put(name);
        self.put(if value { "true" } else { "false" });
    }

    /// With three decimals; left out if there is none.
    #[inline]
    fn ms(&mut self, name: &'static str, value: Option<f32>) {
        // What is no number, or below zero, cannot have been measured.
        let Some(value) = value.filter(|value| value.is_finite() && *value >= 0.0) else { return };
        self.put(name);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is neither")]
        // Rounded: an f32's thousandfold has so few digits that this sum is exact.
        let us = (f64::from(value) * 1e3 + 0.5) as u64;
        digits::thousandths(self.0, us);
    }
}

/// Appends a JSON string (RFC 8259 7); whatever a client sent, it stays one line.
fn escape(line: &mut Vec<u8>, text: &str) {
    line.push(b'"');
    // All bytes are looked at, without a way out: many at a time, that is.
    let odd = |byte: u8| !matches!(byte, b' '..=b'~') | (byte == b'"') | (byte == b'\\');
    if text.bytes().fold(false, |any, byte| any | odd(byte)) {
        escape_each(line, text);
    } else {
        line.extend_from_slice(text.as_bytes());
    }
    line.push(b'"');
}

fn escape_each(line: &mut Vec<u8>, text: &str) {
    for part in text.chars() {
        match part {
            '"' => line.extend_from_slice(b"\\\""),
            '\\' => line.extend_from_slice(b"\\\\"),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(line, "\\u{:04x}", u32::from(part)); // a vector takes everything
            }
            part => line.extend_from_slice(part.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordId;

    #[test]
    fn characters_that_steer_a_terminal_or_end_a_line_are_escaped() {
        let hostile = || (0..=0x1f).chain(0x7f..=0x9f).chain([0x2028, 0x2029]);
        let text: String = hostile().map(|code| char::from_u32(code).unwrap()).collect();
        let escaped = |text: &str| {
            let mut line = Vec::new();
            escape(&mut line, text);
            String::from_utf8(line).unwrap()
        };
        let line = escaped(&text);
        assert!(line.is_ascii() && !line.bytes().any(|byte| byte.is_ascii_control()), "{line}");
        assert!(line.starts_with("\"\\u0000") && line.contains("\\u0085\\u0086"), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        assert_eq!(escaped("\u{a0}ä\u{1f600}"), "\"\u{a0}ä\u{1f600}\"", "what does no harm stays");
    }

    #[test]
    fn what_is_remembered_of_one_line_is_not_said_of_the_next() {
        let of = |number: u8| RequestRecord {
            at_ns: u64::from(number) * SECOND_NS,
            client: Some(([10, 0, 0, number], 1).into()),
            team: Some(TeamId::from_u128(number.into())),
            upstream: Some(([10, 1, 0, number], 2).into()),
            ..RequestRecord::default()
        };
        let mut lines = Lines::default();
        for number in [1, 1, 2, 1] {
            let (mut line, mut alone) = (Vec::new(), Vec::new());
            lines.write(&mut line, &of(number));
            Lines::default().write(&mut alone, &of(number));
            let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(json["client"], format!("10.0.0.{number}:1"));
            assert_eq!(json["team"], TeamId::from_u128(number.into()).to_string());
            assert!(line == alone);
        }
    }

    #[test]
    fn a_line_is_json_whatever_the_client_sent() {
        let mut record = RequestRecord {
            id: RecordId(pool_model::RequestId::from_u128(7)),
            at_ns: 1_700_000_000_123_456_789,
            host: "a\"b\\c\nd\u{2028}e".to_owned(),
            status: 200,
            restore_ms: Some(1.5),
            lease_ms: Some(f32::NAN),
            ..RequestRecord::default()
        };
        record.set_path(&"ä".repeat(600));
        let mut line = Vec::new();
        let mut lines = Lines::default();
        lines.write(&mut line, &record);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(json["host"], "a\"b\\c\nd\u{2028}e");
        assert_eq!(json["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!((&json["status"], &json["restore_ms"]), (&200.into(), &1.5.into()));
        assert!(json.get("lease_ms").is_none() && json.get("code").is_none());
        assert_eq!(json["path"].as_str().unwrap().len(), 512);
        for (at_ns, time) in [
            (1_700_000_000_999_999_999, "2023-11-14T22:13:20.999Z"),
            (1_700_000_001_000_000_000, "2023-11-14T22:13:21.000Z"),
            (0, "1970-01-01T00:00:00.000Z"),
        ] {
            line.clear();
            lines.write(&mut line, &RequestRecord { at_ns, ..RequestRecord::default() });
            let json: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(json["time"], time);
        }
    }
}
