//! The table of routes. A test holds it against `openapi.json`.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, patch, post, put},
};
use bytes::Bytes;
use edge_api::{
    Capsule, CreateCapsule, CreateSnapshot, Drained, ExecEvent, ExecRequest, Function,
    FunctionName, Health, List, PoolInfo, PoolPatch, Prewarm, SetTimeout, SnapshotInfo,
    TemplateInfo, TrafficPolicy,
};
use futures::stream;
use http::{StatusCode, header};
use pool_model::{ErrorCode, SandboxId, SnapshotId};

use super::{
    events, functions,
    input::{Caller, DeployForm, Id, Input, OptionalInput, Which},
};
use crate::{ApiError, Control, exec::ExecStream, pool_wire::Detail};

pub(super) type Shared = State<Arc<Control>>;
pub(super) type Answer<T> = Result<Json<T>, ApiError>;
pub(super) type Created<T> = Result<(StatusCode, Json<T>), ApiError>;

/// One method of one path.
pub(super) struct Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "the description is tested against it"))]
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    handler: MethodRouter<Arc<Control>>,
}

impl Route {
    pub(super) const fn new(
        method: &'static str,
        path: &'static str,
        handler: MethodRouter<Arc<Control>>,
    ) -> Self {
        Self { method, path, handler }
    }
}

pub(super) fn add(router: Router<Arc<Control>>, route: Route) -> Router<Arc<Control>> {
    router.route(route.path, route.handler)
}

/// What needs no key.
pub(super) fn open() -> Vec<Route> {
    vec![
        Route::new("get", "/healthz", get(healthz)),
        Route::new("get", "/openapi.json", get(openapi)),
    ]
}

/// What needs a key.
pub(super) fn keyed() -> Vec<Route> {
    let route = Route::new;
    let mut routes = vec![
        route("post", "/v1/functions", post(deploy)),
        route("get", "/v1/functions", get(list_functions)),
        route("get", "/v1/functions/{name}", get(function)),
        route("delete", "/v1/functions/{name}", delete(delete_function)),
        route("post", "/v1/capsules", post(create_capsule)),
        route("get", "/v1/capsules", get(capsules)),
        route("get", "/v1/capsules/{id}", get(capsule)),
        route("delete", "/v1/capsules/{id}", delete(delete_capsule)),
        route("post", "/v1/capsules/{id}/exec", post(exec)),
        route("post", "/v1/capsules/{id}/pause", post(pause)),
        route("post", "/v1/capsules/{id}/resume", post(resume)),
        route("post", "/v1/capsules/{id}/snapshot", post(snapshot)),
        route("post", "/v1/capsules/{id}/timeout", post(set_timeout)),
        route("put", "/v1/capsules/{id}/traffic", put(set_traffic)),
        route("get", "/v1/pools", get(pools)),
        route("get", "/v1/pools/events", get(events::of_all)),
        route("get", "/v1/pools/{function}", get(pool)),
        route("patch", "/v1/pools/{function}", patch(patch_pool)),
        route("post", "/v1/pools/{function}/prewarm", post(prewarm_pool)),
        route("post", "/v1/pools/{function}/drain", post(drain_pool)),
        route("get", "/v1/pools/{function}/events", get(events::of_one)),
        route("get", "/v1/templates", get(templates)),
        route("get", "/v1/snapshots", get(snapshots)),
        route("delete", "/v1/snapshots/{id}", delete(delete_snapshot)),
    ];
    routes.extend(functions::routes());
    routes.extend(super::jobs::routes());
    routes.extend(super::requests::routes());
    routes
}

async fn healthz(State(control): Shared) -> Json<Health> {
    let agent_reachable = control.agent_reachable();
    Json(Health {
        status: if agent_reachable { "ok" } else { "degraded" }.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        agent_reachable,
    })
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], edge_api::OPENAPI).into_response()
}

async fn deploy(
    State(control): Shared,
    Caller(team): Caller,
    Id(id): Id,
    request: Request,
) -> Created<Function> {
    // Before the body is read: it is what takes the memory.
    let Ok(place) = Arc::clone(&control.deploys).try_acquire_owned() else {
        let why = "too many deploys are under way; try again later";
        return Err(ApiError::new(ErrorCode::NoCapacity, why));
    };
    let form = DeployForm::read(request).await?;
    let function = control.deploy(id, team, form, place).await?;
    Ok((StatusCode::CREATED, Json(function)))
}

async fn list_functions(State(control): Shared, Caller(team): Caller) -> Answer<List<Function>> {
    Ok(Json(List { items: control.functions(team).await? }))
}

async fn function(
    State(control): Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
) -> Answer<Function> {
    Ok(Json(control.function(team, name.as_str()).await?))
}

async fn delete_function(
    State(control): Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
) -> Result<StatusCode, ApiError> {
    control.delete_function(team, name.as_str()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn create_capsule(
    State(control): Shared,
    Caller(team): Caller,
    OptionalInput(request): OptionalInput<CreateCapsule>,
) -> Created<Capsule> {
    Ok((StatusCode::CREATED, Json(control.create_capsule(team, request).await?)))
}

async fn capsules(State(control): Shared, Caller(team): Caller) -> Answer<List<Capsule>> {
    Ok(Json(List { items: control.capsules(team).await? }))
}

async fn capsule(
    State(control): Shared,
    Caller(team): Caller,
    Which(id): Which<SandboxId>,
) -> Answer<Capsule> {
    Ok(Json(control.capsule(team, id).await?))
}

async fn delete_capsule(
    State(control): Shared,
    Caller(team): Caller,
    Which(id): Which<SandboxId>,
) -> Result<StatusCode, ApiError> {
    control.delete_capsule(team, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn exec(
    State(control): Shared,
    Caller(team): Caller,
    Which(id): Which<SandboxId>,
    Input(request): Input<ExecRequest>,
) -> Result<Response, ApiError> {
    let (first, events) = control.exec(team, id, request).await?;
    // Pulled by the client: a slow reader slows the command, one that hangs up ends it.
    let lines = stream::unfold(Some((Some(first), events)), next_line);
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

type Following = Option<(Option<ExecEvent>, ExecStream)>;

/// One line of an exec answer. An error of the stream is its last line: the status is sent already.
async fn next_line(state: Following) -> Option<(Result<Bytes, Infallible>, Following)> {
    let (first, mut events) = state?;
    let next = match first {
        Some(first) => Ok(Some(first)),
        None => events.next().await,
    };
    let (event, state) = match next {
        Ok(None) => return None,
        Ok(Some(event)) => (event, Some((None, events))),
        Err(error) => {
            let (code, message) = (error.code().as_str().to_owned(), error.to_string());
            (ExecEvent::Error { code, message }, None)
        }
    };
    let mut line = serde_json::to_vec(&event).ok()?;
    line.push(b'\n');
    Some((Ok(Bytes::from(line)), state))
}

async fn pause(
    State(control): Shared,
    Caller(team): Caller,
    Which(id): Which<SandboxId>,
) -> Answer<Capsule> {
    Ok(Json(control.pause(team, id).await?))
}

async fn resume(
    State(control): Shared,
    Caller(team): Caller,
    Which(id): Which<SandboxId>,
) -> Answer<Capsule> {
    Ok(Json(control.resume(team, id).await?))
}

async fn snapshot(
    State(control): Shared,
    Caller(team): Caller,
    Id(request_id): Id,
    Which(id): Which<SandboxId>,
    OptionalInput(wish): OptionalInput<CreateSnapshot>,
) -> Created<SnapshotInfo> {
    let made = control.snapshot(request_id, team, id, wish).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn set_timeout(
    State(control): Shared,
    Caller(team): Caller,
    Which(id): Which<SandboxId>,
    Input(SetTimeout { timeout_s }): Input<SetTimeout>,
) -> Answer<Capsule> {
    Ok(Json(control.set_timeout(team, id, timeout_s).await?))
}

async fn set_traffic(
    State(control): Shared,
    Caller(team): Caller,
    Which(id): Which<SandboxId>,
    Input(traffic): Input<TrafficPolicy>,
) -> Answer<Capsule> {
    Ok(Json(control.set_traffic(team, id, traffic).await?))
}

async fn pools(State(control): Shared, Caller(team): Caller) -> Answer<List<PoolInfo>> {
    Ok(Json(List { items: control.list_pools(team, Detail::Brief).await? }))
}

async fn pool(
    State(control): Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
) -> Answer<PoolInfo> {
    Ok(Json(control.pool(team, name.as_str()).await?))
}

async fn patch_pool(
    State(control): Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
    Input(patch): Input<PoolPatch>,
) -> Answer<PoolInfo> {
    Ok(Json(control.patch_pool(team, name.as_str(), patch).await?))
}

async fn prewarm_pool(
    State(control): Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
    Input(wish): Input<Prewarm>,
) -> Answer<PoolInfo> {
    Ok(Json(control.prewarm_pool(team, name.as_str(), wish).await?))
}

async fn drain_pool(
    State(control): Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
) -> Answer<Drained> {
    Ok(Json(control.drain_pool(team, name.as_str()).await?))
}

async fn templates(State(control): Shared, Caller(team): Caller) -> Answer<List<TemplateInfo>> {
    Ok(Json(List { items: control.templates(team).await? }))
}

async fn snapshots(State(control): Shared, Caller(team): Caller) -> Answer<List<SnapshotInfo>> {
    Ok(Json(List { items: control.list_snapshots(team).await? }))
}

async fn delete_snapshot(
    State(control): Shared,
    Caller(team): Caller,
    Which(id): Which<SnapshotId>,
) -> Result<StatusCode, ApiError> {
    control.delete_snapshot(team, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_description_has_every_route_and_no_other() {
        let description: serde_json::Value = serde_json::from_str(edge_api::OPENAPI).unwrap();
        let mut described = BTreeSet::new();
        for (path, methods) in description["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys().filter(|key| *key != "parameters") {
                described.insert((method.clone(), path.clone()));
            }
        }
        let served: BTreeSet<_> = open()
            .into_iter()
            .chain(keyed())
            .map(|route| (route.method.to_owned(), route.path.to_owned()))
            .collect();
        assert_eq!(served, described);
    }
}
