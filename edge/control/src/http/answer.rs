//! What all answers have in common.

use std::{error::Error, sync::Arc};

use axum::{
    Json,
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use edge_api::{ErrorBody, REQUEST_ID_HEADER};
use http::{HeaderValue, StatusCode, header};
use pool_model::{ErrorCode, RequestId};

use crate::ApiError;

/// An error on its way out: the request's id is put in by [`finish`].
#[derive(Clone)]
struct Refusal(Arc<ApiError>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = status(self.code()).into_response();
        response.extensions_mut().insert(Refusal(Arc::new(self)));
        response
    }
}

/// Gives every request an id, every refusal its body, and logs what is our failure.
pub(super) async fn finish(mut request: Request, next: Next) -> Response {
    let known = request.extensions().get::<RequestId>().copied();
    let id = known.unwrap_or_else(|| RequestId::from_u128(rand::random()));
    request.extensions_mut().insert(id);
    let mut response = next.run(request).await;
    if let Some(Refusal(error)) = response.extensions_mut().remove::<Refusal>() {
        log(id, &error);
        let body = ErrorBody {
            code: error.code().as_str().to_owned(),
            message: error.to_string(),
            request_id: id.to_string(),
        };
        let retry = error.code().http_status() == 503;
        // The headers that are there stay: `Allow` of a refused method.
        let headers = std::mem::take(response.headers_mut());
        response = (status(error.code()), Json(body)).into_response();
        for (name, value) in &headers {
            if !response.headers().contains_key(name) && *name != header::CONTENT_LENGTH {
                response.headers_mut().insert(name, value.clone());
            }
        }
        if retry {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
    }
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(REQUEST_ID_HEADER, id);
    }
    response
}

fn log(id: RequestId, error: &ApiError) {
    let source = error.source();
    if error.code() == ErrorCode::Internal {
        tracing::error!(request.id = %id, error = source, "an API call failed");
    } else {
        tracing::debug!(request.id = %id, code = %error.code(), error = source, "{error}");
    }
}

fn status(code: ErrorCode) -> StatusCode {
    StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
