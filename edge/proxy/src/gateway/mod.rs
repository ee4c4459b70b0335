//! One request from its head to the head of its answer, whatever protocol it came by.
//!
//! Head check → resolve → guards → attempts at agents → answer's head → a record at the body's end.

mod answer;
mod api;
mod function;
mod invoke;
mod sandbox;

pub(crate) use self::invoke::Held;

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use edge_telemetry::{Telemetry, WorkerTelemetry};
use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, header, request::Parts};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use pool_model::{IdText, RequestId};
use tokio::{runtime::Handle, time::Instant};
use tower::{Service, ServiceExt as _, util::BoxCloneSyncService};

use crate::{
    body::{AnswerBody, Body, BoxError, ClientBody},
    config::{Limits, TrustConfig},
    error::EdgeError,
    finish::Finish,
    guard::Guards,
    head::{self, Tunnel},
    headers::{
        self,
        forwarded::{self, Origin},
        inward,
    },
    interim::Interim,
    late_end,
    pages::{self, Form},
    request_body::BodyHandle,
    resolve::{Destination, Resolved, Resolver},
    route::Domain,
    routes::Routes,
    upstream::Upstream,
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
#[derive(Debug, Clone)]
pub struct ClientInfo {
    /// The client's address; a PROXY header's, if one is believed.
    pub peer: SocketAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// Whether it came encrypted.
    pub tls: bool,
    /// The host that the connection was made for.
    pub sni: Option<Arc<str>>,
}

/// What all workers share.
pub(crate) struct Gateway {
    pub(crate) domain: Domain,
    pub(crate) limits: Limits,
    pub(crate) trust: TrustConfig,
    pub(crate) routes: Arc<dyn Routes>,
    pub(crate) api: ApiService,
    pub(crate) guards: Guards,
    pub(crate) telemetry: Arc<Telemetry>,
    /// Answers ACME's HTTP-01 challenges.
    pub(crate) challenges: Option<Arc<edge_tls::Http01>>,
    /// Announces QUIC on TLS answers.
    pub(crate) alt_svc: Option<HeaderValue>,
    pub(crate) hsts: Option<HeaderValue>,
    /// Where lookups and API calls run: they may wait for a disk.
    pub(crate) lookups: Handle,
}

/// One worker's share: connections and buffers that no other thread touches.
pub(crate) struct Worker {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) upstream: Upstream,
    pub(crate) telemetry: WorkerTelemetry,
}

/// A request as a listener hands it over.
pub(crate) struct Incoming {
    pub(crate) request: Request<ClientBody>,
    pub(crate) interim: Interim,
    /// The protocol of an extended CONNECT.
    pub(crate) connect: Option<String>,
}

/// A request on its way through the gateway. On the heap, as what holds it while it waits would
/// otherwise have room for it at each step of the way, and move it from one to the next.
pub(crate) struct Call<'a> {
    pub(crate) id: RequestId,
    /// The id as it is told in three places.
    pub(crate) id_text: IdText,
    pub(crate) client: &'a ClientInfo,
    pub(crate) parts: Parts,
    pub(crate) body: ClientBody,
    pub(crate) interim: Interim,
    /// The protocol of an extended CONNECT.
    pub(crate) connect: Option<String>,
    pub(crate) started: Instant,
    /// Known, as are the next two, once the head is checked.
    pub(crate) authority: String,
    pub(crate) origin: Origin,
    pub(crate) tunnel: Tunnel,
    pub(crate) finish: Box<Finish>,
}

impl Call<'_> {
    /// The request's body for its way to an agent.
    fn take_body(&mut self, bytes_max: u64) -> Result<BodyHandle, EdgeError> {
        if matches!(self.body, ClientBody::Empty) {
            return Ok(BodyHandle::default());
        }
        let waits = self.parts.headers.contains_key(header::EXPECT);
        let waits = waits.then(|| self.interim.clone());
        BodyHandle::new(std::mem::take(&mut self.body), bytes_max, waits)
    }
}

impl Worker {
    /// Answers one request. Never fails: errors are answers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, or later the answer's body, ends the request upstream too.
    pub(crate) fn serve<'a>(
        self: &'a Arc<Self>,
        client: &'a ClientInfo,
        incoming: Incoming,
    ) -> impl Future<Output = Response<AnswerBody>> + Send + 'a {
        // Before the future: it holds the call, and has no room for what the call is made of.
        let call = self.call(client, incoming);
        async move { self.answer_call(call).await }
    }

    fn call<'a>(self: &'a Arc<Self>, client: &'a ClientInfo, incoming: Incoming) -> Box<Call<'a>> {
        let id = RequestId::from_u128(rand::random());
        let started = Instant::now();
        let Incoming { request, interim, connect } = incoming;
        let (parts, body) = request.into_parts();
        let finish = Finish::new(self, id, client, &parts, started);
        let origin = Origin { client: client.peer.ip(), secure: client.tls, trusted: false };
        Box::new(Call {
            id,
            id_text: id.text(),
            client,
            parts,
            body,
            interim,
            connect,
            started,
            authority: String::new(),
            origin,
            tunnel: Tunnel::No,
            finish,
        })
    }

    async fn answer_call(self: &Arc<Self>, mut call: Box<Call<'_>>) -> Response<AnswerBody> {
        let form = Form::wanted(&call.parts.headers);
        let answered = self.dispatch(&mut call).await;
        let Call { id, id_text, client, mut finish, .. } = *call;
        let mut response = answered.unwrap_or_else(|error| {
            let code = error.code();
            tracing::debug!(request.id = %id, error = &error as &dyn std::error::Error, "refused");
            finish.draft.set_error(&error);
            self.count(&error);
            pages::answer(form, code, &error.to_string(), id, error.retry_after())
        });
        let fields = response.headers_mut();
        if let Ok(mut id) = HeaderValue::from_bytes(id_text.as_bytes()) {
            id.set_sensitive(true); // comes once: no use to a table of header compression
            fields.insert(headers::REQUEST_ID, id);
        }
        if client.tls {
            if let Some(alt_svc) = &self.gateway.alt_svc
                && client.protocol != Protocol::H3
            {
                fields.insert(header::ALT_SVC, alt_svc.clone());
            }
            if let Some(hsts) = &self.gateway.hsts {
                fields.entry(header::STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
            }
        }
        finish.head(&response);
        response.map(|body| body.on_end(finish))
    }

    fn count(&self, error: &EdgeError) {
        if let Some(by) = error.refused_by() {
            self.telemetry.count_refused(by);
        }
    }

    /// The same, for a task of its own.
    pub(crate) fn serve_boxed(
        self: Arc<Self>,
        client: Arc<ClientInfo>,
        incoming: Incoming,
    ) -> BoxFuture<'static, Response<AnswerBody>> {
        // Boxed: the whole path's type is too much for the compiler to prove `Send` twice over. Its place
        // first: what fails in between would have it made elsewhere and copied.
        let place = Box::new_uninit();
        let boxed = Box::write(place, async move { self.serve(&client, incoming).await });
        Box::into_pin(boxed)
    }

    async fn dispatch(
        self: &Arc<Self>,
        call: &mut Call<'_>,
    ) -> Result<Response<AnswerBody>, EdgeError> {
        let gateway = &*self.gateway;
        let connect = call.connect.take();
        let max_bytes = gateway.limits.max_header_bytes;
        (call.authority, call.tunnel) = head::check(&call.parts, connect.as_deref(), max_bytes)?;
        call.finish.draft.set_host(&call.authority);
        if call.tunnel == Tunnel::Connect {
            // The guest's server speaks HTTP/1.1, where a WebSocket begins with GET (RFC 8441 5).
            call.parts.method = Method::GET;
        }
        let client = call.client;
        if !client.tls
            && let Some(answer) = self.plain_http(&call.authority, &call.parts)
        {
            return Ok(answer);
        }
        self.check_sni(client, &call.authority)?;
        inward::check_hops(&call.parts.headers)?;
        let trusted = &gateway.trust.trusted_proxies;
        call.origin = forwarded::origin(&call.parts.headers, client.peer, client.tls, trusted);
        if call.tunnel == Tunnel::No && !matches!(call.body, ClientBody::Empty) {
            let body = std::mem::take(&mut call.body);
            call.body = late_end::settle(&call.parts, body).await;
        }
        let resolver = Resolver {
            domain: &gateway.domain,
            routes: &gateway.routes,
            limits: &gateway.limits,
            lookups: &gateway.lookups,
            telemetry: &self.telemetry,
        };
        let Parts { uri, headers, .. } = &mut call.parts;
        let Resolved { to, named, prefix } =
            resolver.resolve(&call.authority, uri, headers).await?;
        let prefix = prefix.as_deref();
        match to {
            Destination::Api => self.call_api(call).await,
            Destination::Function { route, tag } => {
                self.call_function(call, &route, tag, named, prefix).await
            }
            Destination::Sandbox { route, sandbox, port } => {
                self.call_sandbox(call, &route, sandbox, port, prefix).await
            }
        }
    }

    /// What is answered on plain HTTP before anything is looked up: ACME's challenges, and the way
    /// to `https`.
    fn plain_http(&self, authority: &str, parts: &Parts) -> Option<Response<AnswerBody>> {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        if let Some(challenges) = &self.gateway.challenges
            && crate::resolve::is_acme_challenge(&parts.uri).is_some()
            && let Some(answer) = challenges.answer(host, parts.uri.path())
        {
            let mut response = Response::new(AnswerBody::full(answer));
            let kind = HeaderValue::from_static("text/plain");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            return Some(response);
        }
        let port = self.gateway.trust.redirect_to_https?;
        let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let location = match port {
            443 => format!("https://{host}{path}"),
            port => format!("https://{host}:{port}{path}"),
        };
        let mut response = Response::new(AnswerBody::empty());
        *response.status_mut() = http::StatusCode::PERMANENT_REDIRECT;
        let location = HeaderValue::from_str(&location).ok()?;
        response.headers_mut().insert(header::LOCATION, location);
        Some(response)
    }

    /// RFC 9110 7.4: a request for a host that its connection was not made for is sent back.
    fn check_sni(&self, client: &ClientInfo, authority: &str) -> Result<(), EdgeError> {
        let Some(sni) = client.sni.as_deref().filter(|_| self.gateway.trust.strict_sni) else {
            return Ok(());
        };
        let port = authority.bytes().rposition(|byte| byte == b':');
        let host = port.map_or(authority, |at| &authority[..at]);
        if host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(sni) {
            Ok(())
        } else {
            Err(EdgeError::Misdirected { host: host.to_owned() })
        }
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}
