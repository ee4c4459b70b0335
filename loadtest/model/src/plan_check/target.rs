//! Targets of plans.

use std::path::Path;

use super::{Checked, bad, bad_text, is_token};
use crate::TargetPlan;

/// Headers that carry secrets. Reports hold the plan's headers, and no secret.
const SECRET: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "x-api-key"];

pub(super) fn check(target: &TargetPlan) -> Checked {
    match (&target.wrenn_dir, &target.url) {
        (None, None) => return bad("target", "none", "wrenn_dir or url"),
        (Some(_), Some(_)) => return bad("target", "two", "one of wrenn_dir and url"),
        (None, Some(url)) if !is_base(url) => {
            let expected = "http:// or https://, a host, and neither user nor query nor `#`";
            return bad_text("target.url", url, expected);
        }
        _ => {}
    }
    for (field, file) in [
        ("wrenn_dir", &target.wrenn_dir),
        ("ca_file", &target.ca_file),
        ("key_file", &target.key_file),
    ] {
        if file.as_deref() == Some(Path::new("")) {
            return bad_text(format!("target.{field}"), "", "a path");
        }
    }
    if let Some(domain) = &target.domain {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
        if domain.is_empty() || domain.len() > 253 || !domain.bytes().all(allowed) {
            return bad_text("target.domain", domain, "a host name");
        }
    }
    for (name, value) in &target.headers {
        let at = format!("target.headers.{name:?}");
        if !is_token(name) {
            return bad(at, "its name", "letters, digits and `-`");
        }
        if SECRET.contains(&name.to_ascii_lowercase().as_str()) {
            // Its value isn't repeated: it may be one.
            return bad(at, "a secret", "none, as reports hold headers; see target.key_file");
        }
        if !value.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t')) {
            return bad_text(at, value, "visible ASCII characters and blanks");
        }
    }
    Ok(())
}

fn is_base(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        let authority = rest.split('/').next().unwrap_or_default();
        let visible = rest.bytes().all(|b| b.is_ascii_graphic());
        let host = !authority.is_empty() && !authority.starts_with(':');
        visible && host && !authority.contains('@') && !rest.contains(['?', '#', '\\'])
    })
}
