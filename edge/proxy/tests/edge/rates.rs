//! Connections per address, and requests per second of a team, a sandbox, a client: whoever has too
//! many is told so, and nobody else.

use std::{net::Ipv4Addr, time::Duration};

use edge_proxy::Body;
use http::Request;
use pool_model::{InvocationPolicy, Rate};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep, timeout},
};

use crate::{
    client::{ALL, Client, Proto, code, get, quic_from, tcp_from, text},
    stack::{Stack, function, sandbox},
};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Requests in a row, far more than one per second.
const MANY: usize = 20;

/// Whether the edge takes one more connection from here.
async fn has_place(stack: &Stack, proto: Proto) -> bool {
    let address = match proto {
        Proto::Plain => stack.http,
        Proto::H1 | Proto::H2 => stack.https,
        Proto::H3 => {
            let (_endpoint, connection) = quic_from(stack, HERE).await;
            return connection.is_ok();
        }
    };
    let mut stream = tcp_from(HERE, address).await;
    // Neither is a request, nor a handshake: whoever was let in is told so.
    let _ = stream.write_all(b"?\r\n\r\n").await;
    let read = timeout(Duration::from_secs(10), stream.read(&mut [0; 16])).await;
    matches!(read.expect("no hang"), Ok(1..))
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_others_have_theirs() {
    for proto in ALL {
        let stack = Stack::with(|limits| limits.max_connections_per_address = 2).await;
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut client = Client::new(&stack, proto).await;
            text(client.send(get(&function("hello"), "/seen")).await).await;
            held.push(client);
        }
        for other in ALL {
            assert!(!has_place(&stack, other).await, "{proto:?}, then {other:?}");
        }
        for other in ALL {
            let mut client = Client::from(&stack, other, ELSEWHERE).await;
            let answer = client.send(get(&function("hello"), "/seen")).await;
            assert_eq!(answer.status(), 200, "{proto:?}, then {other:?} from elsewhere");
        }
        for client in &mut held {
            let answer = client.send(get(&function("hello"), "/seen")).await;
            assert_eq!(text(answer).await.matches("GET").count(), 1, "{proto:?}: it goes on");
        }
        held.pop();
        let since = Instant::now();
        while !has_place(&stack, proto).await {
            assert!(since.elapsed() < Duration::from_secs(20), "{proto:?}: its place stays taken");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Sends many in a row; how many were refused, each with the code and the time to wait.
async fn refused(client: &mut Client, request: impl Fn() -> Request<Body>) -> usize {
    let mut refused = 0;
    for _ in 0..MANY {
        let response = client.send(request()).await;
        if response.status() == 200 {
            text(response).await;
            continue;
        }
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(code(response).await, (429, "rate_limited".to_owned()));
        refused += 1;
    }
    refused
}

#[tokio::test]
async fn a_teams_functions_and_sandboxes_share_its_rate_and_other_teams_have_theirs() {
    for proto in ALL {
        let stack = Stack::set_up(|setup| {
            setup.limits.team_requests_per_second = 1;
            setup.policies.insert("theirs", InvocationPolicy::default());
            setup.strangers.push("theirs");
        })
        .await;
        let mut client = Client::new(&stack, proto).await;
        let of_function = refused(&mut client, || get(&function("hello"), "/seen")).await;
        let of_sandbox = refused(&mut client, || get(&sandbox(80), "/seen")).await;
        assert!(of_function > 0 && of_sandbox > 0, "{proto:?}: {of_function}, {of_sandbox}");
        let theirs = client.send(get(&function("theirs"), "/seen")).await;
        assert_eq!(theirs.status(), 200, "{proto:?}");
        // Nor does it need the team's rate to be told that there is no such function.
        let missing = client.send(get(&function("missing"), "/seen")).await;
        assert_eq!(missing.status(), 404, "{proto:?}");
    }
}

#[tokio::test]
async fn a_functions_or_a_sandboxes_rate_is_its_own() {
    for proto in ALL {
        let rate = Some(Rate { per_second: 1, burst: 1 });
        let stack = Stack::set_up(|setup| {
            let policy = InvocationPolicy { rate, ..InvocationPolicy::default() };
            setup.policies.insert("limited", policy);
            setup.traffic.rate = rate;
        })
        .await;
        let mut client = Client::new(&stack, proto).await;
        for host in [function("limited"), sandbox(80)] {
            assert!(refused(&mut client, || get(&host, "/seen")).await > 0, "{proto:?} {host}");
        }
        assert_eq!(refused(&mut client, || get(&function("hello"), "/seen")).await, 0, "{proto:?}");
    }
}

#[tokio::test]
async fn a_clients_rate_is_not_another_addresss() {
    for proto in ALL {
        let client_rate = Some(Rate { per_second: 1, burst: 1 });
        let stack = Stack::set_up(|setup| {
            let policy = InvocationPolicy { client_rate, ..InvocationPolicy::default() };
            setup.policies.insert("limited", policy);
        })
        .await;
        let mut here = Client::new(&stack, proto).await;
        assert!(refused(&mut here, || get(&function("limited"), "/seen")).await > 0, "{proto:?}");
        let mut elsewhere = Client::from(&stack, proto, ELSEWHERE).await;
        let answer = elsewhere.send(get(&function("limited"), "/seen")).await;
        assert_eq!(answer.status(), 200, "{proto:?}");
        let mut again = Client::new(&stack, proto).await;
        let of_both = refused(&mut again, || get(&function("limited"), "/seen")).await;
        assert!(of_both > 0, "{proto:?}: another connection is the same client");
    }
}
