//! The routes of invocations that nobody waits for, and of schedules.

use axum::{
    Json,
    extract::State,
    routing::{delete, get, post},
};
use edge_api::{CronStatus, FunctionName, INVOCATIONS_DEFAULT, INVOCATIONS_MAX, Invocation, List};
use edge_store::{InvocationId, InvocationState};
use http::StatusCode;
use serde::Deserialize;

use super::{
    input::{Caller, Params, Which},
    routes::{Answer, Route, Shared},
};
use crate::ApiError;

/// All of them.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new("get", "/v1/invocations/{id}", get(job)),
        Route::new("delete", "/v1/invocations/{id}", delete(remove)),
        Route::new("post", "/v1/invocations/{id}/retry", post(retry)),
        Route::new("get", "/v1/functions/{name}/invocations", get(jobs)),
        Route::new("get", "/v1/functions/{name}/cron", get(cron)),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    state: Option<String>,
    limit: Option<u32>,
    before: Option<String>,
}

async fn job(
    State(control): Shared,
    Caller(team): Caller,
    Which(id): Which<InvocationId>,
) -> Answer<Invocation> {
    Ok(Json(control.job(team, id).await?))
}

async fn remove(
    State(control): Shared,
    Caller(team): Caller,
    Which(id): Which<InvocationId>,
) -> Result<StatusCode, ApiError> {
    control.remove_job(team, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn retry(
    State(control): Shared,
    Caller(team): Caller,
    Which(id): Which<InvocationId>,
) -> Answer<Invocation> {
    Ok(Json(control.retry_job(team, id).await?))
}

async fn jobs(
    State(control): Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
    Params(wish): Params<Wish>,
) -> Answer<List<Invocation>> {
    let limit = wish.limit.unwrap_or(INVOCATIONS_DEFAULT);
    if !(1..=INVOCATIONS_MAX).contains(&limit) {
        return Err(ApiError::field("limit", format!("expected 1 to {INVOCATIONS_MAX}")));
    }
    let state = wish.state.map(|text| text.parse::<InvocationState>()).transpose();
    let states = "expected `queued`, `running`, `succeeded`, `dead` or `cancelled`";
    let state = state.map_err(|()| ApiError::field("state", states))?;
    let before = wish.before.map(|text| text.parse::<InvocationId>()).transpose();
    let before = before.map_err(|bad| ApiError::field("before", bad))?;
    Ok(Json(List { items: control.jobs(team, &name, state, before, limit).await? }))
}

async fn cron(
    State(control): Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
) -> Answer<List<CronStatus>> {
    Ok(Json(List { items: control.cron(team, &name).await? }))
}
