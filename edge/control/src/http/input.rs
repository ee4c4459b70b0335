//! Reads what a request brings: who, which, and its body, each with a limit and a clear refusal.

use std::str::FromStr;

use axum::{
    extract::{FromRequest, FromRequestParts, Multipart, Path, Query, Request, multipart::Field},
    http::request::Parts,
};
use bytes::{Bytes, BytesMut};
use edge_api::{DeployConfig, MAX_ARCHIVE_BYTES, MAX_JSON_BYTES};
use http::{StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use pool_model::{ErrorCode, RequestId, TeamId};
use serde::de::DeserializeOwned;

use crate::ApiError;

/// Whose key came with the request.
#[derive(Clone, Copy)]
pub(super) struct Caller(pub(super) TeamId);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Self>().copied();
        caller.ok_or_else(|| ApiError::internal("a route for callers with a key has no layer"))
    }
}

/// The request's id.
#[derive(Clone, Copy)]
pub(super) struct Id(pub(super) RequestId);

impl<S: Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let id = parts.extensions.get::<RequestId>().copied();
        id.map(Self).ok_or_else(|| ApiError::internal("a request has no id"))
    }
}

/// The one parameter of a path: an id or a name.
pub(super) struct Which<T>(pub(super) T);

impl<S, T> FromRequestParts<S> for Which<T>
where
    S: Send + Sync,
    T: FromStr<Err: std::fmt::Display>,
{
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|bad| ApiError::new(ErrorCode::InvalidArgument, bad.body_text()))?;
        let parsed = text.parse().map(Self);
        parsed.map_err(|bad| ApiError::new(ErrorCode::InvalidArgument, bad.to_string()))
    }
}

/// The two parameters of a path, in their order.
pub(super) struct Both<A, B>(pub(super) A, pub(super) B);

impl<S, A, B> FromRequestParts<S> for Both<A, B>
where
    S: Send + Sync,
    A: FromStr<Err: std::fmt::Display>,
    B: FromStr<Err: std::fmt::Display>,
{
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let bad = |problem: String| ApiError::new(ErrorCode::InvalidArgument, problem);
        let Path((a, b)) = Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|problem| bad(problem.body_text()))?;
        let a = a.parse().map_err(|problem: A::Err| bad(problem.to_string()))?;
        let b = b.parse().map_err(|problem: B::Err| bad(problem.to_string()))?;
        Ok(Self(a, b))
    }
}

/// The query of a URL.
pub(super) struct Params<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(params) = Query::try_from_uri(&parts.uri)
            .map_err(|bad| ApiError::new(ErrorCode::InvalidArgument, bad.body_text()))?;
        Ok(Self(params))
    }
}

/// A JSON body.
pub(super) struct Input<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read_json(request).await?;
        parse("the body", &bytes).map(Self)
    }
}

/// A JSON body that may be left out.
pub(super) struct OptionalInput<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalInput<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read_json(request).await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(T::default()));
        }
        parse("the body", &bytes).map(Self)
    }
}

/// The two parts of a deploy. The archive is held in memory: that is why deploys are counted before
/// their body is read.
pub(crate) struct DeployForm {
    pub(crate) config: DeployConfig,
    pub(crate) code: Bytes,
}

impl DeployForm {
    pub(super) async fn read(request: Request) -> Result<Self, ApiError> {
        let mut form = Multipart::from_request(request, &()).await.map_err(|bad| {
            ApiError::new(ErrorCode::InvalidArgument, format!("the body: {}", bad.body_text()))
        })?;
        let (mut config, mut code) = (None, None);
        while let Some(part) = form.next_field().await.map_err(broken)? {
            match part.name() {
                Some("config") if config.is_none() => {
                    let bytes = read_part(part, "config", MAX_JSON_BYTES as u64).await?;
                    config = Some(parse("the part `config`", &bytes)?);
                }
                Some("code") if code.is_none() => {
                    code = Some(read_part(part, "code", MAX_ARCHIVE_BYTES).await?);
                }
                name => {
                    let name: String = name.unwrap_or("").chars().take(64).collect();
                    let why = "expected the parts `config` and `code`, each once";
                    return Err(ApiError::field(&name, why));
                }
            }
        }
        let missing = |part| ApiError::field(part, "the part is missing");
        Ok(Self {
            config: config.ok_or_else(|| missing("config"))?,
            code: code.ok_or_else(|| missing("code"))?,
        })
    }
}

async fn read_part(mut part: Field<'_>, name: &str, limit: u64) -> Result<Bytes, ApiError> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = part.chunk().await.map_err(broken)? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(too_large(&format!("the part `{name}`"), limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn broken(error: axum::extract::multipart::MultipartError) -> ApiError {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return too_large("the body", MAX_ARCHIVE_BYTES);
    }
    let why = format!("the body is no multipart/form-data: {}", error.body_text());
    ApiError::new(ErrorCode::InvalidArgument, why)
}

async fn read_json(request: Request) -> Result<Bytes, ApiError> {
    let json = request.headers().get(header::CONTENT_TYPE).is_none_or(|kind| {
        kind.to_str().is_ok_and(|kind| {
            let kind = kind.split(';').next().unwrap_or("").trim();
            kind.eq_ignore_ascii_case("application/json")
                || kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") // `curl -d`
        })
    });
    if !json {
        return Err(ApiError::field("content-type", "expected application/json"));
    }
    match Limited::new(request.into_body(), MAX_JSON_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(too_large("the body", MAX_JSON_BYTES as u64))
        }
        Err(error) => {
            let why = "the body ended early";
            Err(ApiError::new(ErrorCode::InvalidArgument, why).with_source(error))
        }
    }
}

fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json);
    let parsed: T = parsed.map_err(|error| {
        let path = error.path().to_string();
        let problem = error.into_inner();
        if path == "." || problem.is_syntax() || problem.is_eof() {
            ApiError::new(ErrorCode::InvalidArgument, format!("{what}: {problem}"))
        } else {
            ApiError::field(&path, problem)
        }
    })?;
    json.end()
        .map_err(|error| ApiError::new(ErrorCode::InvalidArgument, format!("{what}: {error}")))?;
    Ok(parsed)
}

fn too_large(what: &str, limit: u64) -> ApiError {
    ApiError::new(ErrorCode::PayloadTooLarge, format!("{what} is over {limit} bytes"))
}
