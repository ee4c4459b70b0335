//! A connection is drained: GOAWAY twice, what was accepted is answered, what comes later is not.

mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use edge_http3::{Config, RecvBody};
use http::{Request, Response};
use support::*;
use tokio::{net::UdpSocket, sync::Semaphore, time::timeout};

/// Answers once there is a permit.
fn held(gate: &Arc<Semaphore>) -> impl Fn(Request<RecvBody>) -> Answer + Clone + Send + 'static {
    let gate = Arc::clone(gate);
    move |_| {
        let gate = Arc::clone(&gate);
        Box::pin(async move {
            gate.acquire().await.expect("it is never closed").forget();
            Response::new(full(vec![7; 100_000]))
        })
    }
}

#[tokio::test]
async fn goaway_comes_twice_and_what_was_accepted_is_answered() {
    let gate = Arc::new(Semaphore::new(0));
    let mut server = Server::start(Config::default(), held(&gate));
    let raw = server.raw().await;
    let (mut send, first) = raw.quic.open_bi().await.unwrap();
    send.write_all(&headers(&GET)).await.unwrap();
    send.finish().unwrap();
    let mut control = raw.quic.accept_uni().await.unwrap();
    let mut seen = vec![0; 2];
    control.read_exact(&mut seen).await.unwrap();
    assert_eq!(seen, [0x00, 0x04], "control stream, settings");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    server.drain.cancel();
    let nobody = frame(7, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc]);
    let second = frame(7, &[4]);
    let both = [nobody, second].concat();
    while !seen.ends_with(&both) {
        let chunk = timeout(PATIENCE, control.read_chunk(1024, true)).await.unwrap().unwrap();
        seen.extend_from_slice(&chunk.expect("it stays open").bytes);
    }
    assert_eq!(raw.request(&headers(&GET)).await, Outcome::Reset(0x10b));
    assert_eq!(count(&server.counters.rejected), 1);
    gate.add_permits(1);
    assert_eq!(outcome(first).await.status(), b"200");
    assert_eq!(raw.closed().await, 0x100);
    let ended = server.ended().await.unwrap();
    assert_eq!((ended.graceful, ended.requests), (true, 1));
}

#[tokio::test]
async fn another_implementation_gets_its_answer_and_opens_no_more() {
    let gate = Arc::new(Semaphore::new(0));
    let mut server = Server::start(Config::default(), held(&gate));
    let mut client = server.h3().await;
    let mut stream = client.open("GET").await;
    stream.finish().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    server.drain.cancel();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    gate.add_permits(1);
    assert_eq!(stream.recv_response().await.unwrap().status(), 200);
    assert_eq!(read_all(&mut stream).await.len(), 100_000);
    assert!(server.ended().await.unwrap().graceful);
}

#[tokio::test]
async fn an_idle_connection_is_drained_at_once() {
    let gate = Arc::new(Semaphore::new(1));
    let mut server = Server::start(Config::default(), held(&gate));
    let raw = server.raw().await;
    server.drain.cancel();
    assert_eq!(raw.closed().await, 0x100);
    let ended = server.ended().await.unwrap();
    assert_eq!((ended.graceful, ended.requests), (true, 0));
}

/// Passes packets between one client and the server, those to the client only while it is open.
async fn relay(server: SocketAddr, open: Arc<AtomicBool>) -> SocketAddr {
    let near = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has ports");
    let far = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has ports");
    let address = near.local_addr().expect("it is bound");
    tokio::spawn(async move {
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((bytes, from)) = near.recv_from(&mut up) => {
                    client = Some(from);
                    let _ = far.send_to(&up[..bytes], server).await;
                }
                Ok((bytes, _)) = far.recv_from(&mut down) => {
                    if let (Some(client), true) = (client, open.load(Ordering::Relaxed)) {
                        let _ = near.send_to(&down[..bytes], client).await;
                    }
                }
            }
        }
    });
    address
}

#[tokio::test]
async fn a_small_answer_that_is_written_and_lost_before_a_drain_is_sent_again() {
    let mut server = Server::start(Config::default(), length);
    let open = Arc::new(AtomicBool::new(true));
    let quic = server.connect_by(relay(server.address, Arc::clone(&open)).await).await;
    let _control = open_uni(&quic, &[0x00, 0x04, 0x00]).await;
    let (mut send, mut first) = quic.open_bi().await.unwrap();
    send.write_all(&headers(&GET)).await.unwrap();
    send.finish().unwrap();
    timeout(PATIENCE, first.read_to_end(1000)).await.unwrap().unwrap();
    open.store(false, Ordering::Relaxed);
    let (mut send, recv) = quic.open_bi().await.unwrap();
    send.write_all(&headers(&GET)).await.unwrap();
    send.finish().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await; // answered
    server.drain.cancel();
    tokio::time::sleep(Duration::from_millis(1000)).await; // longer than a round trip or three
    open.store(true, Ordering::Relaxed);
    assert_eq!(outcome(recv).await.status(), b"200");
    let ended = server.ended().await.unwrap();
    assert_eq!((ended.graceful, ended.requests), (true, 2));
}

#[tokio::test]
async fn a_client_that_acknowledges_nothing_does_not_hold_up_a_drain_for_long() {
    let config = Config { ack_timeout: Duration::from_millis(300), ..Config::default() };
    let mut server = Server::start(config, length);
    let open = Arc::new(AtomicBool::new(true));
    let quic = server.connect_by(relay(server.address, Arc::clone(&open)).await).await;
    let (mut send, _recv) = quic.open_bi().await.unwrap();
    open.store(false, Ordering::Relaxed);
    send.write_all(&headers(&GET)).await.unwrap();
    send.finish().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await; // answered
    server.drain.cancel();
    let ended = timeout(Duration::from_secs(15), server.ended()).await.unwrap();
    assert!(ended.unwrap().graceful, "the transport's idle timeout is twice as long");
}
