//! Single requests, and what their answers have to be.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, header};
use loadtest_model::Protocol;
use loadtest_wire::{Answer, CallError, Connection, Incoming, Origin, Request};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::outcome::Failure;

/// Longest for one call: a bound for those that nobody waits for, as a life has its own.
pub(super) const CALL_MAX: Duration = Duration::from_secs(300);
/// Most bytes of a refusal that are shown.
const SHOWN_BYTES: usize = 300;

/// Sends a request over a connection of its own and reads the answer.
pub(super) async fn call(origin: &Origin, request: &Request) -> Result<Answer, Failure> {
    let mut connection = open(origin).await?;
    connection.call(request).await.map_err(|error: CallError| Failure::of_call(&error))
}

/// Sends a request over a connection of its own and reads the head of the answer. The connection
/// has to be kept until the answer was read.
pub(super) async fn start(
    origin: &Origin,
    request: &Request,
) -> Result<(Connection, Incoming), Failure> {
    let mut connection = open(origin).await?;
    let incoming = connection.start(request).await.map_err(|error| Failure::of_call(&error))?;
    Ok((connection, incoming))
}

async fn open(origin: &Origin) -> Result<Connection, Failure> {
    // The daemon speaks nothing else, and every server of the API does.
    let opened = Connection::open(origin, Protocol::H1).await;
    Ok(opened.map_err(|error| Failure::of_call(&error))?.connection)
}

/// Gives a request a body of JSON.
pub(super) fn json_body(request: Request, body: &Value) -> Request {
    request
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .content(body.to_string().into())
        .within(CALL_MAX)
}

/// Takes exactly these statuses for success.
pub(super) fn expect(name: &str, answer: Answer, statuses: &[u16]) -> Result<Answer, Failure> {
    let status = answer.status.as_u16();
    if statuses.contains(&status) {
        return Ok(answer);
    }
    if answer.status.is_success() {
        return Err(failed(name, format!("expected status {statuses:?}, got {status}")));
    }
    Err(refused(&answer))
}

/// The failure that a refusal is.
pub(super) fn refused(answer: &Answer) -> Failure {
    refusal(answer.status.as_u16(), &answer.body)
}

/// The same of a status and a body.
pub(super) fn refusal(status: u16, body: &[u8]) -> Failure {
    #[derive(Deserialize)]
    struct Shape {
        message: String,
    }
    let text = match serde_json::from_slice::<Shape>(body) {
        Ok(shape) => shape.message,
        Err(_) => shown(body),
    };
    Failure::new(format!("status_{status}"), format!("refused with status {status}: {text}"))
}

/// The answer's JSON.
pub(super) fn parsed<T: DeserializeOwned>(name: &str, answer: &Answer) -> Result<T, Failure> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        // Its content may hold a token; where it is wrong is enough.
        let (line, column) = (error.line(), error.column());
        let text = format!(
            "expected the JSON of E2B's API, got something else (line {line}, column {column})"
        );
        failed(name, text)
    })
}

/// The failure of a call that was answered, but not as it should be.
pub(super) fn failed(name: &str, message: impl Into<String>) -> Failure {
    Failure::new(format!("{name}_failed"), message)
}

/// The begin of a body, for people.
pub(super) fn shown(body: &[u8]) -> String {
    let begin = body.get(..SHOWN_BYTES).unwrap_or(body);
    format!("{:?}", String::from_utf8_lossy(begin))
}

/// A value as part of a query.
pub(super) fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// Reads the rest of an answer that is a refusal.
pub(super) async fn refusal_of(mut incoming: Incoming) -> Failure {
    let status = incoming.status.as_u16();
    let mut body = Vec::new();
    while let Ok(Some(piece)) = incoming.next().await {
        body.extend_from_slice(&piece);
        if body.len() > 64 << 10 {
            break;
        }
    }
    refusal(status, &Bytes::from(body))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn refusals_say_what_the_server_said() {
        let json = refusal(429, br#"{"code":429,"message":"too many sandboxes"}"#);
        assert_eq!(json.kind, "status_429");
        assert_eq!(json.message, "refused with status 429: too many sandboxes");
        let page = refusal(502, &b"x".repeat(5000));
        assert!(page.message.len() < 400, "{}", page.message);
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encoded("/tmp/a b&c=\u{fc}"), "%2Ftmp%2Fa%20b%26c%3D%C3%BC");
        assert_eq!(encoded(&encoded("a=b")), "a%253Db");
    }
}
