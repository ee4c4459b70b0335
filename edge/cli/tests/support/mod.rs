//! A server that stands in for the edge: HTTP/1.1 and HTTP/2 over TLS, HTTP/3 over QUIC.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "only tests call it, and they want to fail loudly")]

use std::{
    path::Path,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;

/// A request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

type Answer = dyn Fn(&Seen) -> Response<Bytes> + Send + Sync;

/// The server, and the directory a client finds it by.
pub(crate) struct Fake {
    pub(crate) port: u16,
    pub(crate) dir: tempfile::TempDir,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// A JSON answer.
pub(crate) fn json(status: u16, body: impl ToString) -> Response<Bytes> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Bytes::from(body.to_string())).unwrap()
}

impl Fake {
    /// Serves `answer` on one port, TCP and UDP, and writes `dev.json` beside the certificate.
    pub(crate) async fn start(
        answer: impl Fn(&Seen) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = certificates(dir.path());
        let (tcp, udp) = same_port().await;
        let port = tcp.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Answer> = Arc::new(answer);
        let tls = |protocols: &[&[u8]]| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain.clone(), key.clone_key())
                .unwrap();
            config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
            config
        };
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls(&[b"h2", b"http/1.1"])));
        tokio::spawn(serve_tcp(tcp, acceptor, answer.clone(), seen.clone()));
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls(&[b"h3"])).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint =
            quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(config), udp, runtime);
        tokio::spawn(serve_quic(endpoint.unwrap(), answer, seen.clone()));
        let fake = Self { port, dir, seen };
        fake.write_dev_json();
        fake
    }

    fn write_dev_json(&self) {
        let dir = self.dir.path();
        std::fs::create_dir_all(dir.join("secrets")).unwrap();
        std::fs::write(dir.join("secrets/api_key"), "wr_secret\n").unwrap();
        let text = serde_json::json!({
            "api_url": format!("https://api.wrenn.localhost:{}", self.port),
            "domain": "wrenn.localhost",
            "ca_file": dir.join("tls/ca.pem"),
            "key_file": dir.join("secrets/api_key"),
            "admin_url": "http://127.0.0.1:1",
            "http_port": 1, "https_port": self.port, "rpc_port": 1, "proxy_port": 1,
            "wrenn_dir": dir, "pids": {},
        });
        std::fs::write(dir.join("dev.json"), text.to_string()).unwrap();
    }

    /// What came in so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Runs `wrenn` against this server.
    pub(crate) async fn wrenn(&self, args: &[&str]) -> Ran {
        let dev = self.dir.path().join("dev.json");
        let mut all = vec!["--dev-json", dev.to_str().unwrap()];
        all.extend(args);
        wrenn(&all).await
    }
}

/// How a run of `wrenn` ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Standard output as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Runs `wrenn`.
pub(crate) async fn wrenn(args: &[&str]) -> Ran {
    let run = tokio::process::Command::new(env!("CARGO_BIN_EXE_wrenn"))
        .args(args)
        .env_remove("WRENN_DIR")
        .env_remove("WRENN_API_URL")
        .env_remove("WRENN_API_KEY")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(Duration::from_secs(60), run).await;
    let Output { status, stdout, stderr } = ended.expect("wrenn should end").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
}

/// Writes `tls/ca.pem` and gives a chain for `*.wrenn.localhost` that it signed.
fn certificates(dir: &Path) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let issuer_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let names = ["*.wrenn.localhost", "*.fn.wrenn.localhost"].map(str::to_owned);
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    std::fs::create_dir_all(dir.join("tls")).unwrap();
    std::fs::write(dir.join("tls/ca.pem"), issuer_cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
    (vec![leaf.der().clone()], key)
}

async fn same_port() -> (TcpListener, std::net::UdpSocket) {
    for _ in 0..20 {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = std::net::UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (tcp, udp);
        }
    }
    panic!("no port is free for TCP and UDP")
}

async fn serve_tcp(
    listener: TcpListener,
    tls: tokio_rustls::TlsAcceptor,
    answer: Arc<Answer>,
    seen: Arc<Mutex<Vec<Seen>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, answer, seen) = (tls.clone(), answer.clone(), seen.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(move |request: Request<Incoming>| {
                let (answer, seen) = (answer.clone(), seen.clone());
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let response = note(&parts, body, &answer, &seen);
                    Ok::<_, std::convert::Infallible>(response.map(Full::new))
                }
            });
            let server = auto::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn serve_quic(endpoint: quinn::Endpoint, answer: Arc<Answer>, seen: Arc<Mutex<Vec<Seen>>>) {
    while let Some(incoming) = endpoint.accept().await {
        let (answer, seen) = (answer.clone(), seen.clone());
        tokio::spawn(async move {
            let connection = h3_quinn::Connection::new(incoming.await.unwrap());
            let mut connection: h3::server::Connection<_, Bytes> =
                h3::server::Connection::new(connection).await.unwrap();
            while let Ok(Some(resolver)) = connection.accept().await {
                let (request, mut stream) = resolver.resolve_request().await.unwrap();
                let mut body = BytesMut::new();
                while let Ok(Some(mut data)) = stream.recv_data().await {
                    body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
                }
                let (parts, ()) = request.into_parts();
                let response = note(&parts, body.freeze(), &answer, &seen);
                let (head, body) = response.into_parts();
                stream.send_response(Response::from_parts(head, ())).await.unwrap();
                stream.send_data(body).await.unwrap();
                stream.finish().await.unwrap();
            }
        });
    }
}

fn note(
    parts: &http::request::Parts,
    body: Bytes,
    answer: &Arc<Answer>,
    seen: &Arc<Mutex<Vec<Seen>>>,
) -> Response<Bytes> {
    let authority = parts.uri.authority().map(ToString::to_string);
    let header = parts.headers.get("host").and_then(|host| host.to_str().ok());
    let request = Seen {
        method: parts.method.clone(),
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        host: authority.or_else(|| header.map(str::to_owned)).unwrap_or_default(),
        headers: parts.headers.clone(),
        body,
    };
    let response = answer(&request);
    seen.lock().unwrap().push(request);
    response
}
