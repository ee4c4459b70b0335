//! The sample functions, run with the host's Python and spoken to over plain sockets.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn hello_counts_its_requests_but_not_its_readiness() {
    let hello = Function::start("hello");
    let mut connection = hello.connect();
    for (path, body) in [
        ("/healthz", "{\"ready\":true}"),
        ("/", "\"counter\": 1,"),
        ("/healthz", "{\"ready\":true}"),
        ("/any", "\"counter\": 2,"),
    ] {
        let answer = get(&mut connection, path);
        assert!(answer.contains(body), "{path}: {answer}");
    }
}

#[test]
fn hello_repeats_the_nonce_that_a_request_brought() {
    let hello = Function::start("hello");
    let mut connection = hello.connect();
    send(&mut connection, "GET / HTTP/1.1\r\nHost: x\r\nX-Loadtest-Nonce: wln-1\r\n\r\n");
    let answer = response(&mut connection);
    assert!(answer.contains("\"nonce\": \"wln-1\""), "{answer}");
    assert!(!get(&mut connection, "/").contains("nonce"), "nobody sent one");
}

#[test]
fn echo_returns_what_it_got() {
    let echo = Function::start("echo");
    let mut connection = echo.connect();
    send(
        &mut connection,
        "POST /a?b=1 HTTP/1.1\r\nHost: x\r\nX-Seen: yes\r\nContent-Length: 2\r\n\r\nhi",
    );
    let answer = response(&mut connection);
    for part in
        ["\"method\": \"POST\"", "[\"X-Seen\", \"yes\"]", "\"body\": \"hi\"", "\"query\": \"b=1\""]
    {
        assert!(answer.contains(part), "{part}: {answer}");
    }
}

#[test]
fn echo_streams_one_chunk_at_a_time() {
    let echo = Function::start("echo");
    let mut connection = echo.connect();
    let start = Instant::now();
    send(&mut connection, "GET /stream?n=3&delay_ms=200 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head(&mut connection).contains("Transfer-Encoding: chunked"));
    assert_eq!(line(&mut connection), "8");
    assert_eq!(line_end(&mut connection), "chunk 0\n");
    let first = start.elapsed();
    let rest: String = (0..6).map(|_| line_end(&mut connection)).collect();
    assert_eq!(rest, "\r\n8\r\nchunk 1\n\r\n8\r\nchunk 2\n");
    assert!(start.elapsed() - first >= Duration::from_millis(300), "the first chunk came early");
}

#[test]
fn echo_refuses_numbers_it_cannot_serve() {
    let echo = Function::start("echo");
    for path in ["/bytes?n=-1", "/stream?n=x", "/sse?delay_ms=99999999"] {
        let mut connection = echo.connect();
        send(&mut connection, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(head(&mut connection).starts_with("HTTP/1.1 400"), "{path}");
    }
}

#[test]
fn echo_returns_websocket_frames() {
    let echo = Function::start("echo");
    let mut connection = echo.connect();
    // The example handshake of RFC 6455.
    send(
        &mut connection,
        "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert!(head(&mut connection).contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    // "Hello" as a masked frame, from the same RFC.
    let frame = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    connection.get_mut().write_all(&frame).unwrap();
    let mut answer = [0; 7];
    connection.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"\x81\x05Hello");
}

/// A running sample, killed when dropped.
struct Function {
    process: Child,
    port: u16,
}

impl Function {
    fn start(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../functions").join(name);
        let mut process = Command::new("python3")
            .args(["-B", "server.py"])
            .current_dir(dir)
            .env("PORT", "0") // it takes a free one and says which
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("listening on port ").unwrap().parse().unwrap();
        Self { process, port }
    }

    fn connect(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        BufReader::new(stream)
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn send(connection: &mut BufReader<TcpStream>, text: &str) {
    connection.get_mut().write_all(text.as_bytes()).unwrap();
}

fn get(connection: &mut BufReader<TcpStream>, path: &str) -> String {
    send(connection, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    response(connection)
}

fn response(connection: &mut BufReader<TcpStream>) -> String {
    let head = head(connection);
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    connection.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

fn head(connection: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(connection.read_line(&mut head).unwrap(), 0, "closed after {head:?}");
    }
    head
}

fn line(connection: &mut BufReader<TcpStream>) -> String {
    line_end(connection).trim_end().to_owned()
}

fn line_end(connection: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    connection.read_line(&mut line).unwrap();
    line
}
