//! What a request leaves behind: its record, and the places that it held.

use std::sync::Arc;

use edge_telemetry::{
    ErrorSource, Outcome, Protocol as RecordProtocol, RecordId, RequestRecord, RouteKind,
    TraceContext, TunnelGuard,
};
use http::{HeaderMap, Method, Response, header, request::Parts};
use pool_model::{Port, RequestId, SandboxId, TeamId};
use tokio::time::Instant;

use crate::{
    body::AnswerBody,
    error::EdgeError,
    gateway::{ClientInfo, Held, Protocol, Worker},
    headers::{self, outward::Timing},
    request_body::BodyHandle,
    resolve::Named,
};

/// A request's record while it is under way.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) record: RequestRecord,
    pub(crate) retries: u8,
    pub(crate) interims: u32,
    held: Held,
    body: BodyHandle,
    tunnel: Option<TunnelGuard>,
    /// When the upstream's answer began, if somebody has read the clock then.
    head_at: Option<Instant>,
}

/// Finishes a request when its answer's body has ended or is dropped.
pub(crate) struct Finish {
    worker: Arc<Worker>,
    started: Instant,
    pub(crate) draft: Draft,
    finished: bool,
}

impl Finish {
    pub(crate) fn new(
        worker: &Arc<Worker>,
        id: RequestId,
        client: &ClientInfo,
        parts: &Parts,
        started: Instant,
    ) -> Box<Self> {
        worker.telemetry.begin();
        let mut record = RequestRecord {
            id: RecordId(id),
            at_ns: unix_ns(),
            client: Some(client.peer),
            protocol: match client.protocol {
                Protocol::H1 => RecordProtocol::H1,
                Protocol::H2 => RecordProtocol::H2,
                Protocol::H3 => RecordProtocol::H3,
            },
            tls: client.tls,
            method: parts.method.clone(),
            ..RequestRecord::default()
        };
        record.set_path(parts.uri.path());
        if let Some(Ok(agent)) = parts.headers.get(header::USER_AGENT).map(|v| v.to_str()) {
            record.set_user_agent(agent);
        }
        let ratio = worker.telemetry.trace_ratio();
        record.trace = ratio.map(|ratio| TraceContext::of(&parts.headers, ratio));
        let draft = Draft {
            record,
            retries: 0,
            interims: 0,
            held: Held::default(),
            body: BodyHandle::default(),
            tunnel: None,
            head_at: None,
        };
        Box::new(Self { worker: Arc::clone(worker), started, draft, finished: false })
    }

    /// The answer's head is there.
    pub(crate) fn head(&mut self, response: &Response<AnswerBody>) {
        self.draft.record.status = response.status().as_u16();
        let at = self.draft.head_at.unwrap_or_else(Instant::now);
        self.draft.record.head_ms = ms(at.saturating_duration_since(self.started));
    }

    /// The answer's body has ended: complete or not, after so many bytes.
    pub(crate) fn end(mut self: Box<Self>, complete: bool, bytes: u64) {
        self.finish(complete, bytes);
    }

    fn finish(&mut self, complete: bool, bytes: u64) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let ended = Instant::now();
        let Draft { record, retries, interims, body, held, .. } = &mut self.draft;
        if let Some(permit) = &mut held.permit {
            permit.set_end(ended);
        }
        let mut record = std::mem::take(record);
        let complete = complete || record.method == Method::HEAD;
        record.outcome = if complete { Outcome::Complete } else { Outcome::Aborted };
        record.total_ms = ms(ended.saturating_duration_since(self.started));
        record.bytes_out = bytes;
        record.bytes_in = body.bytes();
        (record.retries, record.interims) = (*retries, *interims);
        self.worker.telemetry.finish(record);
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        self.finish(false, 0); // the client left before there was an answer
    }
}

impl std::fmt::Debug for Finish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Finish").field("draft", &self.draft).finish_non_exhaustive()
    }
}

impl Draft {
    /// The host, once the head proved well-formed.
    pub(crate) fn set_host(&mut self, host: &str) {
        self.record.set_host(host);
    }

    pub(crate) fn set_api(&mut self) {
        self.record.route = RouteKind::Api;
    }

    pub(crate) fn set_function(
        &mut self,
        name: &Arc<str>,
        tag: Option<&str>,
        version: u32,
        team: TeamId,
        named: Named,
    ) {
        let domain = named == Named::Domain;
        self.record.route = if domain { RouteKind::Domain } else { RouteKind::Function };
        self.record.function = Some(Arc::clone(name));
        self.record.tag = tag.map(Into::into);
        self.record.version = version;
        self.record.team = Some(team);
    }

    pub(crate) fn set_sandbox(&mut self, sandbox: SandboxId, port: Port, team: TeamId) {
        self.record.route = RouteKind::Sandbox;
        self.record.sandbox = Some(sandbox);
        self.record.port = port.get();
        self.record.team = Some(team);
    }

    pub(crate) fn set_upstream(&mut self, agent: std::net::SocketAddr) {
        self.record.upstream = Some(agent);
    }

    /// What the agent's answer says about itself, in fields of ours.
    pub(crate) fn set_words(&mut self, headers: &HeaderMap) {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let record = &mut self.record;
        if record.sandbox.is_none() {
            record.sandbox = text(headers::SANDBOX).and_then(|id| id.parse().ok());
        }
        if let Some(code) = text(headers::ERROR)
            && let Ok(code) = code.parse::<pool_model::ErrorCode>()
        {
            record.code = code.as_str();
            let guest = matches!(
                code,
                pool_model::ErrorCode::UpstreamReset | pool_model::ErrorCode::GuestUnresponsive
            );
            record.error_source = if guest { ErrorSource::Guest } else { ErrorSource::Agent };
        }
    }

    /// How the agent's answer came about.
    pub(crate) fn set_answer(&mut self, timing: Timing, route: std::time::Duration, reused: bool) {
        let record = &mut self.record;
        (record.lease_ms, record.restore_ms) = (timing.lease_ms, timing.restore_ms);
        record.upstream_ms = timing.upstream_ms;
        record.route_ms = ms(route);
        record.reused = reused;
    }

    /// An error that the edge answers itself.
    pub(crate) fn set_error(&mut self, error: &EdgeError) {
        self.record.code = error.code().as_str();
        self.record.error_source = match error.code().http_status() {
            400..=499 => ErrorSource::Client,
            502 | 504 => ErrorSource::Agent,
            _ => ErrorSource::Edge,
        };
    }

    /// Keeps what is given back when the request has ended.
    pub(crate) fn hold(&mut self, held: Held, body: BodyHandle) {
        (self.held, self.body) = (held, body);
    }

    /// An upstream's answer, or why there is none, has come.
    pub(crate) fn set_head_at(&mut self, at: Instant) {
        self.head_at = Some(at);
    }

    /// The request has become a tunnel.
    pub(crate) fn set_tunnel(&mut self, tunnel: TunnelGuard) {
        self.tunnel = Some(tunnel);
    }

    /// Tells the guest which trace it is part of.
    pub(crate) fn propagate(&self, headers: &mut HeaderMap) {
        if let Some(trace) = &self.record.trace {
            trace.propagate(headers);
        }
    }
}

fn ms(time: std::time::Duration) -> f32 {
    time.as_secs_f32() * 1e3
}

fn unix_ns() -> u64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
