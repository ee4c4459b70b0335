//! Which cookie carries the token, and how do the others stay as they were?

use http::{HeaderMap, HeaderValue};

use super::{COOKIE, TrafficToken, header};

/// Takes every cookie of ours out; whether one of them was good. Other cookies stay byte for byte,
/// field for field (HTTP/2 may split them, RFC 9113 section 8.2.3).
pub(super) fn take(token: &TrafficToken, headers: &mut HeaderMap) -> bool {
    let ours = |value: &HeaderValue| pairs(value.as_bytes()).any(|pair| our_value(pair).is_some());
    if !headers.get_all(header::COOKIE).iter().any(ours) {
        return false;
    }
    let http::header::Entry::Occupied(entry) = headers.entry(header::COOKIE) else { return false };
    let (_, fields) = entry.remove_entry_mult();
    let mut good = false;
    let kept: Vec<HeaderValue> =
        fields.filter_map(|field| without_ours(token, field, &mut good)).collect();
    for field in kept {
        headers.append(header::COOKIE, field);
    }
    good
}

fn without_ours(token: &TrafficToken, field: HeaderValue, good: &mut bool) -> Option<HeaderValue> {
    let mut found = false;
    let mut rest: Vec<&[u8]> = Vec::new();
    for pair in pairs(field.as_bytes()) {
        if let Some(value) = our_value(pair) {
            found = true;
            *good |= token.matches(value);
        } else {
            rest.push(pair);
        }
    }
    if !found {
        return Some(field);
    }
    let rest = rest.join(&b';');
    let rest = rest.trim_ascii_start();
    if rest.is_empty() { None } else { HeaderValue::from_bytes(rest).ok() }
}

fn pairs(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    field.split(|b| *b == b';')
}

fn our_value(pair: &[u8]) -> Option<&[u8]> {
    let pair = pair.trim_ascii();
    let equals = pair.iter().position(|b| *b == b'=')?;
    let (name, value) = pair.split_at(equals);
    let value = value[1..].trim_ascii_start();
    let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    (name.trim_ascii_end() == COOKIE.as_bytes()).then(|| quoted.unwrap_or(value))
}
