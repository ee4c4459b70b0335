//! Start, limits, stop.

use std::{
    net::{Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use loadtest_server::{ServeError, Server, ServerConfig};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    client::{ALL, Client, PATIENCE, Proto, get},
    start,
};

async fn refusal(config: ServerConfig) -> ServeError {
    Server::start(config).await.expect_err("it is refused")
}

#[tokio::test]
async fn addresses_that_others_can_reach_are_refused() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let address: SocketAddr = address.parse().unwrap();
        for (clear, tls) in [(Some(address), None), (None, Some(address))] {
            let config = ServerConfig { h1_h2_clear: clear, tls, ..ServerConfig::default() };
            let error = refusal(config).await;
            assert!(matches!(error, ServeError::NotLoopback { .. }), "{error}");
            assert!(error.to_string().starts_with(&address.to_string()), "{error}");
        }
    }
}

#[tokio::test]
async fn nothing_to_listen_on_is_refused() {
    let config = ServerConfig { h1_h2_clear: None, tls: None, ..ServerConfig::default() };
    assert!(matches!(refusal(config).await, ServeError::Nowhere));
}

#[tokio::test]
async fn taken_ports_are_refused_by_their_address() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let config = ServerConfig { h1_h2_clear: Some(address), ..ServerConfig::default() };
    let error = refusal(config).await;
    assert_eq!(error.to_string(), format!("cannot listen on {address} (TCP)"));

    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = ServerConfig { tls: Some(address), ..ServerConfig::default() };
    let error = refusal(config).await.to_string();
    // Another program may have the same port of TCP.
    assert!(error.starts_with(&format!("cannot listen on {address} (")), "{error}");
}

#[tokio::test]
async fn one_listener_is_enough() {
    let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    // Without IPv6 there is nothing to try.
    if TcpListener::bind(loopback).await.is_err() {
        return;
    }
    let clear = Some(loopback);
    let config = ServerConfig { h1_h2_clear: clear, tls: None, ..ServerConfig::default() };
    let server = Server::start(config).await.unwrap();
    assert!(server.clear_address().unwrap().is_ipv6() && server.tls_address().is_none());
    assert_eq!(Client::new(&server, Proto::ClearH2).await.get("/").await.text(), "ok\n");
}

#[tokio::test]
async fn shutdown_ends_what_is_under_way_and_frees_the_ports() {
    let server = start().await;
    let config = ServerConfig {
        h1_h2_clear: server.clear_address(),
        tls: server.tls_address(),
        ..ServerConfig::default()
    };
    let mut waiting = Vec::new();
    for proto in ALL {
        let mut client = Client::new(&server, proto).await;
        assert_eq!(client.get("/").await.text(), "ok\n");
        waiting.push(tokio::spawn(async move { client.try_send(get("/delay?ms=59000")).await }));
    }
    sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    server.shutdown().await;
    for task in waiting {
        let answer = task.await.unwrap();
        assert!(answer.is_err(), "{answer:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    let again = Server::start(config.clone()).await.expect("the ports are free");
    assert_eq!((again.clear_address(), again.tls_address()), (config.h1_h2_clear, config.tls));
    assert_eq!(Client::new(&again, Proto::H3).await.get("/").await.text(), "ok\n");
}

#[tokio::test]
async fn a_dropped_server_stops() {
    let server = start().await;
    let address = server.clear_address().unwrap();
    drop(server);
    let stopped = async {
        while TcpStream::connect(address).await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, stopped).await.expect("nobody listens in the end");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let config = ServerConfig { max_connections: 1, ..ServerConfig::default() };
    let server = Server::start(config).await.unwrap();
    let mut first = Client::new(&server, Proto::ClearH1).await;
    assert_eq!(first.get("/").await.text(), "ok\n");
    let mut second = Client::new(&server, Proto::ClearH1).await;
    let early = timeout(Duration::from_millis(200), second.get("/")).await;
    assert!(early.is_err(), "{early:?}");
    drop(second);
    drop(first);
    let mut third = Client::new(&server, Proto::ClearH1).await;
    assert_eq!(third.get("/").await.text(), "ok\n");
}
