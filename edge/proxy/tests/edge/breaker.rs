//! An agent that fails again and again is left alone, tried by one request, and taken back.

use std::{
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use http::Response;
use tokio::{net::TcpSocket, task::JoinHandle, time::sleep};

use crate::{
    agent::{FakeAgent, Mode},
    by_hand::{ByHand, FINE, Step},
    client::{ALL, Client, Proto, code, empty, get, post, text},
    stack::{Stack, function},
};

/// Longest until an open breaker lets a request try, on a machine however slow.
const PATIENCE: Duration = Duration::from_secs(30);
/// Failures in a row that open a breaker (edge-policy).
const FAILURES: usize = 5;

/// Takes an address that refuses connections until it is listened on.
fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

async fn before(agents: &[SocketAddr]) -> Stack {
    Stack::set_up(|setup| {
        setup.agents.insert("flaky", agents.to_vec());
    })
    .await
}

async fn ask(client: &mut Client) -> Response<edge_proxy::Body> {
    client.send(get(&function("flaky"), "/seen")).await
}

/// Asks until the breaker is open; what came before that.
async fn open(client: &mut Client) -> Vec<(u16, String)> {
    let mut answers = Vec::new();
    for _ in 0..4 * FAILURES {
        let response = ask(client).await;
        let retry_after = response.headers().get("retry-after").cloned();
        let answer = code(response).await;
        if answer == (503, "circuit_open".to_owned()) {
            let seconds: u64 = retry_after.unwrap().to_str().unwrap().parse().unwrap();
            assert!((1..=30).contains(&seconds), "{seconds}");
            return answers;
        }
        answers.push(answer);
    }
    panic!("the breaker stayed closed: {answers:?}");
}

#[tokio::test]
async fn an_agent_that_refuses_is_left_alone_until_it_is_there_again() {
    let (socket, address) = refusing();
    let stack = before(&[address]).await;
    let mut clients = Vec::new();
    for proto in ALL {
        clients.push(Client::new(&stack, proto).await);
    }
    let refused = open(&mut clients[3]).await;
    assert!(refused.len() >= FAILURES, "{refused:?}");
    assert!(refused.iter().all(|answer| *answer == (503, "agent_unavailable".to_owned())));
    let agent = FakeAgent::on(socket.listen(64).unwrap(), Mode::Serves);
    let since = Instant::now();
    for turn in 0.. {
        assert!(since.elapsed() < PATIENCE, "it is never tried again");
        let response = ask(&mut clients[turn % ALL.len()]).await;
        let connections = agent.connections.load(Ordering::SeqCst);
        if response.status() == 200 {
            assert_eq!(connections, 1, "one request tried it");
            text(response).await;
            break;
        }
        assert_eq!(code(response).await, (503, "circuit_open".to_owned()));
        assert_eq!(connections, 0, "an open breaker lets nobody connect");
        sleep(Duration::from_millis(10)).await;
    }
    for client in &mut clients {
        assert_eq!(text(ask(client).await).await.matches("\"GET\"").count(), 1, "it is closed");
    }
}

#[tokio::test]
async fn others_are_asked_in_place_of_an_agent_whose_breaker_is_open() {
    let (socket, address) = refusing();
    let good = FakeAgent::start(Mode::Serves).await;
    let stack = before(&[address, good.address]).await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        for _ in 0..2 * FAILURES {
            assert_eq!(ask(&mut client).await.status(), 200, "{proto:?}");
        }
        // Its guest's errors are not the agent's: that one is still asked.
        for _ in 0..2 * FAILURES {
            let answer = client.send(get(&function("flaky"), "/port-closed")).await;
            assert_eq!(answer.status(), 502, "{proto:?}");
        }
    }
    drop(socket);
}

#[tokio::test]
async fn an_open_breaker_has_nobody_connect_and_a_failed_try_opens_it_again() {
    let agent = ByHand::start(|_| &[Step::Close]).await;
    let stack = before(&[agent.address]).await;
    let mut client = Client::new(&stack, Proto::H2).await;
    let broken = open(&mut client).await;
    assert!(broken.iter().all(|answer| *answer == (502, "upstream_reset".to_owned())));
    assert_eq!(agent.connections(), broken.len());
    let since = Instant::now();
    loop {
        assert!(since.elapsed() < PATIENCE, "it is never tried again");
        let before = agent.connections();
        match code(ask(&mut client).await).await {
            (503, code) if code == "circuit_open" => assert_eq!(agent.connections(), before),
            (502, code) if code == "upstream_reset" => {
                assert_eq!(agent.connections(), before + 1);
                break;
            }
            other => panic!("{other:?}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
    let again = open(&mut client).await;
    assert!(again.len() < FAILURES, "one failure is enough now: {again:?}");
    assert_eq!(client.send(get(&function("hello"), "/seen")).await.status(), 200);
}

#[tokio::test]
async fn failures_that_are_not_in_a_row_leave_a_breaker_closed() {
    let agent = ByHand::start(|number| match number % FAILURES {
        4 => &[FINE],
        _ => &[Step::Close],
    });
    let agent = agent.await;
    let stack = before(&[agent.address]).await;
    let mut client = Client::new(&stack, Proto::H2).await;
    for number in 0..3 * FAILURES {
        let expected = if number % FAILURES == 4 { 200 } else { 502 };
        // What is not safe to repeat comes to the agent once.
        let answer = client.send(post(&function("flaky"), "/seen", empty())).await;
        assert_eq!(answer.status().as_u16(), expected, "request {number}");
        text(answer).await;
    }
    assert_eq!(agent.requests(), 3 * FAILURES);
}

/// An agent that breaks connections until its breaker opens, then makes requests wait.
fn fails_then_waits(number: usize) -> &'static [Step] {
    if number < FAILURES { &[Step::Close] } else { &[Step::Wait, FINE] }
}

/// Waits until a request is at the agent that decides whether others may be.
async fn trying(stack: &Stack, agent: &ByHand, proto: Proto) -> JoinHandle<(u16, Client)> {
    let since = Instant::now();
    loop {
        assert!(since.elapsed() < PATIENCE, "it is never tried again");
        let before = agent.requests();
        let mut client = Client::new(stack, proto).await;
        let mut asking = tokio::spawn(async move {
            let status = ask(&mut client).await.status().as_u16();
            (status, client)
        });
        tokio::select! {
            answered = &mut asking => assert_eq!(answered.unwrap().0, 503),
            () = agent.asked(before + 1) => return asking,
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_half_open_breaker_lets_one_request_through() {
    let agent = ByHand::start(fails_then_waits).await;
    let stack = before(&[agent.address]).await;
    for _ in 0..FAILURES {
        let mut client = Client::new(&stack, Proto::Plain).await;
        assert_eq!(code(ask(&mut client).await).await, (502, "upstream_reset".to_owned()));
    }
    let asking = trying(&stack, &agent, Proto::H2).await;
    for proto in ALL {
        let mut other = Client::new(&stack, proto).await;
        let answer = code(ask(&mut other).await).await;
        assert_eq!(answer, (503, "circuit_open".to_owned()), "{proto:?}");
    }
    assert_eq!(agent.requests(), FAILURES + 1);
    agent.go.notify_one();
    assert_eq!(asking.await.unwrap().0, 200);
    agent.go.notify_one();
    let mut other = Client::new(&stack, Proto::H3).await;
    assert_eq!(text(ask(&mut other).await).await, "fine");
}

#[tokio::test]
async fn a_client_that_leaves_while_it_tries_an_agent_lets_the_next_one_try() {
    for proto in ALL {
        let agent = ByHand::start(fails_then_waits).await;
        let stack = before(&[agent.address]).await;
        for _ in 0..FAILURES {
            let mut client = Client::new(&stack, Proto::Plain).await;
            assert_eq!(code(ask(&mut client).await).await, (502, "upstream_reset".to_owned()));
        }
        trying(&stack, &agent, proto).await.abort();
        let begin = Instant::now();
        let asking = trying(&stack, &agent, proto).await;
        assert!(begin.elapsed() < Duration::from_secs(15), "{proto:?}: {:?}", begin.elapsed());
        agent.go.notify_waiters();
        agent.go.notify_one();
        assert_eq!(asking.await.unwrap().0, 200, "{proto:?}");
    }
}
