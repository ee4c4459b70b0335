//! What does every test of the endpoints need: keys, a server that says who it is, a client?
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]
#![allow(dead_code, reason = "each test program uses a part")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use edge_quic::{Shared, TransportLimits, WorkerEndpoint};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::time::timeout;

/// More than enough for anything here, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Installation secret of all test edges.
pub(crate) const SECRET: &[u8] = b"the secret of the tests' installation";

/// A self-signed certificate of `localhost`.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Self { certificate: made.cert.der().to_vec(), key: made.signing_key.serialize_der() }
    }

    pub(crate) fn server(&self) -> Arc<QuicServerConfig> {
        let chain = vec![CertificateDer::from(self.certificate.clone())];
        let key = PrivatePkcs8KeyDer::from(self.key.clone()).into();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(QuicServerConfig::try_from(tls).unwrap())
    }

    /// A client's endpoint, on a port of its own.
    pub(crate) fn client(&self) -> Endpoint {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(self.certificate.clone())).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(PATIENCE.try_into().unwrap()));
        config.transport_config(Arc::new(transport));
        let mut client = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        client.set_default_client_config(config);
        client
    }
}

/// One worker: a thread with a runtime of its own.
pub(crate) struct Worker {
    pub(crate) endpoint: WorkerEndpoint,
    stop: tokio::sync::oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts it; it reads once [`edge_quic::SteeredSocket::start_reading`] is called.
    pub(crate) fn start(worker: u8, socket: UdpSocket, shared: &Arc<Shared>, keys: &Keys) -> Self {
        let (shared, tls) = (Arc::clone(shared), keys.server());
        let (give, made) = mpsc::sync_channel(1);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let limits = TransportLimits { idle: PATIENCE, ..TransportLimits::default() };
                let endpoint = WorkerEndpoint::new(worker, socket, &shared, tls, &limits).unwrap();
                give.send(endpoint.clone()).unwrap();
                let who = identity(shared.generation(), worker);
                tokio::select! {
                    () = serve(&endpoint.endpoint, who) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { endpoint: made.recv().unwrap(), stop, thread }
    }

    pub(crate) fn join(self) {
        let _ = self.stop.send(());
        self.thread.join().unwrap();
    }
}

/// Who answered: generation, worker, process.
pub(crate) type Identity = [u8; 8];

pub(crate) fn identity(generation: u16, worker: u8) -> Identity {
    let mut identity = [0; 8];
    identity[..2].copy_from_slice(&generation.to_be_bytes());
    identity[2] = worker;
    identity[4..].copy_from_slice(&std::process::id().to_be_bytes());
    identity
}

pub(crate) fn generation(identity: Identity) -> u16 {
    u16::from_be_bytes([identity[0], identity[1]])
}

async fn serve(endpoint: &Endpoint, who: Identity) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((send, recv)) = connection.accept_bi().await {
                tokio::spawn(answer(send, recv, who));
            }
        });
    }
}

/// Answers each message with who we are and the message.
async fn answer(mut send: SendStream, mut recv: RecvStream, who: Identity) {
    loop {
        let mut len = [0; 4];
        if recv.read_exact(&mut len).await.is_err() {
            break;
        }
        let mut message = vec![0; u32::from_be_bytes(len) as usize];
        if recv.read_exact(&mut message).await.is_err() || send.write_all(&who).await.is_err() {
            break;
        }
        if send.write_all(&message).await.is_err() {
            break;
        }
    }
}

/// A request that runs for as long as the test wants.
pub(crate) struct Request {
    pub(crate) connection: Connection,
    send: SendStream,
    recv: RecvStream,
}

impl Request {
    pub(crate) async fn open(client: &Endpoint, address: SocketAddr) -> Self {
        let connecting = client.connect(address, "localhost").unwrap();
        let connection = timeout(PATIENCE, connecting).await.unwrap().unwrap();
        let (send, recv) = connection.open_bi().await.unwrap();
        Self { connection, send, recv }
    }

    /// Sends `len` bytes there and back; says who answered.
    pub(crate) async fn ping(&mut self, len: usize) -> Identity {
        timeout(PATIENCE, self.try_ping(len)).await.expect("no answer in time").unwrap()
    }

    pub(crate) async fn try_ping(&mut self, len: usize) -> Result<Identity, String> {
        let message: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let size = u32::try_from(len).unwrap().to_be_bytes();
        let (mut who, mut back) = ([0; 8], vec![0; len]);
        let (send, recv) = (&mut self.send, &mut self.recv);
        let sending = async {
            send.write_all(&size).await.map_err(|e| e.to_string())?;
            send.write_all(&message).await.map_err(|e| e.to_string())
        };
        let receiving = async {
            recv.read_exact(&mut who).await.map_err(|e| e.to_string())?;
            recv.read_exact(&mut back).await.map_err(|e| e.to_string())
        };
        tokio::try_join!(sending, receiving)?;
        assert_eq!(back, message, "the answer is another one");
        Ok(who)
    }
}

/// A new address for all of the client's connections.
pub(crate) fn move_client(client: &Endpoint) {
    client.rebind(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
}
