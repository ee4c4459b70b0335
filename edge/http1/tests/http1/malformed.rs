//! Which requests are refused, with which status, and does the client get to read it?

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::sync::atomic::Ordering::Relaxed;

use edge_http1::server::{Config, ServeError};
use tokio::io::AsyncWriteExt as _;

use crate::support::{Server, report};

/// Sends `bytes`, and expects `status` and the connection's end behind it.
async fn expect(server: &mut Server, what: &str, bytes: &[u8], status: u16) {
    let mut client = server.connect().await;
    client.send(bytes).await;
    // The client goes on sending, as one that smuggles would.
    let _ = client.stream.write_all(b"GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.status, status, "{what}: {}", answer.head);
    assert_eq!(answer.field("connection"), Some("close"), "{what}");
    let _ = client.stream.shutdown().await; // so that nobody waits for more of it
    assert_eq!(client.rest().await, b"", "{what}: nothing may follow");
    assert!(matches!(server.ended().await, Err(ServeError::Refused(_))), "{what}");
}

fn with(fields: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn heads_that_break_a_rule_of_rfc_9112_are_refused() {
    let mut server = Server::start(report).await;
    let plain: &[(&str, &[u8], u16)] = &[
        ("2.2 bare LF", b"GET / HTTP/1.1\nHost: h\n\n", 400),
        ("2.2 bare LF in one line", b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400),
        ("2.2 bare LF before the end", b"GET / HTTP/1.1\r\nHost: h\r\n\n", 400),
        ("2.2 blank before the first field", b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
        ("2.2 three empty lines", b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("2.2 bare CR in the request line", b"GET /\r HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("2.3 HTTP/2.0", b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        ("2.3 HTTP/0.9", b"GET / HTTP/0.9\r\nHost: h\r\n\r\n", 505),
        ("2.3 HTTP/1.2", b"GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505),
        ("2.3 lower case", b"GET / http/1.1\r\nHost: h\r\n\r\n", 505),
        ("2.3 no version", b"GET /\r\nHost: h\r\n\r\n", 400),
        ("3 two spaces", b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3 tab instead of space", b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3 space in the target", b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3 space at the end", b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
        ("3.1 method with a colon", b"G:T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.2 NUL in the target", b"GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.2 fragment", b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.2 relative", b"GET a/b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.2 no Host", b"GET / HTTP/1.1\r\n\r\n", 400),
        ("3.2 two Hosts", b"GET / HTTP/1.1\r\nHost: h\r\nhost: h\r\n\r\n", 400),
        ("3.2.3 authority without CONNECT", b"GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.2.3 CONNECT to a path", b"CONNECT /a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("3.2.4 asterisk without OPTIONS", b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("5 no colon", b"GET / HTTP/1.1\r\nHost: h\r\nabc\r\n\r\n", 400),
        ("5.1 space before the colon", b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
        ("5.1 empty name", b"GET / HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n", 400),
        ("5.1 brackets in a name", b"GET / HTTP/1.1\r\nHost: h\r\na[b]: x\r\n\r\n", 400),
        ("5.2 folding with a space", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", 400),
        ("5.2 folding with a tab", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb\r\n\r\n", 400),
        ("9110 5.5 NUL", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", 400),
        ("9110 5.5 bare CR", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400),
        ("9110 5.5 DEL", b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x7fb\r\n\r\n", 400),
        ("TLS to a plain port", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        ("HTTP/2 to HTTP/1", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ];
    for (what, bytes, status) in plain {
        expect(&mut server, what, bytes, *status).await;
    }
    assert_eq!(server.counters.malformed.load(Relaxed), plain.len() as u64);
}

#[tokio::test]
async fn framings_that_two_parsers_could_read_differently_are_refused() {
    let mut server = Server::start(report).await;
    let framings: &[(&str, &str, u16)] = &[
        ("6.3 CL.TE", "Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        ("6.3 TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
        ("6.3 CL 0 and TE", "Content-Length: 0\r\nTransfer-Encoding: chunked", 400),
        ("6.1 TE.TE", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("6.1 TE.TE identity", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400),
        ("6.1 TE.TE reversed", "Transfer-Encoding: x\r\nTransfer-Encoding: chunked", 400),
        ("6.1 chunked twice", "Transfer-Encoding: chunked, chunked", 501),
        ("6.1 known before chunked", "Transfer-Encoding: gzip, chunked", 501),
        ("6.1 unknown before chunked", "Transfer-Encoding: x, chunked", 501),
        ("6.1 chunked not last", "Transfer-Encoding: chunked, gzip", 400),
        ("6.1 identity", "Transfer-Encoding: identity", 400),
        ("6.1 xchunked", "Transfer-Encoding: xchunked", 400),
        ("6.1 quoted", "Transfer-Encoding: \"chunked\"", 400),
        ("6.1 parameter", "Transfer-Encoding: chunked;a=b", 400),
        ("6.1 empty", "Transfer-Encoding:", 400),
        ("6.1 vertical tab", "Transfer-Encoding: \x0bchunked", 400),
        ("6.1 form feed behind", "Transfer-Encoding: chunked\x0c", 400),
        ("6.1 space before colon", "Transfer-Encoding : chunked", 400),
        ("6.1 folded", "Transfer-Encoding:\r\n chunked", 400),
        ("6.1 CR in the value", "Transfer-Encoding: chun\rked", 400),
        ("6.1 behind a bare CR", "X: a\rTransfer-Encoding: chunked", 400),
        ("6.1 behind a bare LF", "X: a\nTransfer-Encoding: chunked", 400),
        ("6.3 two lengths that differ", "Content-Length: 5\r\nContent-Length: 6", 400),
        ("6.3 two lengths alike", "Content-Length: 5\r\nContent-Length: 5", 400),
        ("6.3 list of lengths", "Content-Length: 5, 5", 400),
        ("6.3 plus", "Content-Length: +5", 400),
        ("6.3 minus", "Content-Length: -5", 400),
        ("6.3 hexadecimal", "Content-Length: 0x5", 400),
        ("6.3 fraction", "Content-Length: 5.0", 400),
        ("6.3 inner space", "Content-Length: 5 5", 400),
        ("6.3 empty", "Content-Length:", 400),
        ("6.3 beyond 64 bits", "Content-Length: 18446744073709551616", 400),
        ("6.3 underscore", "Content-Length: 1_0", 400),
    ];
    for (what, fields, status) in framings {
        expect(&mut server, what, &with(fields), *status).await;
    }
    let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    expect(&mut server, "6.1 TE in HTTP/1.0", old, 400).await;
}

#[tokio::test]
async fn heads_beyond_a_limit_are_refused_with_its_status() {
    let config = Config {
        max_head_bytes: 4096,
        max_target_bytes: 1024,
        max_headers: 20,
        ..Config::default()
    };
    let mut server = Server::with(config, report).await;
    let target = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(1500));
    expect(&mut server, "long target", target.as_bytes(), 414).await;
    let endless = format!("GET /{}", "a".repeat(5000));
    expect(&mut server, "target without end", endless.as_bytes(), 414).await;
    let large = with(&format!("X: {}", "a".repeat(5000)));
    expect(&mut server, "large field", &large, 431).await;
    let endless = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}", "a".repeat(5000));
    expect(&mut server, "field without end", endless.as_bytes(), 431).await;
    let fields: Vec<String> = (0..20).map(|number| format!("X-{number}: 1")).collect();
    expect(&mut server, "many fields", &with(&fields.join("\r\n")), 431).await;
    assert_eq!(server.counters.head_bytes.load(Relaxed), 5);
    let mut client = server.connect().await;
    client.send(with(&format!("{}\r\nContent-Length: 0", fields[..18].join("\r\n")))).await;
    assert_eq!(client.answer().await.status, 200, "twenty fields are allowed");
}

#[tokio::test]
async fn a_refusal_is_read_by_a_client_that_goes_on_sending() {
    let server = Server::start(report).await;
    for _ in 0..5 {
        let mut client = server.connect().await;
        client.send(b"GET / HTTP/9.9\r\n\r\n").await;
        for _ in 0..16 {
            let _ = client.stream.write_all(&[b'x'; 16 * 1024]).await;
        }
        assert_eq!(client.answer().await.status, 505);
    }
}

#[tokio::test]
async fn all_four_forms_of_a_target_reach_the_service() {
    let server = Server::start(report).await;
    let mut client = server.connect().await;
    assert_eq!(client.get("/a?b=c").await.text(), "GET /a?b=c []");
    assert_eq!(client.get("http://other:81/x").await.text(), "GET http://other:81/x []");
    client.send(b"OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "OPTIONS * []");
    client.send(b"CONNECT far:443 HTTP/1.1\r\nhost: far:443\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "CONNECT far:443 []");
    client.send(b"\r\n\r\nBREW /pot HTTP/1.1\r\nhost:h\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "BREW /pot []");
}

#[tokio::test]
async fn an_empty_line_may_come_byte_by_byte() {
    let server = Server::start(report).await;
    let mut client = server.connect().await;
    for byte in b"\r\n\r\nGET / HTTP/1.1\r\nhost: h\r\n\r\n" {
        client.send([*byte]).await;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert_eq!(client.answer().await.text(), "GET / []");
}
