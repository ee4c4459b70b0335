//! A request's way through the agent.

use std::{sync::Arc, time::Duration};

use agent_api::proxy::{REUSE, Target};
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use pool::Lease;
use pool_model::{ErrorCode, FunctionId, Port, Reuse, SandboxId};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{
    body::{Body, Held},
    error::Failure,
    head,
    head::Ours,
    upstream,
};
use crate::{agent::Agent, guest::Guest, pools::WarmSandbox};

/// W3C Server Timing: durations in milliseconds.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Paths of the guest daemon that only the agent may call.
const CONTROL_PATHS: [&str; 2] = ["/init", "/quiesce"];

/// Where the time went, for `Server-Timing`.
#[derive(Debug, Default, Clone, Copy)]
struct Timing {
    lease: Option<Duration>,
    restore: Option<Duration>,
    upstream: Duration,
}

/// Sends a request to its guest.
pub(super) async fn forward(agent: &Agent, ours: Ours) -> Result<Response<Body>, Failure> {
    let deadline = Instant::now() + Duration::from_millis(agent.host.config.response_wait_ms);
    match ours.target {
        Target::Function(function) => to_function(agent, function, ours, deadline).await,
        Target::Sandbox(sandbox, port) => to_sandbox(agent, sandbox, port, ours, deadline).await,
    }
}

async fn to_function(
    agent: &Agent,
    function: FunctionId,
    ours: Ours,
    deadline: Instant,
) -> Result<Response<Body>, Failure> {
    let entry = agent.pools.get(function)?;
    let wait = Instant::now() + Duration::from_millis(agent.host.config.lease_wait_ms);
    let lease = entry.pool.lease(wait.min(deadline)).await?;
    let timing =
        Timing { lease: Some(lease.waited), restore: Some(lease.restore), ..Timing::default() };
    let (guest, port) = (Arc::clone(&lease.guest), lease.port);
    let reuse = reuse_header(&lease);
    let mut response = exchange(agent, &guest, port, ours, deadline, timing, lease).await?;
    response.headers_mut().insert(REUSE, reuse);
    Ok(response)
}

/// Which request of its sandbox this one is.
fn reuse_header(lease: &Lease<WarmSandbox>) -> HeaderValue {
    match lease.reuse {
        Reuse::Never => HeaderValue::from_static("never"),
        Reuse::Sequential => {
            let text = format!("sequential; request={}; max={}", lease.served, lease.max_requests);
            HeaderValue::from_str(&text).expect("words and numbers are ASCII")
        }
    }
}

impl Held for Lease<WarmSandbox> {
    fn finish(self: Box<Self>) {
        Lease::finish(*self);
    }
}

/// A request's lease, its guest, and the task that drives the connection between them.
struct InUse<H> {
    held: H,
    _guest: Arc<Guest>,
    _driver: AbortOnDropHandle<()>,
}

impl<H: Held> Held for InUse<H> {
    fn finish(self: Box<Self>) {
        Box::new(self.held).finish();
    }
}

async fn to_sandbox(
    agent: &Agent,
    sandbox: SandboxId,
    port: Port,
    ours: Ours,
    deadline: Instant,
) -> Result<Response<Body>, Failure> {
    if port == Port::ENVD && is_control(ours.request.uri().path()) {
        return Err(Failure::new(ErrorCode::NotFound, "no such path").of(sandbox));
    }
    let asked_at = Instant::now();
    let was_running = agent.sandbox(sandbox)?.serving().is_some();
    let guest = agent.running(sandbox).await.map_err(|error| Failure::from(error).of(sandbox))?;
    let restore = (!was_running).then(|| asked_at.elapsed());
    let timing = Timing { restore, ..Timing::default() };
    exchange(agent, &guest, port, ours, deadline, timing, ()).await
}

/// Dials, sends, and passes the answer on. `held` lives until the answer's end.
async fn exchange(
    agent: &Agent,
    guest: &Arc<Guest>,
    port: Port,
    ours: Ours,
    deadline: Instant,
    mut timing: Timing,
    held: impl Held,
) -> Result<Response<Body>, Failure> {
    let Ours { mut request, upgrade, .. } = ours;
    let began = Instant::now();
    let stream = upstream::dial(guest, port, deadline).await?;
    let edge_upgrade = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let sent = upstream::send(guest, stream, request, upgrade, deadline).await?;
    timing.upstream = began.elapsed();
    let upstream::Answer { mut response, driver } = sent;
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let protocol = response.headers().get(header::UPGRADE).cloned();
    head::strip(response.headers_mut());
    upstream::set_sandbox(response.headers_mut(), guest.sandbox);
    append_timing(&mut response, timing);
    let held = InUse { held, _guest: Arc::clone(guest), _driver: driver };
    match (switching, edge_upgrade, protocol) {
        (true, Some(edge), Some(protocol)) => {
            let inner = hyper::upgrade::on(&mut response);
            agent.host.tasks.spawn(upstream::tunnel(edge, inner, held));
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, protocol);
            Ok(response.map(|body| Body::new(upstream::boxed(body))))
        }
        (true, ..) => {
            let message = "the guest switched to a protocol that nobody asked for";
            Err(Failure::new(ErrorCode::UpstreamReset, message).of(guest.sandbox))
        }
        _ => Ok(response.map(|body| Body::holding(upstream::boxed(body), held))),
    }
}

fn append_timing(response: &mut Response<Incoming>, timing: Timing) {
    let entries =
        [("lease", timing.lease), ("restore", timing.restore), ("upstream", Some(timing.upstream))];
    let text: Vec<String> = entries
        .into_iter()
        .filter_map(|(name, time)| Some((name, time?)))
        .map(|(name, time)| format!("{name};dur={:.3}", time.as_secs_f64() * 1000.0))
        .collect();
    if let Ok(value) = HeaderValue::from_str(&text.join(", ")) {
        response.headers_mut().append(SERVER_TIMING, value);
    }
}

/// Whether a path, as the guest daemon would read it, is one of its control routes.
fn is_control(path: &str) -> bool {
    let cleaned: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let decodes = cleaned.iter().any(|part| part.contains('%') || *part == "..");
    decodes || CONTROL_PATHS.iter().any(|control| control[1..] == cleaned.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_routes_are_recognised_in_every_spelling() {
        for path in ["/init", "//init", "/init/", "/./quiesce", "/%69nit", "/a/../init"] {
            assert!(is_control(path), "{path}");
        }
        for path in ["/health", "/files", "/", "/initial", "/process.Process/Start"] {
            assert!(!is_control(path), "{path}");
        }
    }
}
