//! How does an edge that hands over look? The least of it: what the tests' processes run.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edge_quic::handover::{Handover, Named, Parcel, ReadyHandle, TakeError, take};
use edge_quic::{ForwardSocket, QuicSecrets, Shared, bind_workers};

use crate::support::{Keys, PATIENCE, SECRET, Worker};

/// Where the edge runs; if set, this process is one.
pub(crate) const DIRECTORY: &str = "WRENN_TEST_EDGE_DIRECTORY";
/// What it binds if nobody hands it sockets.
pub(crate) const ADDRESS: &str = "WRENN_TEST_EDGE_ADDRESS";
/// `serve`, or the way in which it fails.
pub(crate) const MANNER: &str = "WRENN_TEST_EDGE_MANNER";
/// Workers of each edge.
pub(crate) const WORKERS: u8 = 2;

/// What an edge starts with.
struct Start {
    parcel: Parcel,
    generation: u16,
    ready: Option<ReadyHandle>,
}

/// Takes over or binds, serves, hands over, drains, ends.
pub(crate) fn main(directory: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(edge(directory));
}

async fn edge(directory: &Path) {
    let path = directory.join("handover.sock");
    let manner = std::env::var(MANNER).unwrap();
    let start = begin(&path).await;
    if manner != "serve" {
        println!("{manner}");
        if manner == "die with the parcel" {
            std::process::abort();
        }
        std::process::exit(3);
    }
    let keys = Keys {
        certificate: std::fs::read(directory.join("certificate")).unwrap(),
        key: std::fs::read(directory.join("key")).unwrap(),
    };
    let secrets = QuicSecrets::derive(&start.parcel.secrets).unwrap();
    let shared = Shared::new(secrets, start.generation, WORKERS);
    let forward = ForwardSocket::bind(directory, start.generation, WORKERS).unwrap();
    for elder in start.parcel.elders {
        // One that ended meanwhile is no loss.
        let _ = shared.add_elder(elder);
    }
    let sockets: Vec<UdpSocket> = start.parcel.udp.into_iter().map(|udp| udp.socket).collect();
    let address = sockets[0].local_addr().unwrap();
    let copies: Vec<_> = sockets.iter().map(|socket| socket.try_clone().unwrap()).collect();
    let workers: Vec<_> =
        (0..).zip(sockets).map(|(n, socket)| Worker::start(n, socket, &shared, &keys)).collect();
    if let Some(ready) = start.ready {
        ready.ready().await.unwrap();
    }
    workers.iter().for_each(|worker| worker.endpoint.socket.start_reading());
    let handover = Handover::listen(&path).unwrap();
    println!("serving {} at {address}", start.generation);
    hand_over(handover, &shared, &forward, &copies, &workers).await;
    for worker in workers {
        let idle = worker.endpoint.endpoint.wait_idle();
        tokio::time::timeout(PATIENCE * 2, idle).await.unwrap();
        worker.join();
    }
}

async fn begin(path: &Path) -> Start {
    match take(path, PATIENCE).await {
        Ok(taken) => Start {
            generation: taken.parcel.next_generation(),
            parcel: taken.parcel,
            ready: Some(taken.ready),
        },
        Err(TakeError::NobodyThere) => {
            let address = std::env::var(ADDRESS).unwrap().parse().unwrap();
            let udp = (0..)
                .zip(bind_workers(address, WORKERS).unwrap())
                .map(|(worker, socket)| Named { name: "h3".to_owned(), worker, socket })
                .collect();
            let parcel = Parcel { udp, secrets: SECRET.to_vec(), ..Parcel::default() };
            Start { generation: 1, parcel, ready: None }
        }
        Err(error) => panic!("{error}"),
    }
}

/// Offers everything to one successor after the other until one takes it.
async fn hand_over(
    mut handover: Handover,
    shared: &Arc<Shared>,
    forward: &ForwardSocket,
    sockets: &[UdpSocket],
    workers: &[Worker],
) {
    loop {
        let offer = handover.next().await.ready_within(Duration::from_secs(20));
        let mut elders = shared.elders();
        elders.push(forward.elder().clone());
        let udp = (0..)
            .zip(sockets)
            .map(|(worker, socket)| Named {
                name: "h3".to_owned(),
                worker,
                socket: socket.try_clone().unwrap(),
            })
            .collect();
        let parcel = Parcel {
            generation: shared.generation(),
            udp,
            secrets: SECRET.to_vec(),
            elders,
            ..Parcel::default()
        };
        let Ok(committed) = offer.give(parcel).await else {
            println!("goes on");
            continue;
        };
        for (n, worker) in (0..).zip(workers) {
            worker.endpoint.socket.stop_reading(forward.socket(n).unwrap());
        }
        committed.released().await.unwrap();
        return;
    }
}
