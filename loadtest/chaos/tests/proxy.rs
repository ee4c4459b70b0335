//! Slow proxies on real sockets: what a target behind one sees.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use loadtest_chaos::Chaos;
use loadtest_model::{ChaosPlan, Disturbance, Fault, SlowProxy};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Longest that anything here may take. The machine may be slow.
const DEADLINE: Duration = Duration::from_secs(120);
/// For faults that hold until the test ends.
const LONG_MS: u64 = 600_000;

/// An echoing server behind a proxy.
struct Behind {
    chaos: Chaos,
    address: SocketAddr,
    cancel: CancellationToken,
    run: JoinHandle<()>,
}

impl Behind {
    async fn new(faults: impl IntoIterator<Item = (u64, Fault)>) -> Self {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let upstream = server.local_addr().unwrap();
        tokio::spawn(echo(server));
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let proxies = [SlowProxy { name: "store".to_owned(), listen, upstream }];
        let plan = |(at_ms, fault)| ChaosPlan { at_ms, every_ms: None, fault };
        let plans: Vec<ChaosPlan> = faults.into_iter().map(plan).collect();
        let chaos = Chaos::prepare(&plans, &proxies).unwrap();
        chaos.start_proxies().unwrap();
        let address = chaos.proxy_address("store").unwrap();
        let cancel = CancellationToken::new();
        let run = tokio::spawn(chaos.run(cancel.clone()));
        Self { chaos, address, cancel, run }
    }

    /// Begins a part and waits until a fault is seen.
    async fn begin(&self) {
        self.chaos.begin_part("part", Instant::now());
        until(|| self.chaos.board().current().is_some()).await;
    }

    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    async fn finish(self) -> Vec<Disturbance> {
        self.cancel.cancel();
        timeout(DEADLINE, self.run).await.unwrap().unwrap();
        self.chaos.finish().await
    }
}

/// Repeats what comes; at the end of what comes it ends, too.
async fn echo(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
    }
}

async fn until(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap();
}

/// Sends a byte and waits for it.
async fn ping(stream: &mut TcpStream) -> Duration {
    let begin = Instant::now();
    stream.write_all(&[7]).await.unwrap();
    timeout(DEADLINE, stream.read_exact(&mut [0])).await.unwrap().unwrap();
    begin.elapsed()
}

/// Sends it all, ends, and returns what came back.
async fn through(stream: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = stream.split();
    let mut back = Vec::new();
    let send = async {
        write.write_all(bytes).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let take = async { read.read_to_end(&mut back).await.unwrap() };
    timeout(DEADLINE, async { tokio::join!(send, take) }).await.unwrap();
    back
}

/// Bytes that don't repeat soon: an offset that is wrong is seen.
fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

fn slow(delay_ms: u64, bytes_per_s: Option<u64>, cut: bool, for_ms: u64) -> Fault {
    Fault::Slow { proxy: "store".to_owned(), delay_ms, bytes_per_s, cut, for_ms }
}

#[tokio::test]
async fn delay_is_added_to_each_answer() {
    let behind = Behind::new([(0, slow(300, None, false, LONG_MS))]).await;
    let mut stream = behind.connect().await;
    ping(&mut stream).await;
    behind.begin().await;
    let mut waits = Vec::new();
    // A slow machine adds to most, but not to all of them.
    while waits.iter().all(|wait| *wait >= Duration::from_millis(390)) && waits.len() < 50 {
        waits.push(ping(&mut stream).await);
    }
    assert!(waits.iter().all(|wait| wait.as_millis() >= 300), "{waits:?}");
    assert!(waits.last().unwrap().as_millis() < 390, "{waits:?}");
    let found = behind.finish().await;
    assert_eq!(found[0].what, "proxy store late by 300ms for 600s");
    assert_eq!((found.len(), found[0].failed.as_ref(), found[0].lost), (1, None, 0));
}

#[tokio::test]
async fn proxy_is_fast_again_after_the_fault() {
    let behind = Behind::new([(0, slow(1000, Some(1), false, 500))]).await;
    behind.begin().await;
    let (board, later) = (behind.chaos.board(), Duration::from_secs(900));
    board.note(later, later, true);
    until(|| board.current().is_none()).await;
    let mut stream = behind.connect().await;
    let mut waits = Vec::new();
    while waits.iter().all(|wait| *wait >= Duration::from_millis(300)) && waits.len() < 50 {
        waits.push(ping(&mut stream).await);
    }
    assert!(waits.last().unwrap().as_millis() < 300, "{waits:?}");
    behind.finish().await;
}

#[tokio::test]
async fn order_and_bytes_are_kept_and_pieces_do_not_wait_for_each_other() {
    let behind = Behind::new([(0, slow(50, None, false, LONG_MS))]).await;
    behind.begin().await;
    let sent = pattern(10 << 20);
    let mut took = Vec::new();
    // One by one, 160 pieces of 64 KiB were 8 s late.
    while took.iter().all(|took| *took >= Duration::from_secs(4)) && took.len() < 5 {
        let mut stream = behind.connect().await;
        let begin = Instant::now();
        let back = through(&mut stream, &sent).await;
        assert!(back == sent, "{} of {} bytes came back, or others", back.len(), sent.len());
        took.push(begin.elapsed());
    }
    eprintln!("10 MiB there and back, 50 ms late: {took:?}");
    assert!(took.last().unwrap().as_secs() < 4, "{took:?}");
    behind.finish().await;
}

#[tokio::test]
async fn rate_is_kept_within_a_fifth() {
    const RATE: u64 = 1 << 20;
    let behind = Behind::new([(0, slow(0, Some(RATE), false, LONG_MS))]).await;
    behind.begin().await;
    // Both ways share the rate, so twice what is sent goes through.
    let sent = pattern(3 << 19);
    let mut rates = Vec::new();
    for _ in 0..3 {
        let mut stream = behind.connect().await;
        let begin = Instant::now();
        assert!(through(&mut stream, &sent).await == sent);
        let bytes = 2 * u32::try_from(sent.len()).unwrap();
        let rate = f64::from(bytes) / begin.elapsed().as_secs_f64() / f64::from(1 << 20);
        assert!(rate < 1.2, "{rate} of the rate");
        rates.push(rate);
        if rate > 0.8 {
            break;
        }
    }
    eprintln!("shares of the rate: {rates:?}");
    assert!(rates.iter().any(|rate| *rate > 0.8), "{rates:?} of the rate");
    let found = behind.finish().await;
    assert_eq!(found[0].what, "proxy store at 1048576 B/s for 600s");
}

#[tokio::test]
async fn cut_resets_what_is_open_refuses_what_is_new_and_ends() {
    let behind = Behind::new([(0, slow(0, None, true, LONG_MS))]).await;
    let mut stream = behind.connect().await;
    ping(&mut stream).await;
    behind.begin().await;
    let error = timeout(DEADLINE, stream.read(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // The listener is closed at about the same moment.
    let mut seen = None;
    for _ in 0..1000 {
        match TcpStream::connect(behind.address).await {
            Err(error) => {
                seen = Some(error.kind());
                break;
            }
            Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    assert_eq!(seen, Some(ErrorKind::ConnectionRefused));
    behind.cancel.cancel();
    let again = async {
        loop {
            if let Ok(mut stream) = TcpStream::connect(behind.address).await {
                ping(&mut stream).await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, again).await.unwrap();
    assert_eq!(behind.finish().await[0].what, "proxy store cut for 600s");
}

#[tokio::test]
async fn half_that_was_closed_is_closed_beyond_and_the_other_goes_on() {
    let behind = Behind::new([]).await;
    let mut stream = behind.connect().await;
    // The server answers the last byte only after it has seen the end.
    assert_eq!(through(&mut stream, b"to the end").await, b"to the end");
    behind.finish().await;
}

#[tokio::test]
async fn upstream_that_is_not_there_is_a_reset() {
    let unused = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let upstream = unused.local_addr().unwrap();
    drop(unused);
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    let proxies = [SlowProxy { name: "store".to_owned(), listen, upstream }];
    let chaos = Chaos::prepare(&[], &proxies).unwrap();
    chaos.start_proxies().unwrap();
    let mut stream = TcpStream::connect(chaos.proxy_address("store").unwrap()).await.unwrap();
    let error = timeout(DEADLINE, stream.read(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(chaos.finish().await.is_empty());
}

#[tokio::test]
async fn connections_beyond_the_limit_are_reset_and_counted() {
    // All four ends of each are in this process.
    let mut files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    files.current = files.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, files).unwrap();
    let behind = Behind::new([]).await;
    let mut open = Vec::new();
    for _ in 0..1024 {
        let mut stream = behind.connect().await;
        ping(&mut stream).await;
        open.push(stream);
    }
    assert_eq!(behind.chaos.refused_connections(), 0);
    let mut stream = behind.connect().await;
    let error = timeout(DEADLINE, stream.read(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(behind.chaos.refused_connections(), 1);
    ping(&mut open[0]).await;
    drop(open.pop());
    let again = async {
        loop {
            let mut stream = behind.connect().await;
            let asked = stream.write_all(&[7]).await.is_ok();
            // Its slot is free when both of its sides have ended.
            if asked && stream.read_exact(&mut [0]).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, again).await.unwrap();
    behind.finish().await;
}
