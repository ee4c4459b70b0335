//! Attempts at agents: one after the other until one takes the request, and no request byte twice.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use edge_http1::server::RecvError;
use edge_policy::{Breakers, Decision, HostPermit, Permit};
use edge_telemetry::{Limit, UpstreamError};
use http::{Response, StatusCode};
use tokio::time::Instant;

use super::{Call, Worker};
use crate::{
    body::{AnswerBody, BodyError},
    error::EdgeError,
    head::Tunnel,
    headers::{self, added::Added, outward},
    pace::Pace,
    request_body::BodyHandle,
    routes::{AgentEndpoint, FunctionRoute},
    upstream::{Answered, Attempt, SendError},
};

/// A request for a guest, prepared once for all attempts.
pub(super) struct Outbound {
    /// What the edge says besides the client's fields.
    pub(super) added: Added,
    pub(super) body: BodyHandle,
    pub(super) deadline: Instant,
    pub(super) timeout: Duration,
    pub(super) h2c: bool,
    pub(super) permit: Option<Permit>,
    pub(super) response_bytes_max: u64,
}

/// What a request holds until its answer has ended.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) permit: Option<Permit>,
    pub(crate) _host: Option<HostPermit>,
}

impl Worker {
    /// Tries one agent after the other until one has a sandbox. A second attempt is made only if no
    /// byte of the request can have been seen, and within the function's retry budget.
    pub(super) async fn invoke(
        &self,
        call: &mut Call<'_>,
        outbound: &mut Outbound,
        route: &Arc<FunctionRoute>,
        mut now: Instant,
    ) -> Result<Response<AnswerBody>, EdgeError> {
        let guards = &self.gateway.guards;
        let mut refusal = EdgeError::NoAgent;
        let mut again = false;
        let last = route.agents.len().saturating_sub(1);
        guards.retries.deposit(route.function, now.into_std());
        for (tried, agent) in route.agents.iter().enumerate() {
            if tried > 0 {
                now = Instant::now(); // the last attempt may have taken long
            }
            let max = route.policy.host_concurrency_max;
            let Some(host) = guards.admission.try_host(route.function, agent.address, max) else {
                refusal = no_capacity(route);
                continue;
            };
            let leave = match Leave::ask(&guards.breakers, agent.address, now) {
                Ok(leave) => leave,
                Err(retry_after) => {
                    refusal = EdgeError::CircuitOpen { retry_after };
                    continue;
                }
            };
            if again {
                call.finish.draft.retries = call.finish.draft.retries.saturating_add(1);
            }
            again = true;
            let hold_body = tried < last;
            if hold_body && outbound.h2c {
                outbound.body.keep();
            }
            let attempt = self.attempt(call, outbound, agent, hold_body, now).await;
            let ended = Instant::now();
            call.finish.draft.set_head_at(ended);
            self.report(leave, &attempt, ended);
            match attempt {
                Ok(answered) if is_pool_empty(&answered) => {
                    refusal = no_capacity(route);
                }
                Ok(answered) => {
                    outbound.body.settle();
                    let held = Held { permit: outbound.permit.take(), _host: Some(host) };
                    return self.answer(call, outbound, answered, held);
                }
                Err(error @ SendError::Connect { .. }) => {
                    if !matches!(refusal, EdgeError::NoCapacity { .. }) {
                        refusal = failed(error, outbound);
                    }
                    if tried == last
                        || !guards.retries.withdraw(route.function, Instant::now().into_std())
                    {
                        break;
                    }
                }
                Err(error) => return Err(failed(error, outbound)),
            }
            match outbound.body.take_back() {
                Some(body) => outbound.body = body,
                None => break, // the client's bytes are gone: no other agent can have them
            }
        }
        Err(refusal)
    }

    /// One attempt at one agent.
    pub(super) async fn attempt(
        &self,
        call: &mut Call<'_>,
        outbound: &mut Outbound,
        agent: &AgentEndpoint,
        hold_body: bool,
        now: Instant,
    ) -> Result<Answered, SendError> {
        // Over HTTP/2 the body goes with the head: nobody could hear that it is asked for. What was
        // sent is kept instead.
        let hold_body = hold_body && !outbound.h2c && !outbound.body.is_empty();
        outbound.added.address(&agent.token, hold_body);
        let limits = &self.gateway.limits;
        let pace = match call.tunnel {
            Tunnel::No => {
                Pace::body(limits.body_idle_timeout).with_min_rate(limits.min_body_bytes_per_second)
            }
            Tunnel::Upgrade | Tunnel::Connect => Pace::tunnel(limits.tunnel_idle_timeout),
        };
        call.finish.draft.set_upstream(agent.address);
        let attempt = Attempt {
            agent: agent.address,
            now,
            parts: &call.parts,
            added: &outbound.added,
            body: &outbound.body,
            deadline: outbound.deadline,
            hold_body,
            h2c: outbound.h2c,
            pace: &pace,
        };
        let (interim, mut sent) = (call.interim.clone(), 0_u32);
        let answered = self
            .upstream
            .send(attempt, &mut |answer| {
                let mut answer = answer;
                outward::prepare(answer.headers_mut());
                sent += 1;
                interim.send(answer);
            })
            .await;
        call.finish.draft.interims = call.finish.draft.interims.saturating_add(sent);
        answered
    }

    /// Tells the breaker how an agent did. What a guest does wrong is not the agent's fault.
    fn report(&self, leave: Leave<'_>, attempt: &Result<Answered, SendError>, ended: Instant) {
        if let Err(error) = attempt {
            if let SendError::Body(source) = error
                && is_out_of_pace(&**source)
            {
                self.gateway.telemetry.count_limit(Limit::BodyRate);
            }
            self.telemetry.count_upstream_error(match error {
                SendError::Connect { .. } => UpstreamError::Connect,
                SendError::Reset { .. } => UpstreamError::Reset,
                SendError::Deadline { .. } => UpstreamError::Timeout,
                SendError::Body(_) => UpstreamError::Body,
            });
        }
        match attempt {
            Ok(_) => leave.succeeded(ended),
            Err(SendError::Connect { .. } | SendError::Reset { .. }) => leave.failed(ended),
            Err(SendError::Deadline { .. } | SendError::Body(_)) => drop(leave),
        }
    }
}

/// An attempt that an agent's breaker allowed. One that is dropped told nothing about the agent: its
/// client went away, say. If others waited for its outcome, the next of them may try.
struct Leave<'a> {
    breakers: &'a Breakers,
    agent: SocketAddr,
    decision: Option<Decision>,
}

impl<'a> Leave<'a> {
    /// # Errors
    ///
    /// How long no request may go to this agent.
    fn ask(breakers: &'a Breakers, agent: SocketAddr, now: Instant) -> Result<Self, Duration> {
        match breakers.ask(agent, now.into_std()) {
            Decision::Wait { retry_after } => Err(retry_after),
            decision => Ok(Self { breakers, agent, decision: Some(decision) }),
        }
    }

    fn succeeded(mut self, now: Instant) {
        if let Some(decision) = self.decision.take() {
            self.breakers.succeeded(self.agent, decision, now.into_std());
        }
    }

    fn failed(mut self, now: Instant) {
        if let Some(decision) = self.decision.take() {
            self.breakers.failed(self.agent, decision, now.into_std());
        }
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if let Some(decision) = self.decision.take() {
            self.breakers.abandoned(self.agent, decision, Instant::now().into_std());
        }
    }
}

fn no_capacity(route: &FunctionRoute) -> EdgeError {
    EdgeError::NoCapacity { name: route.name.to_string() }
}

fn is_pool_empty(answered: &Answered) -> bool {
    answered.parts.status == StatusCode::SERVICE_UNAVAILABLE
        && answered.parts.headers.get(headers::ERROR).is_some_and(|code| code == "pool_empty")
}

/// What a failed attempt is for the client.
pub(super) fn failed(error: SendError, outbound: &Outbound) -> EdgeError {
    match error {
        SendError::Connect { agent, source } => EdgeError::AgentUnavailable { agent, source },
        SendError::Reset { source, .. } => EdgeError::UpstreamReset { source },
        SendError::Body(source) => match outbound.body.went_over() {
            Some(limit_bytes) => EdgeError::PayloadTooLarge { limit_bytes },
            None if is_too_slow(&*source) => EdgeError::RequestTimeout,
            None => EdgeError::Malformed { reason: "the body broke off or breaks a rule" },
        },
        SendError::Deadline { .. } => {
            EdgeError::DeadlineExceeded { step: "the answer", after: outbound.timeout }
        }
    }
}

/// Whether a body broke off because the edge's patience ended.
fn is_too_slow(error: &(dyn std::error::Error + 'static)) -> bool {
    is_out_of_pace(error)
        || causes(error)
            .any(|cause| matches!(cause.downcast_ref::<RecvError>(), Some(RecvError::TooSlow)))
}

/// The same without what a listener found out, which counts that itself.
fn is_out_of_pace(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error)
        .any(|cause| matches!(cause.downcast_ref(), Some(BodyError::Idle(_) | BodyError::TooSlow)))
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}
