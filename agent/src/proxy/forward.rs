//! A request's way through the agent.

use std::{sync::Arc, time::Duration};

use agent_api::proxy::{REUSE, Target};
use http::{HeaderValue, Response};
use pool::Lease;
use pool_model::{ErrorCode, FunctionId, Port, Reuse, SandboxId};
use tokio::time::Instant;

use super::{
    Proxy,
    body::{Body, Held},
    error::Failure,
    exchange::{Call, Timing, To, exchange},
    head::Ours,
    inward::Interims,
};
use crate::pools::WarmSandbox;

/// Paths of the guest daemon that only the agent may call.
const CONTROL_PATHS: [&str; 2] = ["/init", "/quiesce"];

/// Sends a request to its guest.
pub(super) async fn forward(
    proxy: &Proxy,
    ours: Ours,
    interims: Option<Interims>,
) -> Result<Response<Body>, Failure> {
    let deadline = Instant::now() + Duration::from_millis(proxy.agent.host.config.response_wait_ms);
    let call = Call { ours, interims, deadline };
    match call.ours.target {
        Target::Function(function) => to_function(proxy, function, call).await,
        Target::Sandbox(sandbox, port) => to_sandbox(proxy, sandbox, port, call).await,
    }
}

async fn to_function(
    proxy: &Proxy,
    function: FunctionId,
    call: Call,
) -> Result<Response<Body>, Failure> {
    let agent = &proxy.agent;
    let entry = agent.pools.get(function)?;
    let wait = Instant::now() + Duration::from_millis(agent.host.config.lease_wait_ms);
    let lease = entry.pool.lease(wait.min(call.deadline)).await?;
    let timing =
        Timing { lease: Some(lease.waited), restore: Some(lease.restore), ..Timing::default() };
    let (guest, port) = (Arc::clone(&lease.guest), lease.port);
    let reuse = reuse_header(&lease);
    let to = To { guest: &guest, port, keep: false };
    let mut response = exchange(&proxy.shared, to, call, timing, lease).await?;
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

async fn to_sandbox(
    proxy: &Proxy,
    sandbox: SandboxId,
    port: Port,
    call: Call,
) -> Result<Response<Body>, Failure> {
    if port == Port::ENVD && is_control(call.ours.request.uri().path()) {
        return Err(Failure::new(ErrorCode::NotFound, "no such path").of(sandbox));
    }
    let agent = &proxy.agent;
    let asked_at = Instant::now();
    let was_running = agent.sandbox(sandbox)?.serving().is_some();
    let limit = Duration::from_millis(agent.host.config.resume_wait_ms);
    let limit = limit.min(call.deadline.saturating_duration_since(asked_at));
    let guest = agent.awake(sandbox, limit).await;
    let guest = guest.map_err(|asleep| Failure::from(asleep).of(sandbox))?;
    let restore = (!was_running).then(|| asked_at.elapsed());
    let timing = Timing { restore, ..Timing::default() };
    exchange(&proxy.shared, To { guest: &guest, port, keep: true }, call, timing, ()).await
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
