//! What do the tests run certificates with: listeners, clients and a test authority?
#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]
#![allow(dead_code, reason = "each test program uses a part")]

pub(crate) mod advisor;
pub(crate) mod dns;
pub(crate) mod pebble;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use edge_tls::Certs;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, HandshakeKind, NamedGroup, RootCertStore, client::Resumption, crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A test authority in memory.
pub(crate) struct Ca {
    pub(crate) pem: String,
    params: CertificateParams,
    key: KeyPair,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, params, key }
    }

    /// Certificate and key for names.
    pub(crate) fn sign(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        self.sign_params(CertificateParams::new(names).unwrap())
    }

    pub(crate) fn sign_params(&self, params: CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Writes certificate and key as `<stem>.pem` and `<stem>.key`.
    pub(crate) fn write(&self, dir: &Path, stem: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        use std::os::unix::fs::PermissionsExt as _;
        let (cert, key) = self.sign(names);
        let paths = (dir.join(format!("{stem}.pem")), dir.join(format!("{stem}.key")));
        std::fs::write(&paths.1, key).unwrap();
        std::fs::set_permissions(&paths.1, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&paths.0, cert).unwrap();
        paths
    }
}

/// A client that trusts the certificates of a PEM text, and resumes no sessions: then it would see
/// no certificate.
pub(crate) fn client(roots_pem: &str) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(roots_pem))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// The certificates of a PEM text.
pub(crate) fn roots(roots_pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(roots_pem.as_bytes()) {
        roots.add(cert.unwrap()).unwrap();
    }
    roots
}

/// What a client saw of a handshake.
pub(crate) struct Seen {
    pub(crate) leaf: Vec<u8>,
    pub(crate) kind: HandshakeKind,
    pub(crate) group: Option<NamedGroup>,
    pub(crate) stream: tokio_rustls::client::TlsStream<TcpStream>,
}

/// Connects, checks the certificate and reads the greeting.
pub(crate) async fn connect(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<Seen> {
    let work = async {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
        let mut greeting = [0; 2];
        stream.read_exact(&mut greeting).await?;
        let session = stream.get_ref().1;
        let leaf = session.peer_certificates().map(|chain| chain[0].to_vec()).unwrap_or_default();
        let group = session.negotiated_key_exchange_group().map(|group| group.name());
        Ok(Seen { leaf, kind: session.handshake_kind().unwrap(), group, stream })
    };
    timeout(PATIENCE, work).await.unwrap()
}

/// The TLS listener of an edge in small: greets with `ok`, then echoes.
pub(crate) fn serve_tls(certs: &Arc<Certs>, listener: TcpListener) -> AbortOnDropHandle<()> {
    let acceptor = TlsAcceptor::from(Arc::new(certs.tcp_config().unwrap()));
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            open.spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                if stream.get_ref().1.alpn_protocol() == Some(edge_tls::ACME_TLS_ALPN) {
                    let _ = stream.shutdown().await;
                    return;
                }
                if stream.write_all(b"ok").await.is_ok() {
                    let (mut read, mut write) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                }
            });
        }
    }))
}

/// The plain listener of an edge in small: answers challenges and nothing else.
pub(crate) fn serve_http(certs: &Arc<Certs>, listener: TcpListener) -> AbortOnDropHandle<()> {
    let answers = certs.http01();
    AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let (mut path, mut host) = (String::new(), String::new());
            loop {
                let mut line = String::new();
                let read = stream.read_line(&mut line).await.unwrap_or(0);
                if let Some(rest) = line.strip_prefix("GET ") {
                    path = rest.split(' ').next().unwrap().to_owned();
                } else if let Some(rest) = line.strip_prefix("Host: ") {
                    host = rest.trim().to_owned();
                }
                if read <= 2 {
                    break;
                }
            }
            let answer = match answers.answer(&host, &path) {
                Some(body) => format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                ),
                None => "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                    .to_owned(),
            };
            let _ = stream.get_mut().write_all(answer.as_bytes()).await;
        }
    }))
}

/// Certificates with their listeners and their worker.
pub(crate) struct Running {
    pub(crate) certs: Arc<Certs>,
    pub(crate) tls: SocketAddr,
    pub(crate) cancel: CancellationToken,
    pub(crate) worker: tokio::task::JoinHandle<()>,
    _listeners: Vec<AbortOnDropHandle<()>>,
}

impl Running {
    pub(crate) fn start(certs: &Arc<Certs>, tls: TcpListener, http: Option<TcpListener>) -> Self {
        let address = tls.local_addr().unwrap();
        let mut listeners = vec![serve_tls(certs, tls)];
        listeners.extend(http.map(|http| serve_http(certs, http)));
        let cancel = CancellationToken::new();
        let worker = tokio::spawn(Arc::clone(certs).run(cancel.clone()));
        let certs = Arc::clone(certs);
        Self { certs, tls: address, cancel, worker, _listeners: listeners }
    }

    /// Ends the worker and frees the listeners.
    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        timeout(PATIENCE, self.worker).await.unwrap().unwrap();
    }
}

pub(crate) async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Tries until it yields something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
