//! One worker: a thread with a runtime, listeners and an endpoint of its own.

use std::{
    io,
    net::{TcpListener as StdListener, UdpSocket},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use edge_quic::{SteeredSocket, WorkerEndpoint};
use quinn::crypto::rustls::QuicServerConfig;
use tokio::{net::TcpListener, runtime::Builder, time::interval};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{life::Lifecycle, limits::ListenerConfigs, quic, tcp};
use crate::{
    gateway::{Gateway, Worker},
    upstream::Upstream,
};

/// How often idle upstream connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How long a drained endpoint's peers have to take its last packets.
const QUIC_IDLE_WAIT: Duration = Duration::from_secs(3);

/// What a worker is started with.
pub(super) struct Sockets {
    pub(super) http: Option<StdListener>,
    pub(super) https: Option<StdListener>,
    pub(super) quic: Option<UdpSocket>,
}

/// What all workers are started with.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) gateway: Arc<Gateway>,
    pub(super) configs: Arc<ListenerConfigs>,
    pub(super) life: Lifecycle,
    pub(super) acceptor: Option<TlsAcceptor>,
    pub(super) quic_tls: Option<Arc<QuicServerConfig>>,
    pub(super) quic: Option<Arc<edge_quic::Shared>>,
    pub(super) admission: Arc<edge_quic::Admission>,
    /// The thread may end.
    pub(super) stop: CancellationToken,
}

/// A worker that runs.
pub(super) struct Running {
    pub(super) thread: thread::JoinHandle<()>,
    /// Starts and stops reading QUIC's packets.
    pub(super) socket: Option<Arc<SteeredSocket>>,
}

/// Starts a worker's thread; returns once it listens.
pub(super) fn start(index: usize, sockets: Sockets, setup: Setup) -> io::Result<Running> {
    let (ready_tx, ready_rx) = mpsc::sync_channel(1);
    let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = ready_tx.send(Err(error)); // the starter waits for it
                return;
            }
        };
        runtime.block_on(async move {
            match Listening::open(index, sockets, setup) {
                Ok(listening) => {
                    let socket = listening.quic.as_ref().map(|quic| Arc::clone(&quic.socket));
                    let _ = ready_tx.send(Ok(socket));
                    listening.run().await;
                }
                Err(error) => {
                    let _ = ready_tx.send(Err(error));
                }
            }
        });
    })?;
    match ready_rx.recv() {
        Ok(Ok(socket)) => Ok(Running { thread, socket }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other("the worker ended before it listened")),
    }
}

struct Listening {
    worker: Arc<Worker>,
    http: Option<TcpListener>,
    https: Option<TcpListener>,
    quic: Option<WorkerEndpoint>,
    setup: Setup,
}

impl Listening {
    fn open(index: usize, sockets: Sockets, setup: Setup) -> io::Result<Self> {
        let Sockets { http, https, quic } = sockets;
        let http = http.map(TcpListener::from_std).transpose()?;
        let https = https.map(TcpListener::from_std).transpose()?;
        let quic = match (quic, &setup.quic, &setup.quic_tls) {
            (Some(socket), Some(shared), Some(tls)) => {
                let number = u8::try_from(index).map_err(io::Error::other)?;
                let limits = &setup.configs.quic;
                Some(WorkerEndpoint::new(number, socket, shared, Arc::clone(tls), limits)?)
            }
            _ => None,
        };
        let gateway = Arc::clone(&setup.gateway);
        let upstream = Upstream::new(&gateway.limits);
        let telemetry = gateway.telemetry.worker(index);
        let worker = Arc::new(Worker { gateway, upstream, telemetry });
        Ok(Self { worker, http, https, quic, setup })
    }

    async fn run(self) {
        let Self { worker, http, https, quic, setup } = self;
        let life = &setup.life;
        let configs = &setup.configs;
        let listeners = [(http, None), (https, setup.acceptor.clone())];
        for (listener, acceptor) in listeners {
            let Some(listener) = listener else { continue };
            let (worker, configs) = (Arc::clone(&worker), Arc::clone(configs));
            let accepting = tcp::accept(listener, acceptor, worker, configs, life.clone());
            life.tasks.spawn(accepting);
        }
        if let Some(quic) = &quic {
            let accepting = quic::accept(
                quic.endpoint.clone(),
                Arc::clone(&worker),
                Arc::clone(configs),
                life.clone(),
                Arc::clone(&setup.admission),
            );
            life.tasks.spawn(accepting);
        }
        setup.stop.run_until_cancelled(upkeep(&worker)).await;
        if let Some(quic) = quic {
            quic.endpoint.close(quic::NO_ERROR, b"shutting down");
            let _ = tokio::time::timeout(QUIC_IDLE_WAIT, quic.endpoint.wait_idle()).await;
        }
    }
}

async fn upkeep(worker: &Worker) {
    let mut sweep = interval(SWEEP_EVERY);
    loop {
        sweep.tick().await;
        worker.upstream.pool().sweep();
        worker.gateway.guards.sweep();
    }
}
