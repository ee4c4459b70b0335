//! A record as one line of JSON.

use std::{fmt::Write as _, net::SocketAddr};

use jiff::Timestamp;

use crate::record::{Outcome, RequestRecord};

/// Writes JSON fields; strings are escaped, absent values left out.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn text(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        self.name(name);
        escape(self.0, value);
    }

    fn number(&mut self, name: &str, value: impl std::fmt::Display) {
        self.name(name);
        let _ = write!(self.0, "{value}");
    }

    fn ms(&mut self, name: &str, value: Option<f32>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.name(name);
            let _ = write!(self.0, "{value:.3}");
        }
    }

    fn name(&mut self, name: &str) {
        self.0.push(if self.0.ends_with('{') { ' ' } else { ',' });
        let _ = write!(self.0, "\"{name}\":");
    }
}

/// Appends the record as a line.
pub(crate) fn write(line: &mut String, record: &RequestRecord) {
    line.push('{');
    let mut fields = Fields(line);
    let at = Timestamp::from_nanosecond(i128::from(record.at_ns)).unwrap_or_default();
    fields.text("time", &format!("{at:.3}"));
    fields.text("request_id", &record.id.0.to_string());
    fields.text("client", &record.client.map(|c: SocketAddr| c.to_string()).unwrap_or_default());
    fields.text("protocol", record.protocol.as_str());
    fields.number("tls", record.tls);
    fields.text("method", record.method.as_str());
    fields.text("host", &record.host);
    fields.text("path", &record.path);
    fields.number("status", record.status);
    fields
        .text("outcome", if record.outcome == Outcome::Complete { "complete" } else { "aborted" });
    fields.text("route", record.route.as_str());
    fields.text("function", record.function.as_deref().unwrap_or_default());
    fields.text("tag", record.tag.as_deref().unwrap_or_default());
    if record.version > 0 {
        fields.number("version", record.version);
    }
    fields.text("team", &record.team.map(|team| team.to_string()).unwrap_or_default());
    fields.text("sandbox", &record.sandbox.map(|id| id.to_string()).unwrap_or_default());
    if record.port > 0 {
        fields.number("port", record.port);
    }
    fields.text("code", record.code);
    fields.text("error_source", record.error_source.as_str());
    fields.text("upstream", &record.upstream.map(|to| to.to_string()).unwrap_or_default());
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

/// Appends a JSON string (RFC 8259 7); whatever a client sent, it stays one line.
fn escape(line: &mut String, text: &str) {
    line.push('"');
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
    line.push('"');
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
        write(&mut line, &record);
        assert_eq!(line.matches('\n').count(), 1);
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["host"], "a\"b\\c\nd\u{2028}e");
        assert_eq!(json["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!((&json["status"], &json["restore_ms"]), (&200.into(), &1.5.into()));
        assert!(json.get("lease_ms").is_none() && json.get("code").is_none());
        assert_eq!(json["path"].as_str().unwrap().len(), 512);
    }
}
