//! Requests for a port of a sandbox.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};
use pool_model::{Port, SandboxId};
use tokio::time::Instant;

use super::{
    Call, Worker,
    function::speaks_h2,
    invoke::{Held, Outbound, failed},
};
use crate::{
    body::AnswerBody,
    error::EdgeError,
    guard::Passed,
    head::Tunnel,
    headers::{
        inward::{self, Aim, Inward},
        location::{self, Public},
    },
    route::Target,
    routes::SandboxRoute,
};

impl Worker {
    pub(super) async fn call_sandbox(
        self: &Arc<Self>,
        call: &mut Call<'_>,
        route: &SandboxRoute,
        sandbox: SandboxId,
        port: Port,
        prefix: Option<&str>,
    ) -> Result<Response<AnswerBody>, EdgeError> {
        call.finish.draft.set_sandbox(sandbox, port, route.team);
        let (client, secure) = (call.origin.client, call.origin.secure);
        let guards = &self.gateway.guards;
        let permit =
            match guards.sandbox(route, (sandbox, port), client, secure, &mut call.parts)? {
                Passed::On(permit) => permit,
                Passed::SetCookie { location, cookie } => {
                    return Ok(set_cookie(location, cookie, prefix));
                }
            };
        let body = call.take_body(0)?;
        let h2c = call.tunnel == Tunnel::No
            && (route.traffic.h2c_ports.contains(&port)
                || speaks_h2(pool_model::AppProtocol::Auto, &call.parts.headers, call.tunnel));
        let added = inward::prepare(
            &mut call.parts.headers,
            &Inward {
                host: &call.authority,
                origin: call.origin,
                peer: call.client.peer.ip(),
                target: Aim::Sandbox(sandbox, port),
                request_id: &call.id_text,
                prefix,
                websocket: call.tunnel != Tunnel::No,
                h2c,
                from_inside: false,
            },
        );
        call.finish.draft.propagate(&mut call.parts.headers);
        let mut outbound = Outbound {
            added,
            body,
            deadline: call.started + route.timeout,
            timeout: route.timeout,
            h2c,
            permit: None,
            response_bytes_max: 0,
        };
        let answered = self.attempt(call, &mut outbound, &route.agent, false, Instant::now()).await;
        let answered = answered.map_err(|error| failed(error, &outbound))?;
        let held = Held { permit: Some(permit), _host: None };
        let mut answer = self.answer(call, &mut outbound, answered, held)?;
        let authority = &*call.authority;
        let domain = &self.gateway.domain;
        let own_port = authority.rsplit_once(':').map(|(_, port)| port.to_owned());
        let other_port = |other: Port| {
            let host = domain.host(&Target::SandboxPort { sandbox, port: other });
            own_port.as_ref().map_or_else(|| host.clone(), |own| format!("{host}:{own}"))
        };
        let public = Public {
            scheme: if secure { "https" } else { "http" },
            authority,
            prefix,
            other_port: Some(&other_port),
        };
        location::rewrite(answer.headers_mut(), Some(port), &public);
        Ok(answer)
    }
}

/// Sends a browser to the same URL without the token, which it keeps as a cookie.
fn set_cookie(
    location: HeaderValue,
    cookie: HeaderValue,
    prefix: Option<&str>,
) -> Response<AnswerBody> {
    let prefixed = prefix.and_then(|prefix| {
        HeaderValue::from_str(&format!("{prefix}{}", location.to_str().ok()?)).ok()
    });
    let mut response = Response::new(AnswerBody::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let fields = response.headers_mut();
    fields.insert(header::LOCATION, prefixed.unwrap_or(location));
    fields.insert(header::SET_COOKIE, cookie);
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
