//! The API's routes: what path and method leads to which call, and who may.
//!
//! Every answer carries `x-request-id`; every refusal is `{code, message, request_id}`.

mod answer;
mod events;
mod functions;
mod input;
mod jobs;
mod requests;
mod routes;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::Response,
};
use edge_api::API_KEY_HEADER;
use edge_store::ApiKey;
use pool_model::ErrorCode;

pub(crate) use input::DeployForm;

use crate::{ApiError, Control};

/// The API as a service. Whoever calls it has checked the host name; a [`pool_model::RequestId`] in
/// the request's extensions is used, else one is made.
pub fn router(control: Arc<Control>) -> Router {
    let open = routes::open().into_iter().fold(Router::new(), routes::add);
    let keyed = routes::keyed()
        .into_iter()
        .fold(Router::new(), routes::add)
        .fallback(|| async {
            ApiError::new(ErrorCode::NotFound, "there is no such resource in the API")
        })
        .method_not_allowed_fallback(|| async {
            ApiError::new(ErrorCode::MethodNotAllowed, "the resource has no such method")
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&control), authenticate));
    open.method_not_allowed_fallback(|| async {
        ApiError::new(ErrorCode::MethodNotAllowed, "the resource has no such method")
    })
    .merge(keyed)
    .layer(DefaultBodyLimit::disable()) // `input` has a limit for each kind of body
    .layer(middleware::from_fn(answer::finish))
    .with_state(control)
}

/// Puts the team that the key belongs to into the request, or refuses it.
async fn authenticate(
    State(control): State<Arc<Control>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let refused = |why| Err(ApiError::new(ErrorCode::Unauthorized, why));
    let Some(header) = request.headers().get(API_KEY_HEADER) else {
        return refused("the header `X-API-Key` is missing");
    };
    // A malformed key and an unknown one are told apart by nobody but its owner.
    let Some(key) = header.to_str().ok().and_then(|text| text.parse::<ApiKey>().ok()) else {
        return refused("the API key is not valid");
    };
    let Some(team) = control.store().team_of_key(&key).await? else {
        return refused("the API key is not valid");
    };
    request.extensions_mut().insert(input::Caller(team));
    Ok(next.run(request).await)
}
