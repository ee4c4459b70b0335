//! The routes of single requests: what the data plane remembers of them.

use axum::{
    extract::{Query, State},
    response::{IntoResponse as _, Response},
    routing::get,
};
use http::header;
use pool_model::{ErrorCode, RequestId};
use serde::Deserialize;

use super::{
    input::{Caller, Which},
    routes::{Route, Shared},
};
use crate::ApiError;

/// Most records of one answer.
const RECENT_MAX: usize = 1000;
/// Records of an answer that doesn't say how many.
const RECENT_DEFAULT: usize = 100;

/// All of them.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new("get", "/v1/requests", get(recent)),
        Route::new("get", "/v1/requests/{id}", get(request)),
    ]
}

#[derive(Debug, Deserialize)]
struct Recent {
    limit: Option<usize>,
}

async fn recent(
    State(control): Shared,
    Caller(team): Caller,
    Query(wish): Query<Recent>,
) -> Result<Response, ApiError> {
    let limit = wish.limit.unwrap_or(RECENT_DEFAULT);
    if !(1..=RECENT_MAX).contains(&limit) {
        let why = format!("`limit` is not 1 to {RECENT_MAX}");
        return Err(ApiError::new(ErrorCode::InvalidArgument, why));
    }
    let records = control.outside.records.as_ref();
    let items = records.map(|records| records.recent(team, limit)).unwrap_or_default();
    Ok(json(format!("{{\"items\":[{}]}}", items.join(","))))
}

async fn request(
    State(control): Shared,
    Caller(team): Caller,
    Which(id): Which<RequestId>,
) -> Result<Response, ApiError> {
    let records = control.outside.records.as_ref();
    let found = records.and_then(|records| records.find(team, id));
    found.map(json).ok_or_else(|| {
        let why = format!("no request {id} of this team is remembered");
        ApiError::new(ErrorCode::RequestNotFound, why)
    })
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
