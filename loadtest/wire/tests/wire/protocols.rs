//! What works, over every protocol.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Version};
use loadtest_wire::{Connection, Origin, Protocol, Request};

use crate::server::{Identity, PATIENCE, echo_plain, echo_quic, echo_tls, plain, secure};

/// Every way to an echoing server.
async fn ways() -> Vec<(Protocol, Origin)> {
    let identity = Identity::new();
    let tls = secure(echo_tls(&identity, &["h2", "http/1.1"]).await, &identity);
    let quic = secure(echo_quic(&identity, &["h3"]).await.0, &identity);
    vec![
        (Protocol::H1, plain(echo_plain(false).await)),
        (Protocol::H1, tls.clone()),
        (Protocol::H2, plain(echo_plain(true).await)),
        (Protocol::H2, tls),
        (Protocol::H3, quic),
    ]
}

async fn open(origin: &Origin, protocol: Protocol) -> Connection {
    Connection::open_within(origin, protocol, PATIENCE).await.unwrap().connection
}

#[tokio::test]
async fn every_way_answers_one_request_after_the_other() {
    for (protocol, origin) in ways().await {
        let opened = Connection::open_within(&origin, protocol, PATIENCE).await.unwrap();
        let secure = format!("{origin:?}").contains("tls: true");
        assert_eq!(opened.times.handshake.is_some(), secure, "{protocol}");
        assert_eq!(opened.times.connect.is_some(), protocol != Protocol::H3, "{protocol}");
        assert_eq!(opened.times.dns, None, "{protocol}");
        let mut connection = opened.connection;
        for path in ["/a", "/b"] {
            let body = Bytes::from_static(b"hello");
            let request = Request::new(Method::POST, path).content(body).within(PATIENCE);
            let answer = connection.call(&request).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.bytes), (200, 5), "{protocol}");
            assert_eq!(&answer.body[..], b"hello");
            let said = format!("POST {} {path}", origin.authority());
            assert_eq!(answer.header("x-said"), Some(said.as_str()), "{protocol}");
            let times = answer.times;
            assert!(times.sent <= times.first_byte && times.first_byte <= times.last_byte);
            assert!(connection.is_open(), "{protocol}");
        }
        let version = connection.call(&Request::get("/")).await.unwrap().version;
        let versions = [Version::HTTP_11, Version::HTTP_2, Version::HTTP_3];
        assert_eq!(version, versions[protocol as usize]);
    }
}

#[tokio::test]
async fn a_large_body_is_echoed_while_it_is_sent() {
    const PIECES: usize = 128;
    for (protocol, origin) in ways().await {
        let mut connection = open(&origin, protocol).await;
        // More than all buffers on the way: whoever only sends, or only reads, hangs.
        let pieces = vec![Bytes::from(vec![b'x'; 256 * 1024]); PIECES];
        let request = Request::new(Method::PUT, "/").body(pieces).within(PATIENCE * 2);
        let mut bytes = 0;
        let answer = connection.exchange(&request, &mut |piece| bytes += piece.len()).await;
        let answer = answer.unwrap_or_else(|error| panic!("{protocol}: {}", error.in_full()));
        assert_eq!((bytes, answer.bytes), (PIECES * 256 * 1024, bytes as u64), "{protocol}");
        assert!(answer.body.is_empty());
        assert!(connection.is_open(), "{protocol}");
    }
}

#[tokio::test]
async fn an_answer_can_be_read_piece_by_piece() {
    for (protocol, origin) in ways().await {
        let mut connection = open(&origin, protocol).await;
        for _ in 0..2 {
            let request = Request::get("/bytes/300000").within(PATIENCE);
            let mut incoming = connection.start(&request).await.unwrap();
            let mut bytes = 0;
            while let Some(piece) = incoming.next().await.unwrap() {
                assert!(!piece.is_empty());
                bytes += piece.len();
            }
            assert_eq!(bytes, 300_000, "{protocol}");
            assert_eq!(incoming.next().await.unwrap(), None, "{protocol}");
        }
        assert!(connection.is_open(), "{protocol}");
    }
}

#[tokio::test]
async fn an_answer_that_was_dropped_takes_its_http1_connection_with_it() {
    for (protocol, origin) in ways().await {
        let mut connection = open(&origin, protocol).await;
        let request = Request::get("/bytes/3000000").within(PATIENCE);
        drop(connection.start(&request).await.unwrap());
        assert_eq!(connection.is_open(), protocol != Protocol::H1, "{protocol}");
        let next = connection.call(&Request::get("/").within(PATIENCE)).await;
        match protocol {
            Protocol::H1 => assert_eq!(next.unwrap_err().kind(), "closed"),
            _ => assert_eq!(next.unwrap().status, 200, "{protocol}"),
        }
    }
}

#[tokio::test]
async fn handles_share_a_connection() {
    for (protocol, origin) in ways().await {
        let connection = open(&origin, protocol).await;
        let Some(handle) = connection.handle() else {
            assert_eq!(protocol, Protocol::H1);
            continue;
        };
        drop(connection); // the handle keeps what is shared
        let calls = (0..20).map(|n| {
            let mut handle = handle.handle().unwrap();
            tokio::spawn(async move {
                let path = format!("/{n}");
                let answer = handle.call(&Request::get(&path).within(PATIENCE)).await.unwrap();
                assert!(answer.header("x-said").unwrap().ends_with(&path));
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        assert!(handle.is_open(), "{protocol}");
    }
}

#[tokio::test]
async fn a_nonce_differs_from_sending_to_sending() {
    for (protocol, origin) in ways().await.into_iter().take(4) {
        let mut connection = open(&origin, protocol).await;
        let mut request = Request::get("/").within(PATIENCE);
        for nonce in ["one", "two"] {
            let value = HeaderValue::from_static(nonce);
            request.set_nonce(HeaderName::from_static("x-nonce"), value);
            let answer = connection.call(&request).await.unwrap();
            assert_eq!(answer.header("x-nonce"), Some(nonce), "{protocol}");
        }
    }
}

#[tokio::test]
async fn a_body_has_a_limit_that_is_told() {
    for (protocol, origin) in ways().await {
        let mut connection = open(&origin, protocol).await;
        let request = Request::get("/bytes/1001").within(PATIENCE);
        let answer = connection.call_up_to(&request, 1001).await.unwrap();
        assert_eq!(answer.body.len(), 1001);
        let request = Request::get("/bytes/1000000").within(PATIENCE);
        let error = connection.call_up_to(&request, 1000).await.unwrap_err();
        assert_eq!(error.kind(), "too_large", "{protocol}");
        assert_eq!(connection.is_open(), protocol != Protocol::H1, "{protocol}");
    }
}

#[test]
fn a_worker_thread_may_have_one_runtime_after_the_other() {
    for _ in 0..2 {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(async {
            let identity = Identity::new();
            let origin = secure(echo_quic(&identity, &["h3"]).await.0, &identity);
            let mut connection = open(&origin, Protocol::H3).await;
            let answer = connection.call(&Request::get("/").within(PATIENCE)).await;
            assert_eq!(answer.unwrap().status, 200);
        });
    }
}
