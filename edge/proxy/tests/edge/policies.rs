//! Requests find their function, and its limits hold: rates, places, sizes, versions.

use std::time::Duration;

use edge_proxy::Body;
use edge_telemetry::OtlpConfig;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::BodyExt as _;
use pool_model::{AsyncPolicy, InvocationPolicy, Rate};
use tokio::time::timeout;

use crate::{
    client::{ALL, Client, Proto, code, full, get, post, seen, text},
    stack::{Stack, function, sandbox},
};

fn with(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    let value = HeaderValue::from_str(value).unwrap();
    request.headers_mut().insert(HeaderName::from_static(name), value);
    request
}

async fn limited(policy: InvocationPolicy) -> Stack {
    Stack::set_up(|setup| {
        setup.policies.insert("limited", policy);
    })
    .await
}

#[tokio::test]
async fn targets_are_found_by_domain_field_and_path() {
    let stack = Stack::start().await;
    let function_target = "function/fn_0000000000000000000000007";
    let id = "0".repeat(24) + "1";
    let at = |port: u16| format!("sandbox/sb_{id}/{port}");
    let shared = "sandbox.wrenn.localhost";
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let e2b = with(get(shared, "/seen"), "e2b-sandbox-id", &id);
        let asked = [
            (get("shop.example.org", "/seen"), function_target.to_owned()),
            (get("wrenn.localhost", "/fn/hello/seen"), function_target.to_owned()),
            (get("wrenn.localhost", &format!("/sb/81-{id}/seen")), at(81)),
            (with(get(shared, "/seen"), "wrenn-target", "hello.fn"), function_target.to_owned()),
            (with(get(shared, "/seen"), "wrenn-target", &format!("82-{id}")), at(82)),
            (with(e2b, "e2b-sandbox-port", "83"), at(83)),
            (get(&sandbox(84), "/seen"), at(84)),
        ];
        for (request, target) in asked {
            let body = seen(&mut client, request).await;
            assert_eq!(body["headers"]["x-wrenn-target"], target, "{proto:?}");
            assert_eq!(body["uri"], "/seen", "{proto:?} {target}");
            assert!(body["headers"]["wrenn-target"].is_null());
        }
        let nobody = code(client.send(get(shared, "/seen")).await).await;
        assert_eq!(nobody, (404, "unknown_host".to_owned()), "{proto:?}");
    }
}

#[tokio::test]
async fn tags_name_versions_and_weights_split() {
    let stack = Stack::set_up(|setup| {
        setup.tags.insert("tagged", vec![("old", 1, 4), ("new", 1, 5), ("off", 0, 6)]);
    })
    .await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        for (tag, version) in [("old", 4), ("new", 5), ("off", 6)] {
            let response = client.send(get(&function(&format!("tagged--{tag}")), "/seen")).await;
            let said = format!("{version}; tag={tag}");
            assert_eq!(response.headers()["x-wrenn-version"], said.as_str(), "{proto:?}");
            text(response).await;
        }
        let mut chosen = std::collections::BTreeMap::<String, usize>::new();
        for _ in 0..64 {
            let response = client.send(get(&function("tagged"), "/seen")).await;
            let said = response.headers()["x-wrenn-version"].to_str().unwrap().to_owned();
            *chosen.entry(said).or_default() += 1;
            text(response).await;
        }
        // Each of both is left out of 64 once in 2^63 times.
        let names: Vec<_> = chosen.keys().map(String::as_str).collect();
        assert_eq!(names, ["4; tag=old", "5; tag=new"], "{proto:?}");
        let unknown = client.send(get(&function("tagged--nope"), "/seen")).await;
        assert_eq!(code(unknown).await, (404, "tag_not_found".to_owned()), "{proto:?}");
    }
}

#[tokio::test]
async fn more_than_the_rate_is_told_when_to_come_again() {
    for per_client in [false, true] {
        let rate = Some(Rate { per_second: 1, burst: 1 });
        let none = InvocationPolicy::default();
        let stack = limited(match per_client {
            true => InvocationPolicy { client_rate: rate, ..none },
            false => InvocationPolicy { rate, ..none },
        })
        .await;
        let mut client = Client::new(&stack, Proto::H2).await;
        let mut refused = 0;
        for _ in 0..20 {
            let response = client.send(get(&function("limited"), "/seen")).await;
            if response.status() == 200 {
                text(response).await;
                continue;
            }
            refused += 1;
            assert_eq!(response.headers()["retry-after"], "1");
            assert_eq!(code(response).await, (429, "rate_limited".to_owned()));
        }
        assert!(refused > 0, "twenty in a row are more than one per second");
        assert_eq!(client.send(get(&function("hello"), "/seen")).await.status(), 200);
    }
}

#[tokio::test]
async fn places_are_waited_for_by_as_many_as_may_wait() {
    let stack = limited(InvocationPolicy {
        concurrency_max: 1,
        queue_max: 1,
        queue_timeout_ms: 2000,
        ..InvocationPolicy::default()
    })
    .await;
    let asking = async |path: &'static str| {
        let mut client = Client::new(&stack, Proto::H2).await;
        code(client.send(get(&function("limited"), path)).await).await
    };
    let mut first = Client::new(&stack, Proto::H2).await;
    let held = first.send(get(&function("limited"), "/silent")).await;
    let waits = asking("/seen");
    let beyond = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        asking("/seen").await
    };
    let (waited, beyond) = tokio::join!(waits, beyond);
    assert_eq!(waited, (503, "queue_timeout".to_owned()));
    assert_eq!(beyond, (429, "queue_full".to_owned()));
    drop(held);
    stack.agent.wait_for_abort("/silent").await;
    let next = first.send(get(&function("limited"), "/seen"));
    assert_eq!(timeout(Duration::from_secs(5), next).await.unwrap().status(), 200);
}

#[tokio::test]
async fn bodies_beyond_the_limit_are_refused_with_and_without_a_length() {
    let stack = limited(InvocationPolicy {
        request_bytes_max: 1000,
        response_bytes_max: 5000,
        ..InvocationPolicy::default()
    })
    .await;
    let too_large = (413, "payload_too_large".to_owned());
    let host = function("limited");
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let fits = client.send(post(&host, "/count", full(vec![0; 1000]))).await;
        assert_eq!(text(fits).await, "1000", "{proto:?}");
        let said = client.send(post(&host, "/count", full(vec![0; 1001]))).await;
        assert_eq!(code(said).await, too_large, "{proto:?}");
        let mut client = Client::new(&stack, proto).await;
        let unsaid = crate::client::unsized_body(vec![0; 1001]);
        let unsaid = client.send(post(&host, "/count", unsaid)).await;
        assert_eq!(code(unsaid).await, too_large, "{proto:?}");
        let mut client = Client::new(&stack, proto).await;
        let answer = client.send(get(&host, "/long?5000")).await;
        assert_eq!(text(answer).await.len(), 5000, "{proto:?}");
    }
}

#[tokio::test]
async fn answers_beyond_the_limit_are_refused_or_broken_off() {
    let policy = InvocationPolicy { response_bytes_max: 70_000, ..InvocationPolicy::default() };
    let stack = limited(policy).await;
    let host = function("limited");
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let said = client.send(get(&host, "/sized?70001")).await;
        assert_eq!(code(said).await, (502, "response_too_large".to_owned()), "{proto:?}");
        let fits = client.send(get(&host, "/sized?70000")).await;
        assert_eq!(text(fits).await.len(), 70_000, "{proto:?}");
        // Nobody can know before: the head may have come, an end does not.
        for length in [70_001, 1_000_000] {
            let mut client = Client::new(&stack, proto).await;
            if let Ok(unsaid) = client.try_send(get(&host, &format!("/long?{length}"))).await {
                assert_eq!(unsaid.status(), 200, "{proto:?}");
                assert!(unsaid.into_body().collect().await.is_err(), "{proto:?} {length}");
            }
        }
    }
}

#[tokio::test]
async fn an_invocation_nobody_waits_for_is_taken() {
    let asynchronous = AsyncPolicy { enabled: true, ..AsyncPolicy::default() };
    let stack = limited(InvocationPolicy { asynchronous, ..InvocationPolicy::default() }).await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let asked = |name, body: &'static str| {
            with(post(&function(name), "/seen", full(body)), "prefer", "respond-async")
        };
        let response = client.send(asked("limited", "later")).await;
        assert_eq!(response.status(), 202, "{proto:?}");
        assert_eq!(response.headers()["preference-applied"], "respond-async");
        let url = "https://api.wrenn.localhost/v1/invocations/limited-5";
        assert_eq!(response.headers()["location"], url);
        assert!(text(response).await.contains("\"id\":\"limited-5\""));
        let full = client.send(asked("limited", "full")).await;
        assert_eq!(code(full).await, (429, "queue_full".to_owned()), "{proto:?}");
        assert_eq!(seen(&mut client, asked("hello", "now")).await["body"], "now", "{proto:?}");
    }
}

#[tokio::test]
async fn browsers_are_shown_pages() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        for (name, path) in [("missing", "/"), ("hello", "/port-closed")] {
            let asked = with(get(&function(name), path), "accept", "text/html,*/*;q=0.8");
            let response = client.send(asked).await;
            assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
            assert_eq!(response.headers()["cache-control"], "no-store");
            assert!(text(response).await.starts_with("<!doctype html>"), "{proto:?} {name}");
        }
    }
}

#[tokio::test]
async fn api_requests_take_large_uploads() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let body = full(vec![0; 8 << 20]);
        let answer = client.send(post("api.wrenn.localhost", "/v1/files", body)).await;
        assert_eq!(text(answer).await, format!("api /v1/files got {}", 8 << 20), "{proto:?}");
    }
}

#[tokio::test]
async fn each_request_leaves_a_record_whether_it_ended_or_not() {
    let stack = Stack::set_up(|setup| {
        let endpoint = "http://127.0.0.1:9/v1/traces".to_owned(); // nobody has to take them
        let otlp = OtlpConfig { endpoint, ratio: 1.0, service: "test".to_owned() };
        setup.telemetry.otlp = Some(otlp);
    })
    .await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let asked = post(&function("hello"), "/echo?secret", full("12345"));
        let response = client.send(asked).await;
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!(text(response).await, "12345");
        let record = record(&stack, &id).await;
        let name = match proto {
            Proto::Plain | Proto::H1 => "h1",
            Proto::H2 => "h2",
            Proto::H3 => "h3",
        };
        let expected = serde_json::json!({
            "protocol": name, "tls": proto != Proto::Plain, "method": "POST", "path": "/echo",
            "status": 200, "outcome": "complete", "route": "function", "function": "hello",
            "bytes_in": 5, "bytes_out": 5, "sandbox": crate::agent::SANDBOX, "lease_ms": 0.1,
            "restore_ms": 2.5, "upstream_ms": 7.0, "version": 1, "host": function("hello"),
        });
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&record[field], value, "{proto:?} {field}: {record}");
        }
        let parent = format!("00-{trace}-00f067aa0ba902b7-01");
        let asked = with(get(&function("hello"), "/seen"), "traceparent", &parent);
        let told = seen(&mut client, asked).await["headers"]["traceparent"].clone();
        let told = told.as_str().unwrap();
        assert!(told.starts_with(&format!("00-{trace}-")) && told != parent, "{proto:?}: {told}");
        let response = client.send(get(&function("hello"), "/silent")).await;
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let mut body = response.into_body();
        assert!(http_body_util::BodyExt::frame(&mut body).await.unwrap().is_ok());
        drop((body, client));
        let record = self::record(&stack, &id).await;
        assert_eq!((&record["outcome"], &record["bytes_out"]), (&"aborted".into(), &4.into()));
    }
}

/// A request's record, once it has one.
pub(crate) async fn record(stack: &Stack, id: &str) -> serde_json::Value {
    for _ in 0..200 {
        if let Some(found) = stack.telemetry.find(id.parse().unwrap(), None) {
            return serde_json::from_str(&found).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{id} left no record");
}
