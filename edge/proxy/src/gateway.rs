//! One request from its head to the head of its answer, whatever protocol it came by.
//!
//! Head check → route → the API service or an agent → answer headers → one log line.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use hyper::upgrade::OnUpgrade;
use pool_model::RequestId;
use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt as _, util::BoxCloneSyncService};

use crate::{
    access::AccessLog,
    body::{Body, BodyHandle, BoxError},
    config::Limits,
    error::EdgeError,
    head, headers,
    route::{Domain, Target},
    routes::{AgentEndpoint, RouteError, Routes},
    tunnel,
    upstream::{AnswerBody, Answered, SendError, Upstream},
};

/// Answers requests for `api.<domain>`. [`RequestId`] and [`ClientInfo`] are in their extensions.
pub type ApiService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Makes an [`ApiService`] of e.g. an `axum::Router`.
pub fn api_service<S, B>(service: S) -> ApiService
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(service.map_response(|response: Response<B>| {
        response.map(|body| body.map_err(Into::into).boxed_unsync())
    }))
}

/// The protocol a request came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
    /// HTTP/3.
    H3,
}

impl Protocol {
    /// `h1`, `h2` or `h3`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
            Self::H3 => "h3",
        }
    }
}

/// Who sent a request, and how.
#[derive(Debug, Clone, Copy)]
pub struct ClientInfo {
    /// The client's address.
    pub peer: SocketAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// Whether it came encrypted.
    pub tls: bool,
}

/// Everything a request needs; shared by all listeners.
pub(crate) struct Gateway {
    pub(crate) domain: Domain,
    pub(crate) limits: Limits,
    pub(crate) routes: Arc<dyn Routes>,
    pub(crate) api: ApiService,
    pub(crate) upstream: Upstream,
    /// Announces QUIC on TLS answers.
    pub(crate) alt_svc: Option<HeaderValue>,
    pub(crate) tunnels: TaskTracker,
    pub(crate) cut: CancellationToken,
}

/// A request for a guest, prepared once for all attempts.
struct Outbound {
    parts: Parts,
    body: BodyHandle,
    upgrade: Option<OnUpgrade>,
    started: Instant,
    timeout: Duration,
}

impl Gateway {
    /// Answers one request. Never fails: errors are answers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or later the answer's body, ends the request upstream too.
    pub(crate) fn serve(
        self: Arc<Self>,
        client: ClientInfo,
        request: Request<Body>,
    ) -> BoxFuture<'static, Response<Body>> {
        // Boxed: the whole path's type is too much for the compiler to prove `Send` twice over.
        Box::pin(async move { self.serve_unboxed(&client, request).await })
    }

    async fn serve_unboxed(&self, client: &ClientInfo, request: Request<Body>) -> Response<Body> {
        let id = RequestId::from_u128(rand::random());
        let mut log = AccessLog::new(id, client, &request);
        let answer = self.dispatch(id, client, request, &mut log).await;
        let mut response = answer.unwrap_or_else(|error| {
            tracing::debug!(request.id = %id, error = &error as &dyn std::error::Error, "refused");
            error.into_response(id)
        });
        let fields = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
            fields.insert(headers::REQUEST_ID, id);
        }
        if let Some(alt_svc) = &self.alt_svc
            && client.tls
            && client.protocol != Protocol::H3
        {
            fields.insert(header::ALT_SVC, alt_svc.clone());
        }
        log.set_head(response.status(), response.headers());
        response.map(|body| log.ride(body))
    }

    async fn dispatch(
        &self,
        id: RequestId,
        client: &ClientInfo,
        request: Request<Body>,
        log: &mut AccessLog,
    ) -> Result<Response<Body>, EdgeError> {
        let authority = head::check(&request, self.limits.max_header_bytes)?;
        log.set_host(&authority);
        let target = self.domain.parse(&authority)?;
        let started = log.started();
        match target {
            Target::Api => self.call_api(id, client, request).await,
            Target::Function { name } => {
                let route = self.routed(self.routes.function(&name)).await?;
                let route = route.map_err(|error| match error {
                    RouteError::NotFound => EdgeError::FunctionNotFound { name: name.clone() },
                    RouteError::Unavailable => EdgeError::NoAgent,
                })?;
                let target = format!("function/{}", route.function);
                let outbound = self.outbound(id, client, request, &authority, &target);
                let outbound = Outbound { started, timeout: route.timeout, ..outbound };
                self.invoke(outbound, &name, &route.agents).await
            }
            Target::SandboxPort { sandbox, port } => {
                let route = self.routed(self.routes.sandbox(sandbox)).await?;
                let route = route.map_err(|error| match error {
                    RouteError::NotFound => EdgeError::SandboxNotFound { sandbox },
                    RouteError::Unavailable => EdgeError::NoAgent,
                })?;
                let target = format!("sandbox/{sandbox}/{port}");
                let outbound = self.outbound(id, client, request, &authority, &target);
                let outbound = Outbound { started, timeout: route.timeout, ..outbound };
                let answered = self.attempt(&outbound, &route.agent, false).await;
                let answered = answered.map_err(|error| failed(error, &outbound))?;
                self.answer(outbound, answered)
            }
        }
    }

    async fn routed<T>(&self, route: impl Future<Output = T>) -> Result<T, EdgeError> {
        let after = self.limits.route_timeout;
        let step = "finding the route";
        timeout(after, route).await.map_err(|_| EdgeError::DeadlineExceeded { step, after })
    }

    async fn call_api(
        &self,
        id: RequestId,
        client: &ClientInfo,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, EdgeError> {
        request.extensions_mut().insert(id);
        request.extensions_mut().insert(*client);
        let after = self.limits.api_timeout;
        let step = "the API call";
        let call: BoxFuture<'static, _> = Box::pin(self.api.clone().oneshot(request));
        match timeout(after, call).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(never)) => match never {},
            Err(_) => Err(EdgeError::DeadlineExceeded { step, after }),
        }
    }

    fn outbound(
        &self,
        id: RequestId,
        client: &ClientInfo,
        request: Request<Body>,
        authority: &str,
        target: &str,
    ) -> Outbound {
        let (mut parts, body) = request.into_parts();
        let websocket =
            client.protocol == Protocol::H1 && headers::asks_for_websocket(&parts.headers);
        let upgrade = parts.extensions.remove::<OnUpgrade>().filter(|_| websocket);
        headers::inward(
            &mut parts.headers,
            &headers::Inward {
                host: authority,
                client: client.peer.ip(),
                scheme: if client.tls { "https" } else { "http" },
                target,
                request_id: id,
                websocket: upgrade.is_some(),
            },
        );
        let body = BodyHandle::new(body);
        // The route's timeout replaces this one.
        Outbound { parts, body, upgrade, started: Instant::now(), timeout: Duration::ZERO }
    }

    /// Tries one agent after the other until one has a sandbox.
    async fn invoke(
        &self,
        mut outbound: Outbound,
        name: &str,
        agents: &[AgentEndpoint],
    ) -> Result<Response<Body>, EdgeError> {
        let mut refusal = EdgeError::NoAgent;
        for (tried, agent) in agents.iter().enumerate() {
            let gated = tried + 1 < agents.len();
            match self.attempt(&outbound, agent, gated).await {
                Ok(answered) if is_pool_empty(&answered.response) => {
                    refusal = EdgeError::NoCapacity { name: name.to_owned() };
                }
                Ok(answered) => return self.answer(outbound, answered),
                Err(error @ SendError::Connect { .. }) => {
                    if !matches!(refusal, EdgeError::NoCapacity { .. }) {
                        refusal = failed(error, &outbound);
                    }
                }
                Err(error) => return Err(failed(error, &outbound)),
            }
            match outbound.body.take_back() {
                Some(body) => outbound.body = body,
                None => break, // the client's bytes are gone: no other agent can have them
            }
        }
        Err(refusal)
    }

    async fn attempt(
        &self,
        outbound: &Outbound,
        agent: &AgentEndpoint,
        gated: bool,
    ) -> Result<Answered, SendError> {
        let Parts { method, uri, headers, .. } = &outbound.parts;
        let (body, opener) = outbound.body.attempt(gated, self.limits.body_idle_timeout);
        let mut request = Request::new(body);
        *request.method_mut() = method.clone();
        *request.uri_mut() =
            uri.path_and_query().map_or_else(http::Uri::default, |path| path.clone().into());
        *request.headers_mut() = headers.clone();
        headers::authorize(request.headers_mut(), &agent.token);
        if let Some(opener) = opener {
            // The agent asks for the body once it has leased a sandbox.
            request.headers_mut().insert(header::EXPECT, HeaderValue::from_static("100-continue"));
            hyper::ext::on_informational(&mut request, move |interim| {
                if interim.status() == StatusCode::CONTINUE {
                    opener.open();
                }
            });
        }
        self.upstream.send(agent.address, request, outbound.started + outbound.timeout).await
    }

    /// Turns an agent's answer into the client's; from here on bytes only flow.
    fn answer(&self, outbound: Outbound, answered: Answered) -> Result<Response<Body>, EdgeError> {
        let Answered { mut response, link, sent_at } = answered;
        let route_ms = (sent_at - outbound.started).as_secs_f64() * 1e3;
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        headers::outward(response.headers_mut(), upgraded);
        headers::add_timing(response.headers_mut(), route_ms);
        if !upgraded {
            let idle = self.limits.body_idle_timeout;
            return Ok(response.map(|body| {
                AnswerBody::new(body, link, self.upstream.pool(), outbound.body, idle)
                    .boxed_unsync()
            }));
        }
        let Some(client) = outbound.upgrade else {
            let source = "the agent switched protocols unasked".into();
            return Err(EdgeError::UpstreamReset { source });
        };
        let upstream = hyper::upgrade::on(&mut response);
        let (cut, idle) = (self.cut.clone(), self.limits.tunnel_idle_timeout);
        self.tunnels.spawn(async move {
            cut.run_until_cancelled_owned(tunnel::join(client, upstream, idle)).await;
            drop(link); // it carried the tunnel until here
        });
        Ok(response.map(|_| crate::body::empty()))
    }
}

fn is_pool_empty<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::SERVICE_UNAVAILABLE
        && response.headers().get(headers::ERROR).is_some_and(|code| code == "pool_empty")
}

fn failed(error: SendError, outbound: &Outbound) -> EdgeError {
    match error {
        SendError::Connect { agent, source } => EdgeError::AgentUnavailable { agent, source },
        SendError::Reset { source, .. } => EdgeError::UpstreamReset { source },
        SendError::Deadline { .. } => {
            EdgeError::DeadlineExceeded { step: "the answer", after: outbound.timeout }
        }
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("domain", &self.domain).finish_non_exhaustive()
    }
}

/// A method whose requests carry no body unless they say so.
pub(crate) fn is_bodyless(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE | Method::TRACE)
}
