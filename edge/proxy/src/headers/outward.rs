//! An agent's header fields on their way to the client.

use std::time::Duration;

use edge_telemetry::digits;
use http::{HeaderMap, HeaderValue, header};

use super::{ERROR, REUSE, SANDBOX, SERVER_TIMING, VERSION, seen::Seen, strip};

/// Removes what the client must not see and what a guest must not say. Returns whether a field of ours
/// is left, which the client is told.
pub(crate) fn prepare(headers: &mut HeaderMap) -> bool {
    let mut left = false;
    strip(headers, |name, kind| {
        if kind.has(Seen::OURS) {
            let told = [SANDBOX, ERROR, REUSE, VERSION].contains(name);
            left |= told;
            return !told;
        }
        *name == header::ALT_SVC // a guest does not say where else the edge listens
    });
    left
}

/// What the agent says of where the time went, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Timing {
    pub(crate) lease_ms: Option<f32>,
    pub(crate) restore_ms: Option<f32>,
    pub(crate) upstream_ms: Option<f32>,
}

/// Puts the edge's own entry before those of the agent and reads what the agent said.
pub(crate) fn add_timing(headers: &mut HeaderMap, route: Duration) -> Timing {
    let mut timing = Timing::default();
    let mut text = Vec::with_capacity(96);
    text.extend_from_slice(b"route;dur=");
    let us = route.saturating_add(Duration::from_nanos(500)).as_micros(); // rounded
    digits::thousandths(&mut text, u64::try_from(us).unwrap_or(u64::MAX));
    for entry in headers.get_all(&SERVER_TIMING) {
        if let Ok(entry) = entry.to_str() {
            text.extend_from_slice(b", ");
            text.extend_from_slice(entry.as_bytes());
            // The agent's own is the last: what a guest says stands before it.
            timing = Timing::default();
            read_timing(entry, &mut timing);
        }
    }
    if let Ok(mut value) = HeaderValue::try_from(text) {
        value.set_sensitive(true); // comes once: no use to a table of header compression
        headers.insert(SERVER_TIMING, value);
    }
    timing
}

fn read_timing(entry: &str, timing: &mut Timing) {
    for part in entry.split(',') {
        let Some((name, duration)) = part.trim().split_once(";dur=") else { continue };
        let place = match name {
            "lease" => &mut timing.lease_ms,
            "restore" => &mut timing.restore_ms,
            "upstream" => &mut timing.upstream_ms,
            _ => continue,
        };
        *place = duration.parse().ok().filter(|ms: &f32| ms.is_finite() && *ms >= 0.0);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn client_sees_of_our_fields_only_what_is_told_to_it() {
        let mut headers = map(&[
            ("x-wrenn-reuse", "sequential; request=2; max=10"),
            ("x-wrenn-sandbox", "sb_1"),
            ("x-wrenn-error", "pool_empty"),
            ("x-wrenn-token", "secret"),
            ("x-wrenn-reused", "not ours to tell"),
            ("alt-svc", "h3=\":1\""),
            ("x-mine", "stays"),
        ]);
        prepare(&mut headers);
        assert_eq!(headers["x-wrenn-reuse"], "sequential; request=2; max=10");
        for stays in ["x-wrenn-sandbox", "x-wrenn-error", "x-mine"] {
            assert!(headers.contains_key(stays), "{stays}");
        }
        for gone in ["x-wrenn-token", "x-wrenn-reused", "alt-svc"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn route_comes_before_the_agents_timings_which_are_read() {
        let mut headers = map(&[("server-timing", "lease;dur=0.1, upstream;dur=3, db;dur=x")]);
        let timing = add_timing(&mut headers, Duration::from_micros(250));
        let text = "route;dur=0.250, lease;dur=0.1, upstream;dur=3, db;dur=x";
        assert_eq!(headers["server-timing"], text);
        let expected = Timing { lease_ms: Some(0.1), restore_ms: None, upstream_ms: Some(3.0) };
        assert_eq!(timing, expected);
    }
}
