//! Does a connection live on when its packets arrive at another worker?
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_quic::{
    Admission, AdmissionLimits, Admit, ForwardSocket, QuicSecrets, Shared, SteerCounters,
    TransportLimits, WorkerEndpoint, bind_workers,
};
use support::{Keys, Request, SECRET, Worker, move_client};
use tokio::time::timeout;

struct Edge {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    address: SocketAddr,
}

fn edge(workers: u8, keys: &Keys) -> Edge {
    let sockets = bind_workers("127.0.0.1:0".parse().unwrap(), workers).unwrap();
    let address = sockets[0].local_addr().unwrap();
    let shared = Shared::new(QuicSecrets::derive(SECRET).unwrap(), 1, workers);
    let workers: Vec<_> = (0..)
        .zip(sockets)
        .map(|(worker, socket)| Worker::start(worker, socket, &shared, keys))
        .collect();
    for worker in &workers {
        worker.endpoint.socket.start_reading();
    }
    Edge { shared, workers, address }
}

async fn survives_moves(workers: u8) -> SteerCounters {
    let keys = Keys::new();
    let edge = edge(workers, &keys);
    let client = keys.client();
    let mut requests = Vec::new();
    for _ in 0..4 {
        requests.push(Request::open(&client, edge.address).await);
    }
    let mut homes = Vec::new();
    for request in &mut requests {
        homes.push(request.ping(100).await);
    }
    for _ in 0..12 {
        move_client(&client);
        for (request, home) in requests.iter_mut().zip(&homes) {
            assert_eq!(request.ping(5000).await, *home, "another worker answered");
        }
    }
    // One last move, and enough data that the kernel coalesces datagrams of several connections.
    move_client(&client);
    let large = requests.iter_mut().map(|request| request.ping(300_000));
    assert_eq!(futures::future::join_all(large).await, homes);
    drop(requests);
    let counters = edge.shared.counters();
    edge.workers.into_iter().for_each(Worker::join);
    counters
}

#[tokio::test]
async fn a_connection_survives_moves_to_the_other_of_two_workers() {
    let counters = survives_moves(2).await;
    assert!(counters.to_worker > 0 && counters.from_worker > 0, "{counters:?}");
    assert_eq!((counters.foreign, counters.malformed), (0, 0));
}

#[tokio::test]
async fn a_connection_survives_moves_among_four_workers() {
    let counters = survives_moves(4).await;
    assert!(counters.to_worker > 0 && counters.from_worker > 0, "{counters:?}");
    assert_eq!((counters.foreign, counters.malformed), (0, 0));
}

#[tokio::test]
async fn one_worker_steers_nothing() {
    let counters = survives_moves(1).await;
    assert!(counters.own > 0);
    assert_eq!((counters.to_worker, counters.worker_full, counters.foreign), (0, 0, 0));
}

#[tokio::test]
async fn foreign_packets_are_dropped_and_not_answered() {
    let keys = Keys::new();
    let edge = edge(2, &keys);
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for n in 0..20 {
        socket.send_to(&[0x40 | n; 200], edge.address).await.unwrap();
    }
    let deadline = Instant::now() + support::PATIENCE;
    while edge.shared.counters().foreign < 20 {
        assert!(Instant::now() < deadline, "{:?}", edge.shared.counters());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let answer = timeout(Duration::from_millis(100), socket.recv(&mut [0; 2000])).await;
    assert!(answer.is_err(), "a foreign packet was answered");
    edge.workers.into_iter().for_each(Worker::join);
}

#[tokio::test]
async fn nothing_is_read_before_reading_starts() {
    let keys = Keys::new();
    let socket = bind_workers("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
    let address = socket.local_addr().unwrap();
    let shared = Shared::new(QuicSecrets::derive(SECRET).unwrap(), 1, 1);
    let worker = Worker::start(0, socket, &shared, &keys);
    let client = keys.client();
    let connecting = client.connect(address, "localhost").unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(shared.counters(), SteerCounters::default());
    worker.endpoint.socket.start_reading();
    let connection = timeout(support::PATIENCE, connecting).await.unwrap().unwrap();
    assert!(shared.counters().own > 0);
    drop(connection);
    worker.join();
}

#[tokio::test]
async fn a_stopped_socket_reads_nothing_until_it_is_started_again() {
    let keys = Keys::new();
    let directory = tempfile::tempdir().unwrap();
    let edge = edge(2, &keys);
    let client = keys.client();
    let mut request = Request::open(&client, edge.address).await;
    let home = request.ping(10).await;
    let forward = ForwardSocket::bind(directory.path(), 1, 2).unwrap();
    for (n, worker) in (0..).zip(&edge.workers) {
        worker.endpoint.socket.stop_reading(forward.socket(n).unwrap());
    }
    let before = edge.shared.counters();
    let ping = async {
        tokio::join!(request.ping(10), async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(edge.shared.counters(), before, "a stopped socket was read");
            edge.workers.iter().for_each(|worker| worker.endpoint.socket.start_reading());
        })
    };
    assert_eq!(ping.await.0, home);
    drop(request);
    edge.workers.into_iter().for_each(Worker::join);
}

#[tokio::test]
async fn garbage_from_the_successor_is_counted_and_does_no_harm() {
    let keys = Keys::new();
    let directory = tempfile::tempdir().unwrap();
    let edge = edge(1, &keys);
    let forward = ForwardSocket::bind(directory.path(), 1, 1).unwrap();
    edge.workers[0].endpoint.socket.stop_reading(forward.socket(0).unwrap());
    let sender = tokio::net::UnixDatagram::unbound().unwrap();
    let path = &forward.elder().sockets[0];
    for garbage in [&b""[..], b"x", &[0xff; 52], &[0xff; 500], &[0; 500], &[1; 120_000]] {
        sender.send_to(garbage, path).await.unwrap();
    }
    let deadline = Instant::now() + support::PATIENCE;
    while edge.shared.counters().malformed < 6 {
        assert!(Instant::now() < deadline, "{:?}", edge.shared.counters());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(edge.shared.counters().from_successor, 0);
    edge.workers.into_iter().for_each(Worker::join);
}

#[tokio::test]
async fn under_load_a_client_is_asked_to_retry_and_then_accepted() {
    let keys = Keys::new();
    let socket = bind_workers("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
    let address = socket.local_addr().unwrap();
    let shared = Shared::new(QuicSecrets::derive(SECRET).unwrap(), 1, 1);
    let limits = TransportLimits { segmentation: false, ..TransportLimits::default() };
    let server = WorkerEndpoint::new(0, socket, &shared, keys.server(), &limits).unwrap();
    server.socket.start_reading();
    let admission = Admission::new(AdmissionLimits { per_address: 1, ..Default::default() });
    let accepting = async {
        let (mut retries, mut refused, mut kept) = (0, 0, Vec::new());
        while refused == 0 {
            let incoming = server.endpoint.accept().await.unwrap();
            match admission.admit(&incoming, 0.9) {
                Admit::Retry => {
                    retries += 1;
                    incoming.retry().unwrap();
                }
                Admit::Accept(permit) => kept.push((incoming.await.unwrap(), permit)),
                Admit::Refuse => {
                    refused += 1;
                    incoming.refuse();
                }
            }
        }
        (retries, kept.len(), admission.connections())
    };
    let client = keys.client();
    let connecting = async {
        let first = client.connect(address, "localhost").unwrap().await.unwrap();
        let second = client.connect(address, "localhost").unwrap().await;
        (first, second.is_err())
    };
    let both = async { tokio::join!(accepting, connecting) };
    let (served, (_first, second_failed)) = timeout(support::PATIENCE, both).await.unwrap();
    assert_eq!(served, (1, 1, 1));
    assert!(second_failed);
}
