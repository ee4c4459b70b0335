//! Waits until a server in a guest is ready, or until it is clear that it will not be.

use std::time::Duration;

use agent_api::v1;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use pool_model::Port;
use tokio::time::{Instant, sleep, timeout};

use super::convert;
use crate::{agent::Agent, error::AgentError, guest::Guest};

/// Longest that may be asked for.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// Pause between polls.
const POLL: Duration = Duration::from_millis(100);
/// Longest for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Polls until a 2xx answer, the process's end, or the deadline.
pub(super) async fn wait(
    agent: &Agent,
    request: v1::WaitReadyRequest,
) -> Result<v1::WaitReadyResponse, AgentError> {
    let sandbox = convert::sandbox_id(&request.sandbox_id)?;
    let port = convert::port("port", request.port)?;
    if !request.path.starts_with('/') {
        let reason = format!("`{}` does not start with `/`", request.path);
        return Err(AgentError::InvalidArgument { field: "path", reason });
    }
    let guest = agent.running(sandbox).await?;
    let known = agent.sandbox(sandbox)?;
    let deadline = Instant::now() + Duration::from_millis(request.timeout_ms).min(WAIT_MAX);
    let mut response = v1::WaitReadyResponse::default();
    loop {
        match poll(&guest, port, &request.path).await {
            Ok(()) => {
                response.ready = true;
                return Ok(response);
            }
            Err(reason) => response.last_error = reason,
        }
        if let Some(process) = known.background.get(request.pid) {
            response.output_tail = process.tail();
            if let Some(end) = process.end() {
                response.process_exited = true;
                response.exit_code = end.exit_code;
                return Ok(response);
            }
        }
        if Instant::now() + POLL >= deadline {
            return Ok(response);
        }
        sleep(POLL).await;
    }
}

/// One request. The error is for the function's author to read.
async fn poll(guest: &Guest, port: Port, path: &str) -> Result<(), String> {
    let answer = async {
        let stream = guest
            .dial(port, ANSWER_MAX)
            .await
            .map_err(|error| format!("port {port} does not accept connections: {error}"))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
                .await
                .map_err(|error| format!("port {port} does not speak HTTP: {error}"))?;
        let driver = tokio::spawn(connection);
        let request = Request::get(path)
            .header(header::HOST, "localhost")
            .header(header::CONNECTION, "close")
            .body(Empty::new())
            .map_err(|error| format!("path `{path}` is not one: {error}"))?;
        let response = sender.send_request(request).await;
        driver.abort();
        match response {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => Err(format!("{path} answers {}", response.status())),
            Err(error) => Err(format!("port {port} broke off: {error}")),
        }
    };
    timeout(ANSWER_MAX, answer)
        .await
        .unwrap_or_else(|_| Err(format!("port {port} did not answer within {ANSWER_MAX:?}")))
}
