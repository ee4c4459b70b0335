//! What a client is shown when the edge or an agent answers instead of a guest: JSON, or a page for
//! people whose browser asks for one.

use std::{fmt::Write as _, time::Duration};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use pool_model::{ErrorCode, RequestId};

use crate::{body::AnswerBody, headers};

/// How an error is written for this client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Html,
}

impl Form {
    /// HTML only for who names it before JSON; `*/*` is a program's.
    pub(crate) fn wanted(headers: &HeaderMap) -> Self {
        for value in headers.get_all(header::ACCEPT) {
            for part in value.as_bytes().split(|byte| *byte == b',') {
                let kind = part.split(|byte| *byte == b';').next().unwrap_or_default();
                let kind = kind.trim_ascii();
                if kind.eq_ignore_ascii_case(b"text/html") {
                    return Self::Html;
                }
                if kind.eq_ignore_ascii_case(b"application/json") || kind == b"*/*" {
                    return Self::Json;
                }
            }
        }
        Self::Json
    }
}

/// The answer `{code, message, request_id}`, or a page that says the same.
pub(crate) fn answer(
    form: Form,
    code: ErrorCode,
    message: &str,
    request_id: RequestId,
    retry_after: Option<Duration>,
) -> Response<AnswerBody> {
    let (text, kind) = match form {
        Form::Json => (json(code, message, request_id), "application/json"),
        Form::Html => (html(code, message, request_id), "text/html; charset=utf-8"),
    };
    let mut response = Response::new(AnswerBody::full(text));
    *response.status_mut() =
        StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(header::VARY, HeaderValue::from_static("accept"));
    fields.insert(headers::ERROR, HeaderValue::from_static(code.as_str()));
    if let Some(after) = retry_after {
        fields.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
    }
    if code == ErrorCode::Unauthorized {
        fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// `Retry-After` has whole seconds; too early would only be refused again.
fn whole_seconds(after: Duration) -> u64 {
    (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
}

fn json(code: ErrorCode, message: &str, request_id: RequestId) -> String {
    serde_json::json!({
        "code": code.as_str(), "message": message, "request_id": request_id,
    })
    .to_string()
}

/// What a person may want to know about a code.
const fn headline(code: ErrorCode) -> (&'static str, &'static str) {
    match code {
        ErrorCode::UnknownHost
        | ErrorCode::FunctionNotFound
        | ErrorCode::SandboxNotFound
        | ErrorCode::TagNotFound
        | ErrorCode::NotFound => ("Not found", "Nothing is served under this address."),
        ErrorCode::SandboxResuming => {
            ("Resuming", "This sandbox was paused and is being resumed. Try again in a moment.")
        }
        ErrorCode::SandboxStarting => {
            ("Starting", "This sandbox is being created. Try again in a moment.")
        }
        ErrorCode::PortClosed => {
            ("Port closed", "The sandbox runs, but nothing listens on this port.")
        }
        ErrorCode::SandboxCrashed => ("Crashed", "This sandbox's virtual machine ended by itself."),
        ErrorCode::SandboxGone => ("Gone", "This sandbox has ended."),
        ErrorCode::RateLimited | ErrorCode::QueueFull | ErrorCode::QueueTimeout => {
            ("Over the limit", "There are more requests than may be served. Try again later.")
        }
        ErrorCode::NoCapacity | ErrorCode::PoolEmpty | ErrorCode::CircuitOpen => {
            ("No capacity", "No sandbox is free at the moment. Try again later.")
        }
        ErrorCode::Unauthorized => ("Not signed in", "This address asks for credentials."),
        ErrorCode::Forbidden => ("Not allowed", "You may not see this."),
        ErrorCode::DeadlineExceeded | ErrorCode::GuestUnresponsive => {
            ("No answer", "The program behind this address did not answer in time.")
        }
        ErrorCode::UpstreamReset => {
            ("Broken off", "The program behind this address broke off before it answered.")
        }
        _ => ("Error", "The request could not be served."),
    }
}

fn html(code: ErrorCode, message: &str, request_id: RequestId) -> String {
    let (title, sentence) = headline(code);
    let (status, code) = (code.http_status(), code.as_str());
    let mut page = String::with_capacity(1024);
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{status} {title}</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:15vh auto;\
         padding:0 1rem;color:#222;background:#fff}}small{{color:#666}}\
         @media(prefers-color-scheme:dark){{body{{color:#ddd;background:#111}}}}</style>\
         <h1>{title}</h1><p>{sentence}</p><p>{message}</p>\
         <small>{status} {code} &middot; request {request_id}</small></html>",
        message = Escaped(message),
    );
    page
}

/// Text inside an HTML element.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in self.0.chars() {
            match part {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(value: &'static str) -> Form {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(value));
        Form::wanted(&headers)
    }

    #[test]
    fn browsers_get_pages_and_programs_get_json() {
        assert_eq!(accepts("text/html,application/xhtml+xml,*/*;q=0.8"), Form::Html);
        for program in ["*/*", "application/json", "application/json, text/html", "image/png"] {
            assert_eq!(accepts(program), Form::Json, "{program}");
        }
        assert_eq!(Form::wanted(&HeaderMap::new()), Form::Json);
    }

    #[test]
    fn a_page_shows_hostile_text_as_text() {
        let page = html(ErrorCode::UnknownHost, "<script>\"&", RequestId::from_u128(1));
        assert!(page.contains("&lt;script&gt;&quot;&amp;") && !page.contains("<script>"), "{page}");
    }

    #[test]
    fn retry_after_is_never_too_early() {
        for (after, seconds) in [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(after)), seconds);
        }
    }
}
