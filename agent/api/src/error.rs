//! How our error codes travel in Connect errors: as the `x-wrenn-error` header and trailer.

use connectrpc::{ConnectError, ErrorCode as Rpc};
use http::{HeaderMap, HeaderValue};
use pool_model::ErrorCode;

use crate::proxy;

/// Makes the RPC error that carries `code`.
#[must_use]
pub fn to_rpc(code: ErrorCode, message: impl Into<String>) -> ConnectError {
    let mut headers = HeaderMap::new();
    headers.insert(proxy::ERROR, HeaderValue::from_static(code.as_str()));
    ConnectError::new(rpc_code(code), message).with_headers(headers.clone()).with_trailers(headers)
}

/// Reads the code back. Without one the transport itself failed: the agent was not reached.
#[must_use]
pub fn from_rpc(error: &ConnectError) -> ErrorCode {
    let sent = error
        .response_headers()
        .get(proxy::ERROR)
        .or_else(|| error.trailers().get(proxy::ERROR))
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    sent.unwrap_or(match error.code {
        Rpc::DeadlineExceeded => ErrorCode::DeadlineExceeded,
        Rpc::Unauthenticated => ErrorCode::Unauthorized,
        Rpc::InvalidArgument => ErrorCode::InvalidArgument,
        Rpc::ResourceExhausted => ErrorCode::PayloadTooLarge,
        Rpc::Unavailable => ErrorCode::AgentUnavailable,
        _ => ErrorCode::Internal,
    })
}

fn rpc_code(code: ErrorCode) -> Rpc {
    match code.http_status() {
        400 | 413 | 422 => Rpc::InvalidArgument,
        401 => Rpc::Unauthenticated,
        403 => Rpc::PermissionDenied,
        404 => Rpc::NotFound,
        409 => Rpc::FailedPrecondition,
        502 | 503 => Rpc::Unavailable,
        504 => Rpc::DeadlineExceeded,
        507 => Rpc::ResourceExhausted,
        _ => Rpc::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire_form() {
        for &code in ErrorCode::ALL {
            assert_eq!(from_rpc(&to_rpc(code, "why")), code);
        }
    }
}
