//! Requests for a function: which version, may it, now or later.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use edge_policy::{CorsDecision, Keys, KeysUnavailable, preflight};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use pool_model::{AppProtocol, TeamId};
use tokio::time::{Instant, timeout_at};

use super::{Call, Worker, invoke::Outbound};
use crate::{
    body::{AnswerBody, ClientBody},
    error::EdgeError,
    head::Tunnel,
    headers::{
        inward::{self, Aim, Inward},
        location::Public,
    },
    inside::FromInside,
    resolve::Named,
    routes::{FunctionRoute, Routes, Submission, SubmitError, VersionRoute},
};

/// Most bytes of an invocation that nobody waits for: it is kept in the database.
const ASYNC_BODY_MAX_BYTES: usize = 6 << 20;

/// Looks API keys up on the lookups' runtime.
struct RouteKeys<'a> {
    worker: &'a Worker,
}

#[async_trait]
impl Keys for RouteKeys<'_> {
    async fn team_of_key(&self, key: &str) -> Result<Option<TeamId>, KeysUnavailable> {
        let (routes, key) = (Arc::clone(&self.worker.gateway.routes), key.to_owned());
        let asking =
            self.worker.gateway.lookups.spawn(async move { routes.team_of_key(&key).await });
        match asking.await {
            Ok(Ok(team)) => Ok(team),
            Ok(Err(_)) | Err(_) => Err(KeysUnavailable),
        }
    }
}

impl Worker {
    pub(super) async fn call_function(
        self: &Arc<Self>,
        call: &mut Call<'_>,
        route: &Arc<FunctionRoute>,
        tag: Option<String>,
        named: Named,
        prefix: Option<&str>,
    ) -> Result<Response<AnswerBody>, EdgeError> {
        let (version, tag) = pick(route, tag)?;
        call.finish.draft.set_function(
            &route.name,
            tag.as_deref(),
            version.version,
            route.team,
            named,
        );
        let cors = match &route.policy.cors {
            None => None,
            Some(cors) => {
                if let Some(answer) = preflight(cors, &call.parts.method, &call.parts.headers) {
                    return Ok(preflight_answer(answer));
                }
                edge_policy::decide(cors, &call.parts.headers)
            }
        };
        let answered = self.admitted(call, route, &version, tag.as_deref(), prefix).await;
        match (answered, cors) {
            (Ok(mut response), Some(cors)) => {
                apply(&cors, &mut response);
                Ok(response)
            }
            (answered, _) => answered,
        }
    }

    async fn admitted(
        self: &Arc<Self>,
        call: &mut Call<'_>,
        route: &Arc<FunctionRoute>,
        version: &VersionRoute,
        tag: Option<&str>,
        prefix: Option<&str>,
    ) -> Result<Response<AnswerBody>, EdgeError> {
        let inside = match call.parts.extensions.get::<FromInside>() {
            Some(FromInside(expected)) if *expected != route.function => {
                return Err(EdgeError::FunctionNotFound { name: route.name.to_string() });
            }
            inside => inside.is_some(),
        };
        let policy = &*route.policy;
        // Read once for all that usually takes no time.
        let mut now = Instant::now();
        if !inside {
            let client = call.origin.client;
            let keys = RouteKeys { worker: self };
            self.gateway.guards.function(route, client, &mut call.parts, &keys, now).await?;
            if !policy.auth.is_empty() {
                now = Instant::now();
            }
        }
        if !inside && policy.asynchronous.enabled && wants_async(&call.parts.headers) {
            return self.submit(call, route, tag).await;
        }
        let body = call.take_body(policy.request_bytes_max)?;
        let deadline = call.started + version.timeout;
        let permit = self.gateway.guards.admit(route, now, deadline).await?;
        let now = permit.taken_at().unwrap_or(now);
        let h2c = speaks_h2(policy.app_protocol, &call.parts.headers, call.tunnel);
        let added = inward::prepare(
            &mut call.parts.headers,
            &Inward {
                host: &call.authority,
                origin: call.origin,
                peer: call.client.peer.ip(),
                target: Aim::Function(version.pool),
                request_id: &call.id_text,
                prefix,
                websocket: call.tunnel != Tunnel::No,
                h2c,
                from_inside: inside,
            },
        );
        call.finish.draft.propagate(&mut call.parts.headers);
        let mut outbound = Outbound {
            added,
            body,
            deadline,
            timeout: version.timeout,
            h2c,
            permit: Some(permit),
            response_bytes_max: policy.response_bytes_max,
        };
        let mut answer = self.invoke(call, &mut outbound, route, now).await?;
        let public = Public {
            scheme: if call.origin.secure { "https" } else { "http" },
            authority: &call.authority,
            prefix,
            other_port: None,
        };
        crate::headers::location::rewrite(answer.headers_mut(), None, &public);
        if !route.tags.is_empty()
            && let Ok(value) = HeaderValue::from_str(&version_text(version, tag))
        {
            answer.headers_mut().insert(crate::headers::VERSION, value);
        }
        Ok(answer)
    }

    /// Takes an invocation that nobody waits for (RFC 7240 4.1).
    async fn submit(
        &self,
        call: &mut Call<'_>,
        route: &Arc<FunctionRoute>,
        tag: Option<&str>,
    ) -> Result<Response<AnswerBody>, EdgeError> {
        let until = call.started + self.gateway.limits.body_idle_timeout;
        let body = timeout_at(until, collect(std::mem::take(&mut call.body))).await;
        let body = body.map_err(|_| EdgeError::RequestTimeout)??;
        let headers = crate::headers::inward::for_later(&call.parts.headers);
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = call.parts.method.clone();
        parts.uri = call.parts.uri.clone();
        parts.headers = headers;
        let submission =
            Submission { route: Arc::clone(route), tag: tag.map(str::to_owned), parts, body };
        let routes: Arc<dyn Routes> = Arc::clone(&self.gateway.routes);
        let submitting = self.gateway.lookups.spawn(async move { routes.submit(submission).await });
        let submitted = submitting.await.unwrap_or(Err(SubmitError::Unavailable));
        let submitted = submitted.map_err(|source| EdgeError::Submit { source })?;
        let text = serde_json::json!({ "id": submitted.id, "status_url": submitted.status_url });
        let mut response = Response::new(AnswerBody::full(text.to_string()));
        *response.status_mut() = StatusCode::ACCEPTED;
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let applied = HeaderValue::from_static("respond-async");
        fields.insert("preference-applied", applied);
        if let Ok(location) = HeaderValue::from_str(&submitted.status_url) {
            fields.insert(header::LOCATION, location);
        }
        Ok(response)
    }
}

/// Reads a whole body that is to be kept.
async fn collect(body: ClientBody) -> Result<Bytes, EdgeError> {
    let ClientBody::Any(mut body) = body else { return Ok(Bytes::new()) };
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let broken = EdgeError::Malformed { reason: "the body broke off or breaks a rule" };
        let data = frame.map_err(|_| broken)?.into_data().unwrap_or_default();
        if whole.len() + data.len() > ASYNC_BODY_MAX_BYTES {
            let reason = format!("at most {ASYNC_BODY_MAX_BYTES} bytes of body");
            return Err(EdgeError::Submit { source: SubmitError::TooLarge { reason } });
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// The version that a tag names, or that the weights choose, or the current one.
fn pick(
    route: &FunctionRoute,
    tag: Option<String>,
) -> Result<(VersionRoute, Option<Arc<str>>), EdgeError> {
    if let Some(tag) = tag {
        let found = route.tags.iter().find(|known| *known.tag == *tag);
        let name = || route.name.to_string();
        return match found {
            Some(found) => Ok((found.version, Some(Arc::clone(&found.tag)))),
            None => Err(EdgeError::TagNotFound { name: name(), tag }),
        };
    }
    let sum: u32 = route.tags.iter().map(|tag| tag.weight).sum();
    if sum == 0 {
        return Ok((route.current, None));
    }
    Ok(weighed(route, rand::random_range(0..sum)))
}

fn weighed(route: &FunctionRoute, mut at: u32) -> (VersionRoute, Option<Arc<str>>) {
    for tag in &route.tags {
        if at < tag.weight {
            return (tag.version, Some(Arc::clone(&tag.tag)));
        }
        at -= tag.weight;
    }
    (route.current, None)
}

fn version_text(version: &VersionRoute, tag: Option<&str>) -> String {
    match tag {
        Some(tag) => format!("{}; tag={tag}", version.version),
        None => version.version.to_string(),
    }
}

fn wants_async(headers: &http::HeaderMap) -> bool {
    headers.get_all("prefer").iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| matches!(byte, b',' | b';'))
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(b"respond-async"))
    })
}

/// Whether the guest's server is spoken to in HTTP/2.
pub(super) fn speaks_h2(protocol: AppProtocol, headers: &http::HeaderMap, tunnel: Tunnel) -> bool {
    match protocol {
        _ if tunnel != Tunnel::No => false,
        AppProtocol::H2c => true,
        AppProtocol::Http1 => false,
        AppProtocol::Auto => is_grpc(headers),
    }
}

/// `application/grpc`, `application/grpc+proto`, …; gRPC-Web speaks HTTP/1.1.
fn is_grpc(headers: &http::HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let rest = kind.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| rest.first().is_none_or(|next| matches!(next, b'+' | b';' | b' ')))
}

fn preflight_answer(answer: edge_policy::CorsAnswer) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = answer.headers;
    response
}

fn apply(cors: &CorsDecision, response: &mut Response<AnswerBody>) {
    cors.apply(response.headers_mut());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pool_model::{FunctionId, InvocationPolicy};

    use super::*;
    use crate::routes::TagRoute;

    fn route(weights: &[(&str, u32)]) -> FunctionRoute {
        let version = |version| VersionRoute {
            version,
            pool: FunctionId::from_u128(u128::from(version)),
            timeout: Duration::from_secs(1),
        };
        let tag = |(tag, weight): &(&str, u32)| TagRoute {
            tag: Arc::from(*tag),
            weight: *weight,
            version: version(*weight + 1),
        };
        FunctionRoute {
            function: FunctionId::from_u128(1),
            name: Arc::from("hello"),
            team: TeamId::from_u128(1),
            policy: Arc::new(InvocationPolicy::default()),
            signing_secret: None,
            current: version(1),
            tags: weights.iter().map(tag).collect(),
            agents: Arc::from([]),
        }
    }

    #[test]
    fn weights_split_and_tags_name() {
        let route = route(&[("a", 1), ("off", 0), ("b", 3)]);
        let chosen: Vec<_> = (0..4).map(|at| weighed(&route, at).1.unwrap().to_string()).collect();
        assert_eq!(chosen, ["a", "b", "b", "b"]);
        assert_eq!(pick(&route, Some("off".to_owned())).unwrap().0.version, 1);
        let unknown = pick(&route, Some("nope".to_owned()));
        assert!(matches!(unknown, Err(EdgeError::TagNotFound { .. })));
    }

    #[test]
    fn without_weights_the_current_version_answers() {
        let (version, tag) = pick(&route(&[("canary", 0)]), None).unwrap();
        assert_eq!((version.version, tag), (1, None));
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let speaks = |kind: &'static str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            speaks_h2(AppProtocol::Auto, &headers, Tunnel::No)
        };
        assert!(speaks("application/grpc") && speaks("application/grpc+proto"));
        assert!(!speaks("application/grpc-web") && !speaks("application/json"));
    }
}
