//! W3C Trace Context: who asked whom, across processes and into the guest.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

/// <https://www.w3.org/TR/trace-context/#traceparent-header>
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Flag: the caller records this trace.
const SAMPLED: u8 = 1;

/// A `traceparent` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: u128,
    /// The caller's span.
    pub span_id: u64,
    /// Whether the caller records it.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads the field as the specification's section 3.2 says: lower-case hex, no zero ids, version
    /// `ff` refused, of later versions the part that is known.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() < 55 || bytes[2] != b'-' || bytes[35] != b'-' || bytes[52] != b'-' {
            return None;
        }
        let version = hex(&bytes[..2])?;
        let ends = bytes.len() == 55 || (version != 0 && bytes[55] == b'-');
        if version == 0xff || !ends {
            return None;
        }
        let (trace_id, span_id) = (hex(&bytes[3..35])?, hex(&bytes[36..52])?);
        let flags = hex(&bytes[53..55])?;
        if trace_id == 0 || span_id == 0 {
            return None;
        }
        let span_id = u64::try_from(span_id).ok()?;
        let sampled = u8::try_from(flags).ok()? & SAMPLED != 0;
        Some(Self { trace_id, span_id, sampled })
    }
}

fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

/// This request's place in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: u128,
    /// Our span.
    pub span_id: u64,
    /// The caller's span; 0: the trace begins here.
    pub parent: u64,
    /// The span of the request to the agent: below ours, and what the guest continues.
    pub upstream_span_id: u64,
    /// Whether it is recorded.
    pub sampled: bool,
}

/// A span's id, never zero.
pub(crate) fn new_span_id() -> u64 {
    rand::random::<u64>() | 1
}

impl TraceContext {
    /// Continues the client's trace, or begins one that is recorded with probability `ratio`.
    #[must_use]
    pub fn of(headers: &HeaderMap, ratio: f64) -> Self {
        let mut fields = headers.get_all(TRACEPARENT).iter();
        let parent = match (fields.next(), fields.next()) {
            (Some(only), None) => only.to_str().ok().and_then(TraceParent::parse),
            _ => None,
        };
        let (trace_id, parent, sampled) = match parent {
            Some(TraceParent { trace_id, span_id, sampled }) => (trace_id, span_id, sampled),
            None => (rand::random::<u128>() | 1, 0, rand::random::<f64>() < ratio),
        };
        let (span_id, upstream_span_id) = (new_span_id(), new_span_id());
        Self { trace_id, span_id, parent, upstream_span_id, sampled }
    }

    /// Tells the guest: its spans hang from the upstream span. `tracestate` goes along only with the trace that it belongs to.
    pub fn propagate(&self, headers: &mut HeaderMap) {
        if self.parent == 0 {
            headers.remove(TRACESTATE);
        }
        let mut text = String::with_capacity(55);
        let (trace, span, flags) = (self.trace_id, self.upstream_span_id, self.flags());
        let _ = write!(text, "00-{trace:032x}-{span:016x}-{flags:02x}");
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(TRACEPARENT, value);
        }
    }

    /// The trace's flags, section 3.2.2.5.
    pub(crate) const fn flags(&self) -> u8 {
        if self.sampled { SAMPLED } else { 0 }
    }

    pub(crate) fn trace_id_text(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn only_what_the_specification_allows_is_read() {
        let good = TraceParent::parse(GOOD).unwrap();
        assert_eq!((good.span_id, good.sampled), (0xb7ad_6b71_6920_3331, true));
        let later = format!("cc{}-what-comes", &GOOD[2..]);
        assert!(TraceParent::parse(&later).is_some(), "a later version may be longer");
        for bad in [
            "",
            "00",
            &GOOD[1..],
            &GOOD.to_uppercase(),
            &format!("{GOOD}-x"),
            &format!("ff{}", &GOOD[2..]),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_trace_goes_on_with_a_span_of_our_own() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(GOOD));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        let context = TraceContext::of(&headers, 0.0);
        assert!(context.sampled);
        context.propagate(&mut headers);
        let told = TraceParent::parse(headers[TRACEPARENT].to_str().unwrap()).unwrap();
        assert_eq!((told.trace_id, told.span_id), (context.trace_id, context.upstream_span_id));
        let ours = [context.span_id, context.upstream_span_id, context.parent];
        assert_eq!(context.parent, 0xb7ad_6b71_6920_3331);
        assert!(ours[0] != ours[1] && !ours[..2].contains(&context.parent));
        assert_eq!(headers[TRACESTATE], "a=b");
    }

    #[test]
    fn a_new_trace_has_no_state_of_another() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static("nonsense"));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        let context = TraceContext::of(&headers, 1.0);
        assert!(context.sampled && context.parent == 0);
        context.propagate(&mut headers);
        assert!(!headers.contains_key(TRACESTATE));
        assert!(!TraceContext::of(&HeaderMap::new(), 0.0).sampled);
    }
}
