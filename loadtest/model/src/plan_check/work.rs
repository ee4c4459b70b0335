//! Works of plans.

use super::{Checked, MAX_BODY_BYTES, MAX_IN_FLIGHT, bad, bad_text, is_token, within};
use crate::{Dialect, Share, Stream, TargetPlan, Work};

/// Longest time between two messages, milliseconds: an hour.
const MAX_DELAY_MS: u64 = 3_600_000;

pub(super) fn check(at: &str, work: &Work, target: &TargetPlan) -> Checked {
    can_be_done(at, work, target)?;
    match work {
        Work::Http {
            path, method, body_bytes, expect_status, expect_sha256, expect_text, ..
        } => {
            request(at, path, method, *body_bytes)?;
            if let Some(status) = expect_status {
                within(format!("{at}.expect_status"), *status, 200..=599)?;
            }
            match expect_sha256 {
                Some(sum) if sum.len() != 64 || !sum.bytes().all(|b| b.is_ascii_hexdigit()) => {
                    return bad_text(format!("{at}.expect_sha256"), sum, "64 hexadecimal digits");
                }
                _ => {}
            }
            match expect_text {
                Some(text) if text.is_empty() => {
                    bad_text(format!("{at}.expect_text"), text, "a text, as nothing is in any body")
                }
                _ => Ok(()),
            }
        }
        Work::Invoke { function, path, method, body_bytes, .. } => {
            function_name(&format!("{at}.function"), function)?;
            request(at, path, method, *body_bytes)
        }
        Work::Proxy { response_bytes, request_bytes, sandboxes, .. } => {
            within(format!("{at}.response_bytes"), *response_bytes, 0..=MAX_BODY_BYTES)?;
            within(format!("{at}.request_bytes"), *request_bytes, 0..=MAX_BODY_BYTES)?;
            within(format!("{at}.sandboxes"), *sandboxes, 1..=1000)
        }
        Work::Ws(stream) | Work::Sse(stream) => stream_check(at, stream),
        Work::Lifecycle { template, command, file_bytes, .. } => {
            match template {
                Some(text) if text.trim().is_empty() => {
                    return bad_text(
                        format!("{at}.template"),
                        text,
                        "a template, or nothing at all",
                    );
                }
                _ => {}
            }
            if command.trim().is_empty() || command.len() > 65_536 || command.contains('\0') {
                return bad_text(format!("{at}.command"), command, "a command of up to 64 KiB");
            }
            within(format!("{at}.file_bytes"), *file_bytes, 0..=MAX_BODY_BYTES)
        }
        Work::Mix { of } => mix(at, of, target),
        Work::Pool { function, warm, burst, rounds } => {
            function_name(&format!("{at}.function"), function)?;
            within(format!("{at}.warm"), *warm, 1..=10_000)?;
            within(format!("{at}.burst"), *burst, 1..=MAX_IN_FLIGHT)?;
            within(format!("{at}.rounds"), *rounds, 1..=100)
        }
        Work::ScaleFromZero { functions, rounds } => {
            within(format!("{at}.functions"), functions.len(), 1..=1000)?;
            for (index, function) in functions.iter().enumerate() {
                let at = format!("{at}.functions[{index}]");
                function_name(&at, function)?;
                if functions[..index].contains(function) {
                    return bad_text(at, function, "each only once");
                }
            }
            within(format!("{at}.rounds"), *rounds, 1..=100)
        }
    }
}

/// Whether the target has what a work needs: functions and pools are known by a stack's directory.
fn can_be_done(at: &str, work: &Work, target: &TargetPlan) -> Checked {
    if target.wrenn_dir.is_some() {
        return Ok(());
    }
    let stack = match work {
        Work::Invoke { .. }
        | Work::Proxy { .. }
        | Work::Pool { .. }
        | Work::ScaleFromZero { .. } => true,
        Work::Ws(stream) | Work::Sse(stream) => stream.function.is_some(),
        Work::Lifecycle { dialect, .. } => {
            if *dialect == Dialect::V1 && target.key_file.is_none() {
                let expected = "target.key_file beside target.url, or target.wrenn_dir";
                return bad(at, "lifecycle without a key", expected);
            }
            false
        }
        // Each of a mix is asked by itself.
        Work::Http { .. } | Work::Mix { .. } => false,
    };
    if stack {
        let found = format!("{} without a stack", work.kind());
        return bad(at, found, "target.wrenn_dir instead of target.url");
    }
    Ok(())
}

fn mix(at: &str, of: &[Share], target: &TargetPlan) -> Checked {
    within(format!("{at}.of"), of.len(), 1..=100)?;
    for (index, share) in of.iter().enumerate() {
        let at = format!("{at}.of[{index}]");
        if !(share.weight > 0.0 && share.weight <= 1e9) {
            let expected = "a number above 0 and at most 1000000000";
            return bad(format!("{at}.weight"), share.weight, expected);
        }
        let at = format!("{at}.work");
        match share.work {
            Work::Mix { .. } | Work::Pool { .. } | Work::ScaleFromZero { .. } => {
                return bad(at, share.work.kind(), "a work that is one arrival's");
            }
            _ => check(&at, &share.work, target)?,
        }
    }
    Ok(())
}

fn stream_check(at: &str, stream: &Stream) -> Checked {
    if let Some(function) = &stream.function {
        function_name(&format!("{at}.function"), function)?;
    }
    path_check(at, &stream.path)?;
    within(format!("{at}.messages"), stream.messages, 1..=1_000_000)?;
    within(format!("{at}.delay_ms"), stream.delay_ms, 0..=MAX_DELAY_MS)?;
    within(format!("{at}.message_bytes"), stream.message_bytes, 0..=MAX_BODY_BYTES)
}

fn request(at: &str, path: &str, method: &str, body_bytes: usize) -> Checked {
    path_check(at, path)?;
    // CONNECT asks for a tunnel: it has no path.
    if !is_token(method) || method.len() > 32 || method == "CONNECT" {
        return bad_text(format!("{at}.method"), method, "an HTTP method like GET");
    }
    within(format!("{at}.body_bytes"), body_bytes, 0..=MAX_BODY_BYTES)
}

fn path_check(at: &str, path: &str) -> Checked {
    let visible = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if path.starts_with('/') && visible && path.len() <= 8192 {
        return Ok(());
    }
    let expected = "a path that begins with `/`, without blanks and `#`";
    bad_text(format!("{at}.path"), path, expected)
}

/// As the edge takes them: labels of host names, in which `--` is reserved.
fn function_name(at: &str, name: &str) -> Checked {
    let good = (1..=63).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if good {
        return Ok(());
    }
    bad_text(at, name, "1 to 63 of a-z, 0-9 and single dashes, no dash first or last")
}
