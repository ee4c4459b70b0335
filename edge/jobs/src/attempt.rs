//! What is one attempt at an invocation, and what does its answer mean?

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use edge_store::{Answer, End, InvocationBody, InvocationRecord};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use jiff::Timestamp;
use pool_model::{FunctionId, TeamId};

use crate::{
    backoff,
    submit::{HEADERS_BYTES_MAX, pairs, weight},
};

/// An invocation as it is made.
#[derive(Debug)]
pub struct Invocation {
    /// The function. The name may be another's by now: check it.
    pub function: FunctionId,
    /// Whose it is.
    pub team: TeamId,
    /// The function's name.
    pub name: String,
    /// The tag that the request named.
    pub tag: Option<String>,
    /// The request.
    pub request: Request<Bytes>,
}

/// Makes invocations: the gateway.
#[async_trait]
pub trait Invoke: Send + Sync + 'static {
    /// Makes one. The answer's body has [`ANSWER_BYTES_MAX`](crate::ANSWER_BYTES_MAX) bytes at
    /// most. Dropping the future ends the invocation.
    async fn invoke(&self, invocation: Invocation) -> Result<Outcome, InvokeError>;
}

/// An answer.
#[derive(Debug)]
pub struct Outcome {
    /// It, or the beginning of it.
    pub response: Response<Bytes>,
    /// Whether it is the beginning only.
    pub truncated: bool,
}

/// Why there was no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InvokeError {
    /// For whoever looks the invocation up.
    pub reason: String,
    /// Whether another attempt may do better.
    pub retryable: bool,
    /// When, if that was said.
    pub retry_after: Option<Duration>,
}

/// What is to be noted of an attempt.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) end: End,
    pub(crate) answer: Option<Answer>,
    pub(crate) error: Option<String>,
}

/// The invocation that a record stands for. An error is one that no attempt will mend.
pub(crate) fn invocation(
    record: &InvocationRecord,
    stored: InvocationBody,
) -> Result<Invocation, InvokeError> {
    let mut request = Request::builder().method(record.method.as_str()).uri(&record.path);
    for (name, value) in &stored.headers {
        request = request.header(name.as_str(), value.as_slice());
    }
    let mut request = request.body(Bytes::from(stored.body)).map_err(|bad| InvokeError {
        reason: format!("the request can't be made: {bad}"),
        retryable: false,
        retry_after: None,
    })?;
    let id = HeaderValue::from_str(&record.id.to_string());
    if let Ok(id) = id {
        // With it a function can tell that it has seen this one before.
        request.headers_mut().insert(HeaderName::from_static("wrenn-invocation"), id);
    }
    let attempt = HeaderName::from_static("wrenn-attempt");
    request.headers_mut().insert(attempt, HeaderValue::from(record.attempts));
    Ok(Invocation {
        function: record.function,
        team: record.team,
        name: record.name.clone(),
        tag: record.tag.clone(),
        request,
    })
}

/// What the result of an attempt means.
pub(crate) fn judge(
    record: &InvocationRecord,
    result: Result<Outcome, InvokeError>,
    now: Timestamp,
) -> Verdict {
    match result {
        Ok(outcome) => {
            let status = outcome.response.status();
            let after = retry_after(&outcome.response);
            let answer = Some(kept(outcome));
            if !may_pass(status) {
                return Verdict { end: End::Succeeded, answer, error: None };
            }
            let error = Some(format!("the answer was {status}"));
            Verdict { end: again(record, after, now), answer, error }
        }
        Err(error) => {
            let end =
                if error.retryable { again(record, error.retry_after, now) } else { End::Dead };
            Verdict { end, answer: None, error: Some(error.reason) }
        }
    }
}

/// Whether another attempt may have another answer: 5xx, and of 4xx those that say "later"
/// (RFC 9110, 15.5.9; RFC 8470, 5.2; RFC 6585, 4).
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

fn again(record: &InvocationRecord, after: Option<Duration>, now: Timestamp) -> End {
    if record.attempts >= record.attempts_max {
        return End::Dead;
    }
    let pause = backoff::pause(Duration::from_millis(record.backoff_ms), record.attempts);
    End::Again(now.checked_add(backoff::at_least(pause, after)).unwrap_or(now))
}

/// `Retry-After` in seconds; the form with a date is left to the backoff (RFC 9110, 10.2.3).
fn retry_after(response: &Response<Bytes>) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?;
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn kept(outcome: Outcome) -> Answer {
    let (parts, body) = outcome.response.into_parts();
    let mut headers = pairs(&parts.headers);
    while weight(&headers) > HEADERS_BYTES_MAX {
        headers.pop();
    }
    Answer {
        status: parts.status.as_u16(),
        headers,
        body: body.to_vec(),
        truncated: outcome.truncated,
    }
}
