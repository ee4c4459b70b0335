//! A record as one line of JSON.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::record::{Outcome, RequestRecord};

/// Writes records as lines. Remembers the text of the second it was in last.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    second: Option<u64>,
    second_text: String,
}

impl Lines {
    /// Appends the record as a line.
    pub(crate) fn write(&mut self, line: &mut String, record: &RequestRecord) {
        let mut fields = Fields(line);
        fields.0.push_str("{ \"time\":\"");
        self.time(fields.0, record.at_ns);
        fields.0.push('"');
        fields.quoted("request_id", record.id.0);
        if let Some(client) = record.client {
            fields.quoted("client", client);
        }
        fields.text("protocol", record.protocol.as_str());
        fields.number("tls", record.tls);
        fields.text("method", record.method.as_str());
        fields.text("host", &record.host);
        fields.text("path", &record.path);
        fields.number("status", record.status);
        let complete = record.outcome == Outcome::Complete;
        fields.text("outcome", if complete { "complete" } else { "aborted" });
        write_route(&mut fields, record);
        fields.text("code", record.code);
        fields.text("error_source", record.error_source.as_str());
        if let Some(upstream) = record.upstream {
            fields.quoted("upstream", upstream);
        }
        fields.number("bytes_in", record.bytes_in);
        fields.number("bytes_out", record.bytes_out);
        fields.ms("route_ms", Some(record.route_ms));
        fields.ms("lease_ms", record.lease_ms);
        fields.ms("restore_ms", record.restore_ms);
        fields.ms("upstream_ms", record.upstream_ms);
        fields.ms("head_ms", Some(record.head_ms));
        fields.ms("total_ms", Some(record.total_ms));
        if record.retries > 0 {
            fields.number("retries", record.retries);
        }
        if record.interims > 0 {
            fields.number("interims", record.interims);
        }
        fields.number("reused", record.reused);
        fields.text("user_agent", &record.user_agent);
        if let Some(trace) = &record.trace {
            fields.text("trace_id", &trace.trace_id_text());
        }
        line.push_str("}\n");
    }

    /// RFC 3339 in UTC, with milliseconds.
    fn time(&mut self, line: &mut String, at_ns: u64) {
        let (second, ns) = (at_ns / SECOND_NS, at_ns % SECOND_NS);
        if self.second != Some(second) {
            self.second = Some(second);
            let at =
                i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
            let at = at.unwrap_or_default();
            self.second_text = at.to_string();
            self.second_text.pop(); // the Z
        }
        let _ = write!(line, "{}.{:03}Z", self.second_text, ns / (SECOND_NS / 1000));
    }
}

fn write_route(fields: &mut Fields<'_>, record: &RequestRecord) {
    fields.text("route", record.route.as_str());
    fields.text("function", record.function.as_deref().unwrap_or_default());
    fields.text("tag", record.tag.as_deref().unwrap_or_default());
    if record.version > 0 {
        fields.number("version", record.version);
    }
    if let Some(team) = record.team {
        fields.quoted("team", team);
    }
    if let Some(sandbox) = record.sandbox {
        fields.quoted("sandbox", sandbox);
    }
    if record.port > 0 {
        fields.number("port", record.port);
    }
}

const SECOND_NS: u64 = 1_000_000_000;

/// Writes JSON fields behind the first one.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    /// A string, escaped; left out if it is empty.
    fn text(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        self.name(name);
        escape(self.0, value);
    }

    /// What needs quotes, but no escaping: addresses, ids.
    fn quoted(&mut self, name: &str, value: impl std::fmt::Display) {
        self.name(name);
        let _ = write!(self.0, "\"{value}\"");
    }

    fn number(&mut self, name: &str, value: impl std::fmt::Display) {
        self.name(name);
        let _ = write!(self.0, "{value}");
    }

    /// With three decimals; left out if there is none.
    fn ms(&mut self, name: &str, value: Option<f32>) {
        // What is no number, or below zero, cannot have been measured.
        let Some(value) = value.filter(|value| value.is_finite() && *value >= 0.0) else { return };
        self.name(name);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is neither")]
        let us = (f64::from(value) * 1e3).round() as u64;
        let _ = write!(self.0, "{}.{:03}", us / 1000, us % 1000);
    }

    fn name(&mut self, name: &str) {
        for part in [",\"", name, "\":"] {
            self.0.push_str(part);
        }
    }
}

/// Appends a JSON string (RFC 8259 7); whatever a client sent, it stays one line.
fn escape(line: &mut String, text: &str) {
    line.push('"');
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        line.push_str(text);
    } else {
        escape_each(line, text);
    }
    line.push('"');
}

fn escape_each(line: &mut String, text: &str) {
    for part in text.chars() {
        match part {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(line, "\\u{:04x}", u32::from(part));
            }
            part => line.push(part),
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
        let mut line = String::new();
        escape(&mut line, &text);
        assert!(line.is_ascii() && !line.bytes().any(|byte| byte.is_ascii_control()), "{line}");
        assert!(line.starts_with("\"\\u0000") && line.contains("\\u0085\\u0086"), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        line.clear();
        escape(&mut line, "\u{a0}ä\u{1f600}");
        assert_eq!(line, "\"\u{a0}ä\u{1f600}\"", "what does no harm stays");
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
        let mut line = String::new();
        let mut lines = Lines::default();
        lines.write(&mut line, &record);
        assert_eq!(line.matches('\n').count(), 1);
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
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
            let json: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(json["time"], time);
        }
    }
}
