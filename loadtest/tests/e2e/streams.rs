//! `echo`: bodies that stream, events, WebSocket.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use loadtest::{Connection, Protocol, Request};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    fixture::seconds,
    guest::Digester,
    teststack::{TestStack, clone_dir},
};

/// What is uploaded, in pieces.
const PIECES: usize = 64;
const PIECE_BYTES: usize = 32 << 10;
/// What is downloaded.
const DOWNLOAD_BYTES: u64 = 4 << 20;
/// Lines of a slow stream and the time between two.
const TICKS: u32 = 5;
const TICK: Duration = Duration::from_millis(200);

pub(crate) async fn echo_streams_both_ways_over_every_protocol(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    deploy_echo(&stack).await?;
    let host = stack.stack().function_host("echo");
    let mut sandboxes = BTreeSet::new();
    for protocol in Protocol::ALL {
        let mut connection = stack.stack().connect(&host, protocol).await?;
        sandboxes.insert(echoes_head(&mut connection).await.context(protocol.to_string())?);
        sandboxes.insert(uploads(&mut connection).await.context(protocol.to_string())?);
        sandboxes.insert(downloads(&mut connection).await.context(protocol.to_string())?);
        for (path, line) in [("/stream", "chunk 4\n"), ("/sse", "id: 4\n")] {
            let sandbox = ticks(&mut connection, path, line).await;
            sandboxes.insert(sandbox.with_context(|| format!("{path} by {protocol}"))?);
        }
    }
    ensure!(sandboxes.len() == 5 * Protocol::ALL.len(), "a machine served twice: {sandboxes:?}");
    Ok(())
}

/// Deploys it by the CLI, if no test has yet.
pub(crate) async fn deploy_echo(stack: &TestStack) -> anyhow::Result<()> {
    if stack.api().function(&"echo".parse()?).await.is_err() {
        let dir = clone_dir().join("images/functions/echo").display().to_string();
        stack.wrenn(["deploy", &dir]).await?;
    }
    Ok(())
}

/// The guest sees the client's headers, and none of ours.
async fn echoes_head(connection: &mut Connection) -> anyhow::Result<String> {
    let request = Request::new(Method::PUT, "/some/path?a=1&a=2")
        .header(HeaderName::from_static("x-marker"), HeaderValue::from_static("one"))
        .header(HeaderName::from_static("x-wrenn-target"), HeaderValue::from_static("sandbox/x"))
        .body(vec![Bytes::from_static(b"body \xff")]);
    let answer = connection.call(&request).await?;
    ensure!(answer.status == 200, "answered {}", answer.status);
    let said: Value = answer.json()?;
    ensure!(said["method"] == "PUT" && said["path"] == "/some/path", "{said}");
    ensure!(said["body_bytes"] == 6 && said["query"] == "a=1&a=2", "{said}");
    let headers = said["headers"].as_array().context("no headers")?;
    let names: Vec<_> = headers.iter().filter_map(|header| header[0].as_str()).collect();
    ensure!(names.iter().any(|name| name.eq_ignore_ascii_case("x-marker")), "{names:?}");
    let inner = |name: &&&str| {
        let name = name.to_ascii_lowercase();
        name.starts_with("x-wrenn-") && name != "x-wrenn-request-id"
    };
    ensure!(names.iter().find(inner).is_none(), "inner headers went in: {names:?}");
    sandbox_of(&answer.headers)
}

async fn uploads(connection: &mut Connection) -> anyhow::Result<String> {
    let pieces: Vec<Bytes> = (0..PIECES).map(pattern).collect();
    let mut digest = Digester::default();
    pieces.iter().for_each(|piece| digest.feed(piece));
    let answer = connection.call(&Request::new(Method::POST, "/upload").body(pieces)).await?;
    let said: Value = answer.json()?;
    ensure!(said["bytes"] == digest.bytes && said["sha256"] == digest.hex(), "{said}");
    sandbox_of(&answer.headers)
}

async fn downloads(connection: &mut Connection) -> anyhow::Result<String> {
    let mut answer = connection.start(&Request::get(format!("/bytes?n={DOWNLOAD_BYTES}"))).await?;
    let mut at = 0_u64;
    while let Some(piece) = answer.next().await? {
        let right = piece.iter().zip(at..).all(|(byte, at)| u64::from(*byte) == at % 251);
        ensure!(right, "a wrong byte between {at} and {}", at + piece.len() as u64);
        at += piece.len() as u64;
    }
    ensure!(at == DOWNLOAD_BYTES, "{at} bytes came");
    sandbox_of(&answer.headers)
}

/// Lines come when they are written, not all at the end.
async fn ticks(connection: &mut Connection, path: &str, last: &str) -> anyhow::Result<String> {
    let delay_ms = TICK.as_millis();
    let path = format!("{path}?n={TICKS}&delay_ms={delay_ms}");
    let mut answer = connection.start(&Request::get(path)).await?;
    let (mut text, mut first) = (Vec::new(), None);
    while let Some(piece) = answer.next().await? {
        first.get_or_insert_with(Instant::now);
        text.extend_from_slice(&piece);
    }
    let text = String::from_utf8(text)?;
    ensure!(text.contains(last), "{text}");
    let spread = first.context("nothing came")?.elapsed();
    ensure!(spread > TICK * (TICKS - 2), "all of it came within {spread:?}");
    sandbox_of(&answer.headers)
}

fn sandbox_of(headers: &http::HeaderMap) -> anyhow::Result<String> {
    let value = headers.get("x-wrenn-sandbox").context("no x-wrenn-sandbox")?;
    Ok(value.to_str()?.to_owned())
}

fn pattern(index: usize) -> Bytes {
    (0..PIECE_BYTES).map(|at| u8::try_from((at * 7 + index * 13) % 256).unwrap_or(0)).collect()
}

pub(crate) async fn websocket_echoes_over_http1(stack: Arc<TestStack>) -> anyhow::Result<()> {
    deploy_echo(&stack).await?;
    timeout(seconds(40), websocket(&stack)).await?
}

/// The client's half of RFC 6455, its example's key.
async fn websocket(stack: &TestStack) -> anyhow::Result<()> {
    let (host, port) = (stack.stack().function_host("echo"), stack.dev()?.http_port);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        ensure!(answer.len() < 8192, "the head does not end");
        answer.push(stream.read_u8().await?);
    }
    let answer = String::from_utf8(answer)?.to_ascii_lowercase();
    ensure!(answer.starts_with("http/1.1 101 "), "{answer}");
    ensure!(answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{answer}");
    ensure!(answer.contains("x-wrenn-sandbox: sb_"), "{answer}");
    for length in [5, 300, 70_000] {
        let message: Vec<u8> = pattern(length).iter().copied().cycle().take(length).collect();
        stream.write_all(&frame(0x2, &message)).await?;
        ensure!(read_frame(&mut stream).await? == (0x2, message), "{length} bytes changed");
    }
    stream.write_all(&frame(0x8, &1000_u16.to_be_bytes())).await?;
    let (opcode, code) = read_frame(&mut stream).await?;
    ensure!(opcode == 0x8 && code == 1000_u16.to_be_bytes(), "closed by {opcode} {code:?}");
    ensure!(stream.read(&mut [0; 1]).await? == 0, "open after the close");
    Ok(())
}

/// One whole frame as clients send them: masked.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![0x80 | opcode];
    let length = payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => bytes.push(0x80 | short),
        (_, Ok(medium)) => {
            bytes.push(0x80 | 126);
            bytes.extend(medium.to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

async fn read_frame(stream: &mut TcpStream) -> anyhow::Result<(u8, Vec<u8>)> {
    let first = stream.read_u8().await?;
    let length = match stream.read_u8().await? {
        126 => usize::from(stream.read_u16().await?),
        127 => usize::try_from(stream.read_u64().await?)?,
        short if short < 126 => usize::from(short),
        masked => bail!("a server's frame is masked: {masked:#x}"),
    };
    ensure!(first & 0xf0 == 0x80 && length < 1 << 20, "an odd frame: {first:#x}, {length} bytes");
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    Ok((first & 0x0f, payload))
}
