//! A request goes to another agent only if none can have seen a byte of it, and only so often.

use std::{net::SocketAddr, time::Duration};

use http::{HeaderValue, Request, Response};
use tokio::{
    net::TcpSocket,
    time::{Instant, sleep},
};

use crate::{
    by_hand::{ByHand, FINE, Step},
    client::{ALL, Client, Proto, code, empty, full, get, post, text},
    policies::record,
    stack::{Stack, function},
};

/// Retries that a function has from the start: ten seconds' worth of ten a second (edge-policy).
const BUDGET: usize = 100;

/// Addresses that refuse connections for as long as the socket lives.
fn refusing(count: usize) -> (TcpSocket, Vec<SocketAddr>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([0, 0, 0, 0], 0))).unwrap();
    let port = socket.local_addr().unwrap().port();
    let address = |number: usize| {
        let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
        SocketAddr::from(([127, 1, high, low], port))
    };
    (socket, (1..=count).map(address).collect())
}

async fn before(agents: &[SocketAddr]) -> Stack {
    Stack::set_up(|setup| {
        setup.agents.insert("asked", agents.to_vec());
    })
    .await
}

async fn send(client: &mut Client, method: &str) -> Response<edge_proxy::Body> {
    let host = function("asked");
    if method == "GET" {
        return client.send(get(&host, "/seen")).await;
    }
    if method == "DELETE" {
        let request = Request::delete("/seen").header("host", host).body(empty()).unwrap();
        return client.send(request).await;
    }
    let mut request = post(&host, "/seen", full("twelve bytes"));
    request.headers_mut().insert("content-length", HeaderValue::from_static("12"));
    client.send(request).await
}

#[tokio::test]
async fn an_agent_that_refuses_connections_is_passed_over_and_the_body_is_sent_once() {
    let (_socket, mut agents) = refusing(2);
    for proto in ALL {
        let good = ByHand::start(|_| &[Step::Read(12), FINE]).await;
        agents.push(good.address);
        let stack = before(&agents).await;
        let mut client = Client::new(&stack, proto).await;
        assert_eq!(text(send(&mut client, "POST").await).await, "fine", "{proto:?}");
        assert_eq!((good.requests(), good.bodies().as_str()), (1, "twelve bytes"), "{proto:?}");
        assert!(!good.heads()[0].contains("expect:"), "{proto:?}: nobody else could be asked");
        agents.pop();
    }
}

#[tokio::test]
async fn no_other_agent_is_asked_once_a_byte_was_sent() {
    for proto in ALL {
        for method in ["GET", "POST", "DELETE"] {
            let broken = ByHand::start(|_| &[Step::Close]).await;
            let good = ByHand::start(|_| &[FINE]).await;
            let stack = before(&[broken.address, good.address]).await;
            let mut client = Client::new(&stack, proto).await;
            let answer = code(send(&mut client, method).await).await;
            assert_eq!(answer, (502, "upstream_reset".to_owned()), "{proto:?} {method}");
            assert_eq!((broken.requests(), good.connections()), (1, 0), "{proto:?} {method}");
        }
    }
}

#[tokio::test]
async fn a_kept_connection_that_breaks_is_replaced_for_what_is_safe_to_repeat() {
    for proto in ALL {
        for (method, status, requests) in [("GET", 200, 3), ("POST", 502, 2), ("DELETE", 502, 2)] {
            let agent = ByHand::start(|number| match number {
                1 => &[Step::Close],
                _ => &[FINE],
            });
            let agent = agent.await;
            let stack = before(&[agent.address]).await;
            let mut client = Client::new(&stack, proto).await;
            text(send(&mut client, "GET").await).await;
            let answer = send(&mut client, method).await;
            assert_eq!(answer.status().as_u16(), status, "{proto:?} {method}");
            assert_eq!(agent.requests(), requests, "{proto:?} {method}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_not_used() {
    for proto in ALL {
        let agent = ByHand::start(|number| match number {
            0 => &[FINE, Step::Close],
            _ => &[Step::Read(12), FINE],
        });
        let agent = agent.await;
        let stack = before(&[agent.address]).await;
        let mut client = Client::new(&stack, proto).await;
        text(send(&mut client, "GET").await).await;
        agent.closed(1).await;
        assert_eq!(text(send(&mut client, "POST").await).await, "fine", "{proto:?}");
        assert_eq!((agent.connections(), agent.requests()), (2, 2), "{proto:?}");
        assert_eq!(agent.bodies(), "twelve bytes", "{proto:?}");
    }
}

#[tokio::test]
async fn without_a_budget_no_other_agent_is_asked() {
    let (_socket, addresses) = refusing(5 * BUDGET);
    let (few, many) = addresses.split_at(BUDGET / 2);
    let (many, rest) = many.split_at(4 * BUDGET);
    for proto in ALL {
        let good = ByHand::start(|_| &[FINE]).await;
        // All of them are one function in these tests, and so share a budget.
        let stack = Stack::set_up(|setup| {
            for (name, agents) in [("few", few), ("many", many), ("rest", &rest[..1])] {
                setup.agents.insert(name, [agents, &[good.address]].concat());
            }
        })
        .await;
        let mut client = Client::new(&stack, proto).await;
        let within = client.send(get(&function("few"), "/seen")).await;
        assert_eq!(within.status(), 200, "{proto:?}");
        text(within).await;
        let answer = code(client.send(get(&function("many"), "/seen")).await).await;
        assert_eq!(answer, (503, "agent_unavailable".to_owned()), "{proto:?}");
        assert_eq!(good.requests(), 1, "{proto:?}");
        let since = Instant::now();
        while client.send(get(&function("rest"), "/seen")).await.status() != 200 {
            assert!(since.elapsed() < Duration::from_secs(20), "{proto:?}: none for ever");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn the_last_agents_failure_takes_nothing_from_the_budget() {
    let (_socket, addresses) = refusing(2 * BUDGET);
    let (alone, few) = addresses.split_at(3 * BUDGET / 2);
    let good = ByHand::start(|_| &[FINE]).await;
    let names: Vec<&'static str> =
        (0..alone.len()).map(|number| &*format!("alone-{number}").leak()).collect();
    let stack = Stack::set_up(|setup| {
        for (name, agent) in names.iter().zip(alone) {
            setup.agents.insert(name, vec![*agent]);
        }
        setup.agents.insert("few", [few, &[good.address]].concat());
    })
    .await;
    let mut client = Client::new(&stack, Proto::H2).await;
    for name in names {
        assert_eq!(client.send(get(&function(name), "/seen")).await.status(), 503);
    }
    // As many as could be without one for each of those before.
    assert_eq!(client.send(get(&function("few"), "/seen")).await.status(), 200);
}

#[tokio::test]
async fn the_record_counts_what_was_tried_again() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        // One that serves; two without a sandbox; none that listens.
        for (name, retries) in [("hello", None), ("empty", Some(1)), ("down", None)] {
            let response = client.send(get(&function(name), "/seen")).await;
            let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
            text(response).await;
            let record = record(&stack, &id).await;
            assert_eq!(record["retries"].as_u64(), retries, "{proto:?} {name}: {record}");
        }
    }
}
