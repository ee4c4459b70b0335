//! How a batch gets to the collector, and when it is sent again.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::spans;
use crate::record::RequestRecord;

/// Longest wait for a collector's answer, and before the next attempt.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts at one message.
const ATTEMPTS: u32 = 4;
/// Wait before the second attempt; doubled before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Most bytes of a collector's answer.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// A collector.
pub(super) struct Sender {
    uri: Uri,
    service: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What a collector made of a message.
enum Sent {
    /// All was taken but so many spans.
    Taken(u64),
    /// It asks for patience, and says how much perhaps.
    Later(Option<Duration>),
    /// It can't be reached, or says nothing.
    Unreachable,
    /// It won't have it.
    Refused,
}

impl Sender {
    pub(super) fn new(uri: Uri, service: String) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { uri, service, client }
    }

    /// Sends a batch, again if that may help: the spans that were rejected, or `None` if it was given
    /// up. Who is told to `stop` waits no longer for a collector that can't be reached.
    pub(super) async fn send(
        &self,
        batch: &[Arc<RequestRecord>],
        stop: &CancellationToken,
    ) -> Option<u64> {
        let message = Bytes::from(spans::message(&self.service, batch).encode_to_vec());
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            let wait = match self.attempt(message.clone()).await {
                Sent::Taken(rejected) => return Some(rejected),
                Sent::Refused => return None,
                Sent::Unreachable if stop.is_cancelled() => return None,
                Sent::Unreachable => {
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = stop.cancelled() => {}
                    }
                    Duration::ZERO
                }
                Sent::Later(after) => after.unwrap_or(pause).min(SEND_TIMEOUT),
            };
            sleep(wait).await;
            pause *= 2;
        }
        match self.attempt(message).await {
            Sent::Taken(rejected) => Some(rejected),
            Sent::Refused | Sent::Later(_) | Sent::Unreachable => None,
        }
    }

    async fn attempt(&self, message: Bytes) -> Sent {
        let kind = HeaderValue::from_static("application/x-protobuf");
        let request = Request::post(self.uri.clone()).header(header::CONTENT_TYPE, kind);
        let Ok(request) = request.body(Full::new(message)) else { return Sent::Refused };
        let answer = match timeout(SEND_TIMEOUT, self.client.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the trace collector cannot be reached");
                return Sent::Unreachable;
            }
            Err(_) => return Sent::Unreachable,
        };
        let status = answer.status();
        if status.is_success() {
            return Sent::Taken(rejected(answer).await);
        }
        // The specification's list of statuses after which the same message may be sent again.
        let again = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        if !again.contains(&status) {
            tracing::warn!(%status, "the trace collector refuses spans");
            return Sent::Refused;
        }
        let after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Sent::Later(after.and_then(|text| retry_after(text, Timestamp::now())))
    }
}

/// A collector takes a message even if it can't use all of it, and says so.
async fn rejected(answer: Response<Incoming>) -> u64 {
    let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect();
    let Ok(Ok(body)) = timeout(SEND_TIMEOUT, body).await else { return 0 };
    let Ok(answer) = ExportTraceServiceResponse::decode(body.to_bytes()) else { return 0 };
    let Some(partial) = answer.partial_success else { return 0 };
    let ExportTracePartialSuccess { rejected_spans, error_message } = partial;
    let rejected = u64::try_from(rejected_spans).unwrap_or(0);
    if rejected > 0 {
        let why: String = error_message.chars().take(200).collect();
        tracing::warn!(rejected, why, "the trace collector rejected spans");
    }
    rejected
}

/// Seconds, or a date (RFC 9110 10.2.3); one that has passed is no wait.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let date = Timestamp::try_from(date).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_a_number_or_a_date() {
        let now: Timestamp = "2015-10-21T07:28:00Z".parse().unwrap();
        let after = |text| retry_after(text, now);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(after("0"), seconds(0));
        assert_eq!(after(" 120 "), seconds(120));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:07 GMT"), seconds(7));
        assert_eq!(after("Wednesday, 21-Oct-15 07:28:08 GMT"), seconds(8));
        assert_eq!(after("Wed, 21 Oct 2015 07:27:00 GMT"), seconds(0), "it has passed");
        for bad in ["", "-1", "1.5", "soon", "Wed, 21 Oct 2015"] {
            assert_eq!(after(bad), None, "{bad}");
        }
    }
}
