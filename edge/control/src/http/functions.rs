//! The routes of what belongs to one function: versions, tags, invocations, domains.

use axum::{
    Json,
    extract::State,
    routing::{delete, get, post, put},
};
use edge_api::{
    AddDomain, Domain, Function, FunctionName, FunctionVersion, InvocationPolicy, List, Promote,
    SetTag, Sign, SignedUrl, TagName, TagWeight,
};
use http::StatusCode;

use super::{
    input::{Both, Caller, Input, Which},
    routes::{Answer, Created, Route, Shared},
};
use crate::ApiError;

/// All of them.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new("get", "/v1/functions/{name}/versions", get(versions)),
        Route::new("put", "/v1/functions/{name}/tags/{tag}", put(set_tag)),
        Route::new("delete", "/v1/functions/{name}/tags/{tag}", delete(remove_tag)),
        Route::new("post", "/v1/functions/{name}/promote", post(promote)),
        Route::new("put", "/v1/functions/{name}/split", put(split)),
        Route::new("get", "/v1/functions/{name}/invocation", get(invocation)),
        Route::new("put", "/v1/functions/{name}/invocation", put(set_invocation)),
        Route::new("post", "/v1/functions/{name}/sign", post(sign)),
        Route::new("post", "/v1/functions/{name}/domains", post(add_domain)),
        Route::new("get", "/v1/functions/{name}/domains", get(domains)),
        Route::new("delete", "/v1/functions/{name}/domains/{domain}", delete(remove_domain)),
        Route::new("post", "/v1/functions/{name}/domains/{domain}/verify", post(verify_domain)),
    ]
}

async fn versions(
    State(control): Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
) -> Answer<List<FunctionVersion>> {
    Ok(Json(List { items: control.versions(team, name.as_str()).await? }))
}

async fn set_tag(
    State(control): Shared,
    Caller(team): Caller,
    Both(name, tag): Both<FunctionName, TagName>,
    Input(wish): Input<SetTag>,
) -> Answer<Function> {
    Ok(Json(control.set_tag(team, &name, &tag, wish).await?))
}

async fn remove_tag(
    State(control): Shared,
    Caller(team): Caller,
    Both(name, tag): Both<FunctionName, TagName>,
) -> Result<StatusCode, ApiError> {
    control.remove_tag(team, &name, &tag).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn promote(
    State(control): Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
    Input(wish): Input<Promote>,
) -> Answer<Function> {
    Ok(Json(control.promote(team, &name, wish).await?))
}

async fn split(
    State(control): Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
    Input(split): Input<Vec<TagWeight>>,
) -> Answer<Function> {
    Ok(Json(control.split(team, &name, split).await?))
}

async fn invocation(
    State(control): Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
) -> Answer<InvocationPolicy> {
    Ok(Json(control.invocation(team, &name).await?))
}

async fn set_invocation(
    State(control): Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
    Input(policy): Input<InvocationPolicy>,
) -> Answer<InvocationPolicy> {
    Ok(Json(control.set_invocation(team, &name, policy).await?))
}

async fn sign(
    State(control): Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
    Input(wish): Input<Sign>,
) -> Answer<SignedUrl> {
    Ok(Json(control.sign(team, &name, wish).await?))
}

async fn add_domain(
    State(control): Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
    Input(wish): Input<AddDomain>,
) -> Created<Domain> {
    Ok((StatusCode::CREATED, Json(control.add_domain(team, &name, wish).await?)))
}

async fn domains(
    State(control): Shared,
    Caller(team): Caller,
    Which(name): Which<FunctionName>,
) -> Answer<List<Domain>> {
    Ok(Json(List { items: control.domains(team, &name).await? }))
}

async fn remove_domain(
    State(control): Shared,
    Caller(team): Caller,
    Both(name, domain): Both<FunctionName, String>,
) -> Result<StatusCode, ApiError> {
    control.remove_domain(team, &name, &domain).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn verify_domain(
    State(control): Shared,
    Caller(team): Caller,
    Both(name, domain): Both<FunctionName, String>,
) -> Answer<Domain> {
    Ok(Json(control.verify_domain(team, &name, &domain).await?))
}
