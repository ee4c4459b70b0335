//! Answers before the answer: `100` for a client that waits, and what a service sends itself.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::time::Duration;

use edge_http1::server::InterimError;
use http::{Response, StatusCode};
use tokio::sync::mpsc;

use crate::support::{Server, empty, full, ok, report, through};

const ASKING: &str =
    "POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";

#[tokio::test]
async fn a_client_that_waits_is_asked_for_its_body_once_it_is_wanted() {
    let server = Server::start(report).await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.send(ASKING).await;
        assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("hello").await;
        assert_eq!(client.answer().await.text(), "POST / [hello]");
    }
}

#[tokio::test]
async fn a_client_whose_body_is_not_wanted_is_not_asked() {
    let server = Server::start(|_| {
        Box::pin(async {
            let mut response = ok(empty());
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            response
        })
    })
    .await;
    let mut client = server.connect().await;
    client.send(ASKING).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (413, Some("close")));
    assert_eq!(client.rest().await, b"", "whether the body comes can't be known");
}

#[tokio::test]
async fn a_client_that_did_not_ask_is_not_told_to_continue() {
    let server = Server::start(report).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\n").await;
    assert!(client.is_silent().await);
    client.send("hello").await;
    assert_eq!(client.answer().await.status, 200);
    let old = ASKING.replace("HTTP/1.1", "HTTP/1.0");
    let mut client = server.connect().await;
    client.send(&old).await;
    assert!(client.is_silent().await, "HTTP/1.0 knows no 100");
    client.send("hello").await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn no_100_stands_in_the_middle_of_an_answer() {
    // The answer begins, and only then its body asks for the request's.
    let server =
        Server::start(|request| Box::pin(async move { ok(through(request.into_body())) })).await;
    let mut client = server.connect().await;
    client.send(ASKING).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(client.is_silent().await, "{:?}", client.buf);
    client.send("hello").await;
    assert_eq!(client.exactly(5).await, b"hello");
    assert_eq!(client.rest().await, b"");
}

fn early_hints() -> Response<()> {
    let hints = Response::builder().status(103).header("link", "</a.css>");
    hints.header("content-length", "5").header("connection", "close").body(()).unwrap()
}

#[tokio::test]
async fn interim_answers_go_out_at_once_and_in_order() {
    let server = Server::start(|request| {
        Box::pin(async move {
            let interim = request.body().interim();
            interim.send(early_hints()).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            interim.send(Response::builder().status(102).body(()).unwrap()).unwrap();
            interim.send(early_hints()).unwrap();
            ok(full("done"))
        })
    })
    .await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let hints = client.head().await;
        assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
        assert_eq!(client.head().await, "HTTP/1.1 102 Processing\r\n\r\n");
        assert_eq!(client.head().await, hints);
        assert_eq!(client.answer().await.text(), "done");
    }
}

#[tokio::test]
async fn interim_answers_that_cannot_be_sent_are_given_back() {
    let (sender, mut receiver) = mpsc::channel(4);
    let server = Server::start(move |request| {
        let sender = sender.clone();
        Box::pin(async move {
            let interim = request.body().interim();
            if request.uri().path() == "/final" {
                let switching = Response::builder().status(101).body(()).unwrap();
                assert_eq!(interim.send(switching), Err(InterimError::Status));
                assert_eq!(interim.send(Response::new(())), Err(InterimError::Status));
            }
            if request.uri().path() == "/many" {
                for _ in 0..16 {
                    interim.send(early_hints()).unwrap();
                }
                assert_eq!(interim.send(early_hints()), Err(InterimError::Full));
            }
            sender.send(interim).await.unwrap();
            ok(empty())
        })
    })
    .await;
    let mut client = server.connect().await;
    assert_eq!(client.get("/final").await.status, 200);
    let first = receiver.recv().await.unwrap();
    assert_eq!(first.send(early_hints()), Err(InterimError::Closed), "too late");
    client.send("GET /many HTTP/1.1\r\nhost: h\r\n\r\n").await;
    for _ in 0..16 {
        assert!(client.head().await.starts_with("HTTP/1.1 103 "));
    }
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(first.send(early_hints()), Err(InterimError::Closed), "of an earlier request");
    drop(receiver.recv().await);
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    let old = receiver.recv().await.unwrap();
    assert_eq!(old.send(early_hints()), Err(InterimError::Closed));
}

#[tokio::test]
async fn an_interim_status_is_no_final_answer() {
    let server = Server::start(|request| {
        Box::pin(async move {
            let mut response = ok(empty());
            *response.status_mut() = request.uri().path()[1..].parse().unwrap();
            response
        })
    })
    .await;
    for status in ["100", "101", "103"] {
        let mut client = server.connect().await;
        client.send(format!("GET /{status} HTTP/1.1\r\nhost: h\r\n\r\n")).await;
        assert_eq!(client.rest().await, b"", "{status}");
    }
}
