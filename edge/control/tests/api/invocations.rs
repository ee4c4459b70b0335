//! How functions may be invoked and capsules be reached: set, kept, refused, told at once.

use edge_api::{CreateCapsule, DeployConfig, InvocationPolicy, Sign, TrafficPolicy};
use edge_policy::SigningSecret;
use http::Method;
use pool_model::{ErrorCode, SandboxId};

use crate::edge::{TestEdge, code, hello};

fn policy(json: &str) -> InvocationPolicy {
    serde_json::from_str(json).unwrap()
}

#[tokio::test]
async fn an_invocation_policy_is_kept_over_deploys_until_one_says_otherwise() {
    let edge = TestEdge::start().await;
    let api = edge.client();
    let keyed = policy(r#"{"auth":[{"kind":"key"}],"queue_max":5}"#);
    let config = DeployConfig { invocation: Some(keyed.clone()), ..hello() };
    let name = api.deploy(&config, &code()).await.unwrap().name;
    assert_eq!(api.invocation(&name).await.unwrap(), keyed);
    api.deploy(&hello(), &code()).await.unwrap();
    assert_eq!(api.invocation(&name).await.unwrap(), keyed, "what isn't said stays");

    let timed = policy(r#"{"cron":[{"name":"a","schedule":"* * * * *"}]}"#);
    assert_eq!(api.set_invocation(&name, &timed).await.unwrap(), timed);
    let open = DeployConfig { invocation: Some(InvocationPolicy::default()), ..hello() };
    api.deploy(&open, &code()).await.unwrap();
    assert_eq!(api.invocation(&name).await.unwrap(), InvocationPolicy::default());
    let unseen = edge.other_client().invocation(&name).await.unwrap_err();
    assert_eq!(unseen.code(), Some(ErrorCode::FunctionNotFound));
}

#[tokio::test]
async fn a_bad_policy_is_refused_before_anything_is_built() {
    let edge = TestEdge::start().await;
    let name = edge.client().deploy(&hello(), &code()).await.unwrap().name;
    let builds = edge.agent.state().created.len();
    for (bad, field) in [
        (r#"{"queue_max":100001}"#, "queue_max"),
        (r#"{"cron":[{"name":"a","schedule":"* *"}]}"#, "cron"),
        (r#"{"auth":[{"kind":"jwt"}]}"#, "jwt"),
        (r#"{"auth":[{"kind":"jwt","jwks":"{}"}]}"#, "jwks"),
        (r#"{"async":{"webhook":"http://example.org/"}}"#, "webhook"),
    ] {
        let refused = edge.client().set_invocation(&name, &policy(bad)).await.unwrap_err();
        assert!(refused.to_string().contains(field), "{bad}: {refused}");
        let config = DeployConfig { invocation: Some(policy(bad)), ..hello() };
        let refused = edge.client().deploy(&config, &code()).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::InvalidArgument), "{bad}: {refused}");
    }
    assert_eq!(edge.agent.state().created.len(), builds);
    let path = format!("/v1/functions/{name}/invocation");
    let refused = edge.refusal(Method::PUT, &path, r#"{"queues":1}"#).await;
    assert!(refused.message.contains("queues"), "{refused:?}");
    assert_eq!(edge.client().invocation(&name).await.unwrap(), InvocationPolicy::default());
}

#[tokio::test]
async fn a_signing_secret_is_made_once_and_the_data_plane_has_it_at_once() {
    let edge = TestEdge::start().await;
    let function = edge.client().deploy(&hello(), &code()).await.unwrap();
    let team = pool_model::TeamId::from_u128(1);
    let routed = async || edge.control.directory().function("hello").await.unwrap().unwrap();
    assert_eq!(routed().await.signing_secret, None);
    let secret = edge.control.signing_secret(team, "hello").await.unwrap();
    assert_eq!(routed().await.signing_secret.as_ref(), Some(&secret), "at once");
    assert_eq!(edge.control.signing_secret(team, "hello").await.unwrap(), secret);
    edge.client().deploy(&hello(), &code()).await.unwrap();
    assert_eq!(routed().await.signing_secret, Some(secret.clone()), "over deploys");
    let told = serde_json::to_string(&edge.client().function(&function.name).await.unwrap());
    assert!(!told.unwrap().contains(&**secret.expose()), "nobody is told");
    let other = pool_model::TeamId::from_u128(2);
    let refused = edge.control.signing_secret(other, "hello").await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::FunctionNotFound);
}

#[tokio::test]
async fn a_signed_url_is_good_for_what_was_signed_only() {
    let edge = TestEdge::start().await;
    let name = edge.client().deploy(&hello(), &code()).await.unwrap().name;
    let wish = Sign { method: Some("GET".to_owned()), path: "/a?b=c".to_owned(), expires_s: 60 };
    let signed = edge.client().sign(&name, &wish).await.unwrap();
    let path = signed.url.strip_prefix("https://hello.fn.wrenn.localhost:8443").unwrap();
    let target = edge.control.directory().function("hello").await.unwrap().unwrap();
    let secret = SigningSecret::new(target.signing_secret.as_ref().unwrap().expose());
    let until = signed.expires_at.as_second();
    let good = edge_policy::verify(Some(&secret), &Method::GET, path, until - 1);
    assert_eq!(good.unwrap(), "/a?b=c");
    assert!(edge_policy::verify(Some(&secret), &Method::POST, path, until - 1).is_err());
    assert!(edge_policy::verify(Some(&secret), &Method::GET, path, until).is_err());

    let odd = Sign { path: "a".to_owned(), ..wish.clone() };
    let refused = edge.client().sign(&name, &odd).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::InvalidArgument));
    let unseen = edge.other_client().sign(&name, &wish).await.unwrap_err();
    assert_eq!(unseen.code(), Some(ErrorCode::FunctionNotFound));
}

#[tokio::test]
async fn a_capsule_with_a_private_port_has_a_token_that_its_owner_sees() {
    let edge = TestEdge::start().await;
    let api = edge.client();
    let private: TrafficPolicy = serde_json::from_str(r#"{"private_ports":[8000]}"#).unwrap();
    let wish = CreateCapsule { traffic: Some(private.clone()), ..Default::default() };
    let made = api.create_capsule(&wish).await.unwrap();
    let token = made.traffic_token.clone().unwrap();
    assert_eq!((made.traffic.clone(), token.len()), (private, 32));
    let routed = async |id| edge.control.directory().sandbox(id).await.unwrap().unwrap();
    let target = routed(made.id).await;
    assert_eq!(&**target.traffic_token.as_ref().unwrap().expose(), token);

    let open = api.set_traffic(made.id, &TrafficPolicy::default()).await.unwrap();
    assert_eq!((open.traffic_token, open.traffic), (None, TrafficPolicy::default()));
    assert!(!routed(made.id).await.traffic.has_private(), "at once");
    let all = TrafficPolicy { private: true, ..Default::default() };
    let closed = api.set_traffic(made.id, &all).await.unwrap();
    assert_eq!(closed.traffic_token, Some(token), "it keeps its token");
    assert!(routed(made.id).await.traffic.private, "at once");
    assert_eq!(api.capsule(made.id).await.unwrap(), closed);

    let fast: TrafficPolicy = serde_json::from_str(r#"{"rate":{"per_second":0}}"#).unwrap();
    let refused = api.set_traffic(made.id, &fast).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::InvalidArgument));
    let unseen = edge.other_client().set_traffic(made.id, &all).await.unwrap_err();
    assert_eq!(unseen.code(), Some(ErrorCode::SandboxNotFound));
    let nobody = api.set_traffic(SandboxId::from_u128(9), &all).await.unwrap_err();
    assert_eq!(nobody.code(), Some(ErrorCode::SandboxNotFound));
    let plain = api.create_capsule(&CreateCapsule::default()).await.unwrap();
    assert_eq!(plain.traffic_token, None);
}
