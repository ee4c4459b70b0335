//! Limits hold, for whoever keeps to none.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    client::{ALL, Client, Proto, get, quic_connect, text},
    stack::{Stack, function},
};

#[tokio::test]
async fn slow_head_is_cut() {
    let stack = Stack::with(|limits| {
        limits.header_read_timeout = Duration::from_millis(400);
        limits.handshake_timeout = Duration::from_millis(400);
    })
    .await;
    for (address, what) in [(stack.http, "a slow head"), (stack.https, "no TLS handshake")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let started = Instant::now();
        let dripping = async {
            let mut buffer = [0; 256];
            loop {
                let _ = stream.write_all(if address == stack.http { b"G" } else { b"" }).await;
                let read = timeout(Duration::from_millis(50), stream.read(&mut buffer)).await;
                if let Ok(Ok(0) | Err(_)) = read {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(5), dripping).await.unwrap_or_else(|_| panic!("{what}"));
        assert!(started.elapsed() >= Duration::from_millis(300), "{what} was cut too early");
    }
}

#[tokio::test]
async fn body_that_drips_is_given_up_and_a_steady_one_is_not() {
    let stack = Stack::with(|limits| limits.min_body_bytes_per_second = 200).await;
    let head = format!(
        "POST /count HTTP/1.1\r\nHost: {}\r\nContent-Length: 100000\r\n\r\n",
        function("hello")
    );
    let mut drips = TcpStream::connect(stack.http).await.unwrap();
    let mut steady = TcpStream::connect(stack.http).await.unwrap();
    for stream in [&mut drips, &mut steady] {
        stream.write_all(head.as_bytes()).await.unwrap();
    }
    let (begin, mut sent) = (Instant::now(), 0);
    // Speed is judged after 5 s.
    while begin.elapsed() < Duration::from_secs(7) {
        let _ = drips.write_all(b"x").await; // it may be cut by now
        steady.write_all(&[b'x'; 100]).await.unwrap();
        sent += 100;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    steady.write_all(&vec![b'x'; 100_000 - sent]).await.unwrap();
    for (mut stream, status) in [(drips, "408"), (steady, "200")] {
        let mut answer = [0; 12];
        let read = timeout(Duration::from_secs(20), stream.read_exact(&mut answer)).await;
        read.expect("there is an answer").unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"));
    }
}

#[tokio::test]
async fn large_heads_are_refused_over_each_protocol() {
    let stack = Stack::with(|limits| limits.max_header_bytes = 16 * 1024).await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let mut request = get(&function("hello"), "/seen");
        let large = HeaderValue::from_str(&"x".repeat(20_000)).unwrap();
        request.headers_mut().insert("x-large", large);
        assert_eq!(client.send(request).await.status(), 431, "{proto:?}");
    }
}

#[tokio::test]
async fn announced_gibibyte_over_http3_is_not_buffered() {
    let stack = Stack::start().await;
    let (_endpoint, connection) = quic_connect(&stack).await;
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&[0x00, 0x04, 0x00]).await.unwrap(); // control stream, empty SETTINGS
    let head = crate::raw::h3_head(&function("hello"), "POST", "/count");
    // As the first frame HEADERS (1), after a head HEADERS again (trailers). A frame of a reserved
    // type is passed over, which edge-http3 tests for the memory it takes.
    for (before, frame_type) in [(vec![], 0x01), (head, 0x01)] {
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&before).await.unwrap();
        // Announces 2^30 bytes, as an 8-byte varint.
        send.write_all(&[frame_type, 0xc0, 0, 0, 0, 0x40, 0, 0, 0]).await.unwrap();
        let chunk = Bytes::from(vec![0; 64 * 1024]);
        let mut taken = 0;
        let pushing = async {
            while taken < 32 * 1024 * 1024 && send.write_chunk(chunk.clone()).await.is_ok() {
                taken += chunk.len();
            }
        };
        let _ = timeout(Duration::from_secs(2), pushing).await; // told to stop, or let wait
        assert!(taken < 4 * 1024 * 1024, "{taken} bytes of one frame were taken");
    }
    let mut client = Client::new(&stack, Proto::H3).await;
    assert_eq!(client.send(get(&function("hello"), "/seen")).await.status(), 200);
}

#[tokio::test]
async fn body_shorter_or_longer_than_its_length_is_refused_over_http3() {
    let stack = Stack::start().await;
    for body in ["four", "sixsix"] {
        let mut client = Client::new(&stack, Proto::H3).await;
        let mut request =
            crate::client::post(&function("hello"), "/count", crate::client::full(body));
        request.headers_mut().insert("content-length", HeaderValue::from_static("5"));
        request.headers_mut().remove("host");
        *request.uri_mut() = format!("https://{}/count", function("hello")).parse().unwrap();
        let answer = timeout(Duration::from_secs(5), client.exchange(request)).await.unwrap();
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() != 200), "{body}");
    }
}

#[tokio::test]
async fn client_that_takes_no_bytes_is_cut() {
    let stack = Stack::with(|limits| limits.body_idle_timeout = Duration::from_millis(500)).await;
    let mut stream = TcpStream::connect(stack.http).await.unwrap();
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: {}\r\nContent-Length: 100000000\r\n\r\n",
        function("hello")
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = vec![0; 64 * 1024];
    let pushing = async { while stream.write_all(&chunk).await.is_ok() {} };
    timeout(Duration::from_secs(20), pushing).await.expect("the edge gives up");
    stack.agent.wait_for_abort("/echo").await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let stack = Stack::with(|limits| limits.max_connections = 2).await;
    let mut first = Client::new(&stack, Proto::Plain).await;
    let mut second = Client::new(&stack, Proto::Plain).await;
    assert_eq!(first.send(get(&function("hello"), "/seen")).await.status(), 200);
    assert_eq!(second.send(get(&function("hello"), "/seen")).await.status(), 200);
    let mut third = TcpStream::connect(stack.http).await.unwrap();
    let read = timeout(Duration::from_secs(5), third.read(&mut [0; 16])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "the third one is closed");
    drop(first);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut fourth = Client::new(&stack, Proto::Plain).await;
    assert_eq!(fourth.send(get(&function("hello"), "/seen")).await.status(), 200);
}

#[tokio::test]
async fn many_streams_of_one_connection_are_answered() {
    let stack = Stack::start().await;
    for proto in [Proto::H2, Proto::H3] {
        let mut client = Client::new(&stack, proto).await;
        for _ in 0..200 {
            let answer = client.send(get(&function("hello"), "/seen")).await;
            assert_eq!(answer.status(), 200, "{proto:?}");
            text(answer).await;
        }
    }
}

#[tokio::test]
async fn route_overhead_is_shown_and_small() {
    let stack = Stack::start().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let mut routes_ms: Vec<f64> = Vec::new();
        for _ in 0..100 {
            let response = client.send(get(&function("hello"), "/seen")).await;
            let timing = response.headers()["server-timing"].to_str().unwrap().to_owned();
            let route = timing.split(',').next().unwrap().strip_prefix("route;dur=").unwrap();
            routes_ms.push(route.parse().unwrap());
            text(response).await;
        }
        routes_ms.sort_by(f64::total_cmp);
        eprintln!("{proto:?}: route p50 {} ms, p99 {} ms", routes_ms[50], routes_ms[99]);
        assert!(routes_ms[50] < 50.0, "{proto:?}");
    }
}
