//! gRPC goes through in HTTP/2 all the way: trailers, both directions at once, its own errors.

use std::time::Duration;

use bytes::Bytes;
use edge_proxy::{Body, BoxError};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, channel::Channel};
use pool_model::{AppProtocol, InvocationPolicy};
use tokio::time::timeout;

use crate::{
    agent::{FakeAgent, Mode},
    client::{Client, Proto, code, full, post, seen},
    stack::{Stack, function},
};

fn call(name: &str, path: &str, body: Body) -> Request<Body> {
    let mut request = post(&function(name), path, body);
    let fields = request.headers_mut();
    fields.insert("content-type", HeaderValue::from_static("application/grpc+proto"));
    fields.insert("te", HeaderValue::from_static("trailers"));
    request
}

#[tokio::test]
async fn a_unary_call_has_its_status_in_the_trailers() {
    let stack = Stack::start().await;
    for proto in [Proto::H2, Proto::H3] {
        let mut client = Client::new(&stack, proto).await;
        let response = client.send(call("hello", "/grpc/unary", full("request"))).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let body = response.into_body().collect().await.unwrap();
        let status = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        assert_eq!(status, Some(HeaderValue::from_static("0")), "{proto:?}");
        assert_eq!(body.to_bytes(), "7 bytes, te: trailers", "{proto:?}");
    }
}

#[tokio::test]
async fn both_directions_stream_at_once() {
    let stack = Stack::start().await;
    for proto in [Proto::H2, Proto::H3] {
        let mut client = Client::new(&stack, proto).await;
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(4);
        sender.send_data(Bytes::from_static(b"0")).await.unwrap();
        let response = client.send(call("hello", "/grpc/bidi", body.boxed_unsync())).await;
        let mut answer = response.into_body();
        for number in 1..=20 {
            let frame = timeout(Duration::from_secs(10), answer.frame()).await.unwrap();
            let data = frame.unwrap().unwrap().into_data().unwrap();
            assert_eq!(data, (number - 1).to_string(), "{proto:?}");
            sender.send_data(Bytes::from(number.to_string())).await.unwrap();
        }
        drop(sender);
        let rest = answer.collect().await.unwrap();
        assert_eq!(rest.trailers().unwrap()["grpc-status"], "0", "{proto:?}");
        assert_eq!(rest.to_bytes(), "20", "{proto:?}");
    }
}

#[tokio::test]
async fn an_error_without_a_body_is_told_in_the_head() {
    let stack = Stack::start().await;
    for proto in [Proto::H2, Proto::H3] {
        let mut client = Client::new(&stack, proto).await;
        let response = client.send(call("hello", "/grpc/error", full("x"))).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "5");
        assert_eq!(response.headers()["grpc-message"], "not%20there");
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}

#[tokio::test]
async fn a_late_call_and_one_given_up_end_upstream_and_leave_the_others() {
    let stack = Stack::start().await;
    for proto in [Proto::H2, Proto::H3] {
        let mut client = Client::new(&stack, proto).await;
        let late = code(client.send(call("hasty", "/grpc/hang", full("x"))).await).await;
        assert_eq!(late, (504, "deadline_exceeded".to_owned()), "{proto:?}");
        stack.agent.wait_for_abort("/grpc/hang").await;
        let given_up = client.send(call("hello", "/grpc/hang", full("x")));
        assert!(timeout(Duration::from_millis(300), given_up).await.is_err());
        stack.agent.wait_for_abort("/grpc/hang").await;
        let response = client.send(call("hello", "/grpc/unary", full("x"))).await;
        assert!(response.into_body().collect().await.unwrap().trailers().is_some(), "{proto:?}");
    }
}

#[tokio::test]
async fn a_function_may_say_what_its_server_speaks() {
    let policy = |app_protocol| InvocationPolicy { app_protocol, ..InvocationPolicy::default() };
    let stack = Stack::set_up(|setup| {
        setup.policies.insert("two", policy(AppProtocol::H2c));
        setup.policies.insert("one", policy(AppProtocol::Http1));
    })
    .await;
    for proto in [Proto::Plain, Proto::H1, Proto::H2, Proto::H3] {
        let mut client = Client::new(&stack, proto).await;
        for (name, told) in [("two", Some("h2c")), ("one", None), ("hello", None)] {
            let body = seen(&mut client, post(&function(name), "/seen", full("b"))).await;
            let said = body["headers"]["x-wrenn-protocol"].as_str();
            assert_eq!((said, &body["body"]), (told, &"b".into()), "{proto:?} {name}");
            assert_eq!(body["version"] == "HTTP/2.0", told.is_some(), "{proto:?} {name}: {body}");
        }
    }
}

#[tokio::test]
async fn a_call_is_passed_over_an_agent_without_a_sandbox_with_its_body() {
    let full_up = FakeAgent::start(Mode::PoolEmpty).await;
    let good = FakeAgent::start(Mode::Serves).await;
    let stack = Stack::set_up(|setup| {
        setup.agents.insert("spread-out", vec![full_up.address, good.address]);
    })
    .await;
    for proto in [Proto::H2, Proto::H3] {
        let mut client = Client::new(&stack, proto).await;
        let response = client.send(call("spread-out", "/grpc/unary", full("request"))).await;
        assert_eq!(response.status(), 200, "{proto:?}");
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "7 bytes, te: trailers", "{proto:?}");
    }
}

#[tokio::test]
async fn a_guest_that_nobody_asks_again_is_not_told_of_an_expectation() {
    let good = FakeAgent::start(Mode::Serves).await;
    let stack = Stack::set_up(|setup| {
        setup.agents.insert("spread-out", vec![good.address, good.address]);
    })
    .await;
    for proto in [Proto::H2, Proto::H3] {
        let mut client = Client::new(&stack, proto).await;
        let body = seen(&mut client, call("spread-out", "/seen", full("b"))).await;
        assert_eq!(body["version"], "HTTP/2.0", "{proto:?}");
        assert!(body["headers"]["expect"].is_null(), "{proto:?}: {body}");
    }
}
