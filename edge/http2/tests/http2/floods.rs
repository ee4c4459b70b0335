//! Clients that send what costs more than it brings: they are sent away, counted, and cost little
//! memory. Each test measures a process of its own.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use edge_http2::Config;

use crate::{
    raw::{
        CALM, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY,
        RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, frame, get, head, post,
    },
    support::{Answering, PATIENCE, Server, full, ok, report, resident},
};

/// Most that a process may grow by a flood.
const GROWTH_MAX: u64 = 32 << 20;

/// Runs one of these tests in a process of its own. False: this is that process.
fn elsewhere(name: &str) -> bool {
    if std::env::var_os("WRENN_MEASURE").is_some() {
        return false;
    }
    let alone = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("floods::{name}"), "--nocapture", "--test-threads=1"])
        .env("WRENN_MEASURE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&alone.stdout).into_owned();
    println!("{said}{}", String::from_utf8_lossy(&alone.stderr));
    assert!(alone.status.success() && said.contains("1 passed"));
    true
}

/// Sends `pieces` until the server has had enough; says what it told.
async fn flood(raw: &mut Raw, pieces: impl Iterator<Item = Vec<u8>>) -> Option<u32> {
    for piece in pieces {
        let sent = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &piece).await;
        if sent.is_err() {
            break;
        }
    }
    while let Some(got) = raw.next().await {
        if got.kind == GOAWAY && got.code() != 0 {
            return Some(got.code());
        }
    }
    None
}

/// The flood ends in ENHANCE_YOUR_CALM or a close, is counted, and costs little.
async fn ends(
    server: &mut Server,
    counted: impl Fn(&Server) -> &AtomicU64,
    pieces: impl Iterator<Item = Vec<u8>>,
) {
    let mut raw = Raw::open(server).await;
    let before = resident();
    let told = flood(&mut raw, pieces).await;
    assert!(matches!(told, None | Some(CALM)), "{told:?}");
    let ended = server.ended().await;
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(counted(server).load(Relaxed), 1, "{:?} {ended:?}", server.counters);
    let grown = resident().saturating_sub(before);
    println!("told {told:?}, grown by {} KiB", grown / 1024);
    assert!(grown < GROWTH_MAX, "{grown}");
}

/// The same frames over and over.
fn again(times: usize, bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + use<> {
    std::iter::repeat_n(bytes.repeat(64), times / 64)
}

fn waits(_: http::Request<edge_http2::RecvBody>) -> Answering {
    Box::pin(std::future::pending())
}

#[tokio::test]
async fn rapid_resets() {
    if elsewhere("rapid_resets") {
        return;
    }
    let reset = |stream| frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    let streams = |step: u32| {
        (0..50_000_u32)
            .map(move |number| [get(number * 2 + 1), reset(number * 2 + 1)].concat())
            .collect::<Vec<_>>()
            .chunks(step as usize)
            .map(<[Vec<u8>]>::concat)
            .collect::<Vec<_>>()
            .into_iter()
    };
    // All at once, before the server has seen them; and one after another, as it does.
    for step in [100, 1] {
        let mut server = Server::start(waits).await;
        ends(&mut server, |server| &server.counters.resets, streams(step)).await;
    }
}

/// "MadeYouReset": the client breaks a rule in each stream, so that the server resets it.
#[tokio::test]
async fn resets_that_are_provoked() {
    if elsewhere("resets_that_are_provoked") {
        return;
    }
    let provoked = |stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4]);
    let streams =
        (0..50_000_u32).map(|number| [get(number * 2 + 1), provoked(number * 2 + 1)].concat());
    let mut server = Server::start(waits).await;
    ends(&mut server, |server| &server.counters.resets, streams).await;
}

#[tokio::test]
async fn heads_that_are_too_large() {
    if elsewhere("heads_that_are_too_large") {
        return;
    }
    // Forty fields of a kilobyte each, which is more than 32 KiB and no more than four times as much.
    let mut first = head("GET", &[]);
    first.extend([0x40, 1, b'x', 0x7f, 0x81, 0x07]);
    first.extend([b'a'; 1024]);
    let first = frame(HEADERS, END_HEADERS | END_STREAM, 1, &first);
    let large = [head("GET", &[]), vec![0xbe; 40]].concat();
    let large = move |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &large);
    let mut server = Server::start(report).await;
    let mut raw = Raw::open(&server).await;
    raw.send([first, large(3)].concat()).await;
    let refused = raw.until(HEADERS, 3).await;
    assert_eq!(refused.flags & END_STREAM, END_STREAM);
    assert!(refused.payload.windows(3).any(|digits| digits == b"431"));
    let told = flood(&mut raw, (2..5000_u32).map(|number| large(number * 2 + 1))).await;
    assert!(matches!(told, None | Some(CALM)), "{told:?}");
    assert!(server.ended().await.is_err());
    assert_eq!(server.counters.resets.load(Relaxed), 1, "{:?}", server.counters);
}

#[tokio::test]
async fn continuations_without_end() {
    if elsewhere("continuations_without_end") {
        return;
    }
    let begin = [frame(HEADERS, END_STREAM, 1, &head("GET", &[]))].into_iter();
    let field = crate::raw::fields(&[("x", "y")]);
    let rest = again(100_000, &frame(CONTINUATION, 0, 1, &field));
    let mut server = Server::start(report).await;
    ends(&mut server, |server| &server.counters.continuations, begin.chain(rest)).await;
}

#[tokio::test]
async fn settings() {
    if elsewhere("settings") {
        return;
    }
    let mut server = Server::start(report).await;
    let settings = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]);
    ends(&mut server, |server| &server.counters.settings, again(100_000, &settings)).await;
}

#[tokio::test]
async fn pings() {
    if elsewhere("pings") {
        return;
    }
    let mut server = Server::start(report).await;
    let ping = frame(PING, 0, 0, b"12345678");
    ends(&mut server, |server| &server.counters.pings, again(100_000, &ping)).await;
}

#[tokio::test]
async fn priorities_and_unknown_frames() {
    if elsewhere("priorities_and_unknown_frames") {
        return;
    }
    for flood in [frame(PRIORITY, 0, 9, &[0, 0, 0, 1, 9]), frame(0xbe, 0, 0, b"x")] {
        let mut server = Server::start(report).await;
        ends(&mut server, |server| &server.counters.control, again(100_000, &flood)).await;
    }
}

#[tokio::test]
async fn empty_data() {
    if elsewhere("empty_data") {
        return;
    }
    let mut server = Server::start(report).await;
    let rest = again(200_000, &frame(DATA, 0, 1, b""));
    let flood = [post(1)].into_iter().chain(rest);
    ends(&mut server, |server| &server.counters.tiny_data, flood).await;
}

#[tokio::test]
async fn window_updates() {
    if elsewhere("window_updates") {
        return;
    }
    let config = Config { max_window_updates_per_second: 2000, ..Config::default() };
    let mut server = Server::with(config, waits).await;
    let rest = again(100_000, &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]));
    let flood = [post(1)].into_iter().chain(rest);
    ends(&mut server, |server| &server.counters.control, flood).await;
}

#[tokio::test]
async fn heads_that_grow_when_they_are_read() {
    if elsewhere("heads_that_grow_when_they_are_read") {
        return;
    }
    // One field of 4,000 bytes put into the table, then named by one byte each.
    let mut block = head("GET", &[]);
    block.extend([0x40, 1, b'x', 0x7f, 0xa1 - 0x80 + 0x80, 0x1e]);
    block.extend([b'a'; 4000]);
    let first = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    let bomb = [head("GET", &[]), vec![0xbe; 16_000]].concat();
    let mut server = Server::start(report).await;
    let mut raw = Raw::open(&server).await;
    raw.send(first).await;
    raw.until(DATA, 1).await;
    let before = resident();
    let bombs =
        (1..200_u32).map(|number| frame(HEADERS, END_HEADERS | END_STREAM, number * 2 + 1, &bomb));
    let told = flood(&mut raw, bombs).await;
    let grown = resident().saturating_sub(before);
    println!("told {told:?}, grown by {} KiB", grown / 1024);
    assert!(matches!(told, None | Some(CALM)), "{told:?}");
    assert!(grown < GROWTH_MAX, "{grown}");
    assert!(server.ended().await.is_err());
    assert_eq!(server.counters.head_bytes.load(Relaxed), 1, "{:?}", server.counters);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_of_many_answers() {
    if elsewhere("a_reader_that_takes_nothing_of_many_answers") {
        return;
    }
    let config = Config { write_timeout: Duration::from_millis(500), ..Config::default() };
    let answer = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    let server = Server::with(config, move |_| {
        let answer = answer.clone();
        Box::pin(async move { ok(full(answer)) })
    })
    .await;
    // INITIAL_WINDOW_SIZE 0: nothing of any answer may be sent.
    let mut raw = Raw::with_settings(&server, &[0, 4, 0, 0, 0, 0]).await;
    let before = resident();
    let all: Vec<u8> = (0..128).flat_map(|number| get(number * 2 + 1)).collect();
    raw.send(all).await;
    let mut resets = 0;
    while resets < 128 {
        let got = tokio::time::timeout(PATIENCE, raw.next()).await.unwrap().unwrap();
        resets += u64::from(got.kind == RST_STREAM);
    }
    let grown = resident().saturating_sub(before);
    println!("grown by {} KiB", grown / 1024);
    assert!(grown < GROWTH_MAX, "{grown}");
    assert_eq!(server.counters.write_stalled.load(Relaxed), 128);
    raw.ping().await;
}
