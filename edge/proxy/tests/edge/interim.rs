//! Answers before the answer: hints reach each client, and a body is asked for when it is wanted.

use std::net::SocketAddr;

use http::HeaderMap;
use pool_model::InvocationPolicy;

use crate::{
    agent::{FakeAgent, Mode},
    asking::Asking,
    by_hand::{ByHand, FINE, Step},
    client::ALL,
    stack::{Stack, function},
};

const BODY: &str = "twelve bytes";
const EXPECTS: &[(&str, &str)] = &[("expect", "100-continue")];

async fn before(agents: &[SocketAddr]) -> Stack {
    Stack::set_up(|setup| {
        setup.agents.insert("asked", agents.to_vec());
    })
    .await
}

fn hints(number: usize) -> &'static [Step] {
    const SCRIPT: &[Step] = &[
        Step::Say("HTTP/1.1 100 Continue\r\n\r\n"), // nobody asked for it
        Step::Say(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\
             Link: </b.js>; rel=preload\r\nAlt-Svc: h3=\":1\"\r\nConnection: keep-alive\r\n\r\n",
        ),
        Step::Wait,
        Step::Say("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </c>\r\n\r\n"),
        Step::Wait,
        FINE,
    ];
    assert_eq!(number, 0, "asked once");
    SCRIPT
}

fn links(fields: &HeaderMap) -> Vec<&str> {
    fields.get_all("link").iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn hints_of_a_guest_reach_the_client_before_the_answer_exists() {
    for proto in ALL {
        let agent = ByHand::start(hints).await;
        let stack = before(&[agent.address]).await;
        let mut asking = Asking::start(&stack, proto, &function("asked"), &[], 0).await;
        let (status, fields) = asking.next().await;
        assert_eq!(status, 103, "{proto:?}");
        assert_eq!(links(&fields), ["</a.css>; rel=preload", "</b.js>; rel=preload"], "{proto:?}");
        assert!(!fields.contains_key("alt-svc"), "{proto:?}: a guest cannot announce");
        assert!(!fields.contains_key("connection"), "{proto:?}");
        agent.go.notify_one();
        assert_eq!(asking.next().await.0, 102, "{proto:?}");
        let (status, fields) = asking.next().await;
        assert_eq!((status, links(&fields)), (103, vec!["</c>"]), "{proto:?}");
        agent.go.notify_one();
        let (status, fields) = asking.next().await;
        assert_eq!((status, links(&fields)), (200, vec![]), "{proto:?}");
        assert_eq!(asking.text().await, "fine", "{proto:?}");
    }
}

#[tokio::test]
async fn a_body_is_asked_for_once_it_is_wanted_and_only_then_sent() {
    for proto in ALL {
        let agent = ByHand::start(|_| &[Step::Read(12), FINE]).await;
        let stack = before(&[agent.address]).await;
        let mut asking = Asking::start(&stack, proto, &function("asked"), EXPECTS, 12).await;
        let (status, fields) = asking.next().await;
        assert_eq!((status, fields.len()), (100, 0), "{proto:?}");
        asking.send(BODY).await;
        assert_eq!(asking.next().await.0, 200, "{proto:?}: one 100 is enough");
        assert_eq!(asking.text().await, "fine", "{proto:?}");
        assert_eq!(agent.bodies(), BODY, "{proto:?}");
    }
}

/// As an agent that has to find a sandbox first.
fn asks_later(_: usize) -> &'static [Step] {
    &[Step::Wait, Step::Say("HTTP/1.1 100 Continue\r\n\r\n"), Step::Read(12), FINE]
}

#[tokio::test]
async fn with_several_agents_a_body_is_asked_for_when_the_first_has_a_sandbox() {
    for proto in ALL {
        let agent = ByHand::start(asks_later).await;
        let stack = before(&[agent.address, agent.address]).await;
        let mut asking = Asking::start(&stack, proto, &function("asked"), EXPECTS, 12).await;
        agent.asked(1).await;
        assert!(agent.heads()[0].contains("expect: 100-continue\r\n"), "{proto:?}");
        asking.hears_nothing().await;
        agent.go.notify_one();
        assert_eq!(asking.next().await.0, 100, "{proto:?}");
        asking.send(BODY).await;
        assert_eq!(asking.next().await.0, 200, "{proto:?}");
        assert_eq!((agent.requests(), agent.bodies().as_str()), (1, BODY), "{proto:?}");
    }
}

#[tokio::test]
async fn a_body_passed_to_the_next_agent_is_asked_for_once() {
    let full = FakeAgent::start(Mode::PoolEmpty).await;
    for proto in ALL {
        let agent = ByHand::start(|_| &[Step::Read(12), FINE]).await;
        let stack = before(&[full.address, agent.address]).await;
        let mut asking = Asking::start(&stack, proto, &function("asked"), EXPECTS, 12).await;
        assert_eq!(asking.next().await.0, 100, "{proto:?}");
        asking.send(BODY).await;
        assert_eq!(asking.next().await.0, 200, "{proto:?}");
        assert_eq!(agent.bodies(), BODY, "{proto:?}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_wait_to_be_asked_is_served() {
    for proto in ALL {
        let agent = ByHand::start(|_| &[Step::Read(12), FINE]).await;
        let stack = before(&[agent.address]).await;
        let mut asking = Asking::start(&stack, proto, &function("asked"), EXPECTS, 12).await;
        asking.send(BODY).await;
        let mut status = asking.next().await.0;
        if status == 100 {
            status = asking.next().await.0;
        }
        assert_eq!((status, agent.bodies().as_str()), (200, BODY), "{proto:?}");
        assert_eq!(asking.text().await, "fine", "{proto:?}");
    }
}

#[tokio::test]
async fn a_refused_body_is_not_asked_for() {
    let agent = ByHand::start(|_| &[FINE]).await;
    let stack = Stack::set_up(|setup| {
        let small = InvocationPolicy { request_bytes_max: 11, ..InvocationPolicy::default() };
        setup.policies.insert("small", small);
    })
    .await;
    let other: &[_] = &[("expect", "101-other")];
    for proto in ALL {
        let table = [
            (function("missing"), EXPECTS, 404, "function_not_found"),
            (function("small"), EXPECTS, 413, "payload_too_large"),
            (function("nowhere"), EXPECTS, 503, "agent_unavailable"),
            (function("small"), other, 417, "expectation_failed"),
        ];
        for (host, fields, expected, code) in table {
            let mut asking = Asking::start(&stack, proto, &host, fields, 12).await;
            let (status, _) = asking.next().await;
            assert_eq!(status, expected, "{proto:?} {code}");
            assert!(asking.text().await.contains(code), "{proto:?} {code}");
        }
    }
    assert_eq!(agent.bodies(), "");
}
