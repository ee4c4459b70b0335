//! Everything that can go wrong has its own answer, in time, and hits only its own stream.

use std::time::{Duration, Instant};

use bytes::Bytes;
use edge_proxy::BoxError;
use http_body_util::{BodyExt, channel::Channel};
use tokio::time::timeout;

use crate::{
    client::{ALL, Client, ENCRYPTED, Proto, code, full, get, post, text},
    raw,
    stack::{Stack, function},
};

#[tokio::test]
async fn each_bad_host_has_its_code_over_each_protocol() {
    let stack = Stack::start().await;
    let id = "0".repeat(25);
    let table = [
        ("nope.example.org".to_owned(), 404, "unknown_host"),
        ("other.wrenn.localhost".to_owned(), 404, "unknown_host"),
        (format!("0-{id}.wrenn.localhost"), 400, "bad_port"),
        (format!("65536-{id}.wrenn.localhost"), 400, "bad_port"),
        (format!("http-{id}.wrenn.localhost"), 400, "bad_port"),
        (format!("{}.fn.wrenn.localhost", "a".repeat(64)), 400, "label_too_long"),
        ("a..wrenn.localhost".to_owned(), 400, "bad_host"),
        ("-a.fn.wrenn.localhost".to_owned(), 400, "bad_host"),
        (function("missing"), 404, "function_not_found"),
        (format!("80-{id}.wrenn.localhost"), 404, "sandbox_not_found"),
        (function("down"), 503, "agent_unavailable"),
        (function("nowhere"), 503, "agent_unavailable"),
        (function("unavailable"), 503, "agent_unavailable"),
        (function("empty"), 503, "no_capacity"),
    ];
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        for (host, status, expected) in &table {
            let response = client.send(get(host, "/seen")).await;
            assert_eq!(response.headers()["content-type"], "application/json");
            assert_eq!(response.headers().contains_key("retry-after"), *status == 503);
            assert_eq!(code(response).await, (*status, (*expected).to_owned()), "{proto:?} {host}");
        }
    }
}

#[tokio::test]
async fn heads_that_two_parsers_could_read_differently_are_refused() {
    let stack = Stack::start().await;
    let host = format!("Host: {}\r\n", function("hello"));
    let table = [
        "GET /seen HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET /seen HTTP/1.1\r\n{host}{host}\r\n"),
        format!(
            "POST /seen HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        format!("POST /seen HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    ];
    for request in table {
        let answer = raw::exchange(stack.http, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?} was answered {answer:?}");
    }
}

#[tokio::test]
async fn chunked_together_with_a_length_is_refused_in_both_orders() {
    let stack = Stack::start().await;
    let host = function("hello");
    let both = ["Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n"];
    for [first, second] in [both, [both[1], both[0]]] {
        let head = format!("POST /seen HTTP/1.1\r\nHost: {host}\r\n{first}{second}\r\n");
        let answer = raw::exchange(stack.http, format!("{head}0\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

#[tokio::test]
async fn an_absolute_target_counts_instead_of_host_and_connect_is_not_served() {
    let stack = Stack::start().await;
    let host = format!("Host: {}\r\n", function("hello"));
    let absolute = format!("GET http://api.wrenn.localhost/ HTTP/1.1\r\n{host}\r\n");
    let answer = raw::exchange(stack.http, absolute.as_bytes()).await;
    assert!(answer.ends_with("api /"), "RFC 9112 3.2.2: {answer}");
    let connect = format!("CONNECT {}:80 HTTP/1.1\r\n{host}\r\n", function("hello"));
    let answer = raw::exchange(stack.http, connect.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 501 "), "{answer}");
}

#[tokio::test]
async fn full_agent_is_passed_over_even_with_a_body() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let request = post(&function("spread"), "/echo", full("carried over"));
        let response = client.send(request).await;
        assert_eq!(response.status(), 200, "{proto:?}");
        assert_eq!(text(response).await, "carried over", "{proto:?}");
        let response = client.send(get(&function("spread"), "/seen")).await;
        assert_eq!(response.status(), 200, "{proto:?}");
    }
}

#[tokio::test]
async fn agents_own_errors_pass_through() {
    let stack = Stack::start().await;
    let mut client = Client::new(&stack, Proto::H2).await;
    let response = client.send(get(&function("hello"), "/port-closed")).await;
    assert_eq!(response.status(), 502);
    assert_eq!(response.headers()["x-wrenn-error"], "port_closed");
    assert!(text(response).await.contains("by the agent"));
}

#[tokio::test]
async fn late_answer_and_late_route_are_deadlines() {
    let stack = Stack::with(|limits| limits.route_timeout = Duration::from_millis(200)).await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        for (name, path) in [("hasty", "/hang"), ("stuck", "/seen")] {
            let started = Instant::now();
            let answer = code(client.send(get(&function(name), path)).await).await;
            assert_eq!(answer, (504, "deadline_exceeded".to_owned()), "{proto:?} {name}");
            assert!(started.elapsed() < Duration::from_secs(3));
        }
        stack.agent.wait_for_abort("/hang").await;
    }
}

#[tokio::test]
async fn agent_dying_mid_body_resets_only_that_stream() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let mut body = client.send(get(&function("hello"), "/die")).await.into_body();
        let reading = async {
            while let Some(frame) = body.frame().await {
                if frame.is_err() {
                    return true;
                }
            }
            false
        };
        let broke = timeout(Duration::from_secs(5), reading).await.expect("no hang");
        assert!(broke, "{proto:?}: a cut answer looked complete");
        if matches!(proto, Proto::H2 | Proto::H3) {
            let next = client.send(get(&function("hello"), "/seen")).await;
            assert_eq!(next.status(), 200, "{proto:?}: the connection goes on");
        }
    }
}

#[tokio::test]
async fn silent_answer_is_cut_after_the_idle_limit() {
    let stack = Stack::with(|limits| limits.body_idle_timeout = Duration::from_millis(300)).await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let response = client.send(get(&function("hello"), "/silent")).await;
        let ended = timeout(Duration::from_secs(5), response.into_body().collect()).await;
        assert!(ended.expect("no hang").is_err(), "{proto:?}");
        stack.agent.wait_for_abort("/silent").await;
    }
}

#[tokio::test]
async fn client_that_leaves_before_the_answer_is_seen_by_the_agent() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let hang = client.send(get(&function("hello"), "/hang"));
        assert!(timeout(Duration::from_millis(300), hang).await.is_err());
        if proto == Proto::Plain || proto == Proto::H1 {
            drop(client); // an HTTP/1.1 request is given up by closing its connection
        }
        stack.agent.wait_for_abort("/hang").await;
    }
}

#[tokio::test]
async fn client_that_leaves_mid_answer_is_seen_by_the_agent() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let mut body = client.send(get(&function("hello"), "/silent")).await.into_body();
        assert!(body.frame().await.unwrap().is_ok());
        drop(body);
        if proto == Proto::Plain || proto == Proto::H1 {
            drop(client);
        }
        stack.agent.wait_for_abort("/silent").await;
    }
}

#[tokio::test]
async fn client_that_leaves_mid_upload_is_seen_by_the_agent() {
    let stack = Stack::start().await;
    for proto in ENCRYPTED {
        let mut client = Client::new(&stack, proto).await;
        let (mut sender, body) = Channel::<Bytes, BoxError>::new(4);
        sender.send_data(Bytes::from_static(b"part")).await.unwrap();
        let request = post(&function("hello"), "/echo", body.boxed_unsync());
        let mut answer = client.send(request).await.into_body();
        assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "part");
        sender.abort("the client gave up".into());
        drop(answer);
        drop(client);
        stack.agent.wait_for_abort("/echo").await;
    }
}

#[tokio::test]
async fn stale_pooled_connections_are_replaced_unnoticed() {
    let stack = Stack::start().await;
    let mut client = Client::new(&stack, Proto::H2).await;
    for _ in 0..3 {
        assert_eq!(client.send(get(&function("hello"), "/seen")).await.status(), 200);
        // The agent resets this connection, the next one comes from the pool or is new.
        let body = client.send(get(&function("hello"), "/die")).await.into_body();
        assert!(body.collect().await.is_err());
    }
    assert_eq!(client.send(get(&function("hello"), "/seen")).await.status(), 200);
}
