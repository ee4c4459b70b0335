//! What goes wrong on purpose does, and so does what is asked for wrongly.

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    client::{ALL, Client, PATIENCE, get},
    start,
};

#[tokio::test]
async fn statuses_are_those_asked_for() {
    let server = start().await;
    for proto in ALL {
        let mut client = Client::new(&server, proto).await;
        for (code, body) in
            [(503, "503 Service Unavailable\n"), (204, ""), (304, ""), (200, "200 OK\n")]
        {
            let answer = client.get(&format!("/status?code={code}")).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (code, body), "{proto:?}");
        }
    }
}

#[tokio::test]
async fn every_so_manyth_is_an_error() {
    let server = start().await;
    for proto in ALL {
        let mut client = Client::new(&server, proto).await;
        let mut statuses = Vec::new();
        for _ in 0..6 {
            statuses.push(client.get("/error?every=3").await.status.as_u16());
        }
        assert_eq!(statuses, [200, 200, 500, 200, 200, 500], "{proto:?}");
    }
}

#[tokio::test]
async fn every_so_manyth_is_reset_and_only_that() {
    let server = start().await;
    for proto in ALL {
        let mut client = Client::new(&server, proto).await;
        assert_eq!(client.get("/reset?every=2").await.status, StatusCode::OK, "{proto:?}");
        let reset = client.try_send(get("/reset?every=2")).await;
        assert!(reset.is_err(), "{proto:?}: {reset:?}");
        let after = client.try_send(get("/")).await;
        // Where a connection is more than one stream, the others go on.
        assert_eq!(after.is_ok(), !proto.is_h1(), "{proto:?}: {after:?}");
    }
}

#[tokio::test]
async fn a_reset_of_a_connection_is_a_real_one() {
    let server = start().await;
    let mut stream = TcpStream::connect(server.clear_address().unwrap()).await.unwrap();
    stream.write_all(b"GET /reset?every=1 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let read = timeout(PATIENCE, stream.read(&mut [0; 64])).await.expect("it ends");
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn bad_values_are_named_with_what_was_expected() {
    let server = start().await;
    let cases = [
        ("/delay?ms=abc", "ms=abc: expected milliseconds from 0 to 60000\n"),
        ("/delay?ms=1&first_ms=2", "first_ms=2: expected it without ms, which is the same\n"),
        ("/delay?last_ms=1&body=1", "body=1: expected a whole number from 2 to 64256\n"),
        ("/stall?every=0", "every=0: expected a whole number from 1 to 1000000000\n"),
        ("/bytes?n=5&cut=5", "cut=5: expected less than n, which is 5\n"),
        ("/status?code=99", "code=99: expected a whole number from 200 to 599\n"),
        ("/sse?n=-1", "n=-1: expected a whole number from 0 to 1000000\n"),
        ("/echo?x=1", "x: no such parameter, expected none\n"),
        ("/ws", "expected a WebSocket handshake, version 13, by HTTP/1.1\n"),
    ];
    for proto in ALL {
        let mut client = Client::new(&server, proto).await;
        for (path, text) in cases {
            let answer = client.get(path).await;
            let expected = (StatusCode::BAD_REQUEST, text);
            assert_eq!((answer.status, answer.text()), expected, "{proto:?} {path}");
        }
        let answer = client.get("/nothing?here").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert!(answer.text().starts_with("no such path; expected one of /, /delay"), "{answer:?}");
    }
}
