//! A server on loopback, a client that writes bytes, and one that speaks HTTP/3 properly.

#![allow(clippy::unwrap_used, reason = "test code outside of test functions")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use edge_http3::{BoxError, Config, ConnectionError, Counters, Ended, RecvBody};
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

/// Longer than anything takes, on however busy a machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub type Body = UnsyncBoxBody<Bytes, BoxError>;
pub type Answer = BoxFuture<'static, Response<Body>>;

pub fn full(data: impl Into<Bytes>) -> Body {
    Full::new(data.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Reads the body and answers its length, or 400 with what was wrong.
pub fn length(request: Request<RecvBody>) -> Answer {
    Box::pin(async move {
        match request.into_body().collect().await {
            Ok(body) => Response::new(full(body.to_bytes().len().to_string())),
            Err(error) => {
                let mut response = Response::new(full(error.to_string()));
                *response.status_mut() = http::StatusCode::BAD_REQUEST;
                response
            }
        }
    })
}

pub struct Server {
    pub address: SocketAddr,
    pub drain: CancellationToken,
    pub counters: Arc<Counters>,
    pub ended: mpsc::Receiver<Result<Ended, ConnectionError>>,
    certificate: CertificateDer<'static>,
    endpoint: quinn::Endpoint,
}

impl Server {
    pub fn start(
        config: Config,
        service: impl Fn(Request<RecvBody>) -> Answer + Clone + Send + 'static,
    ) -> Self {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let quic = QuicServerConfig::try_from(tls).unwrap();
        let mut quic = quinn::ServerConfig::with_crypto(Arc::new(quic));
        if config.requests_open_max.is_some() {
            let mut transport = quinn::TransportConfig::default();
            transport.max_concurrent_bidi_streams(edge_http3::FIRST_REQUESTS.into());
            quic.transport_config(Arc::new(transport));
        }
        let endpoint = quinn::Endpoint::server(quic, "127.0.0.1:0".parse().unwrap()).unwrap();
        let counters = Arc::clone(&config.counters);
        let (drain, (report, ended)) = (CancellationToken::new(), mpsc::channel(8));
        let (config, accepting, draining) = (Arc::new(config), endpoint.clone(), drain.clone());
        tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                let (config, service) = (Arc::clone(&config), service.clone());
                let (drain, report) = (draining.clone().cancelled_owned(), report.clone());
                tokio::spawn(async move {
                    let connection = incoming.await.unwrap();
                    let ended = edge_http3::serve(connection, config, service, drain).await;
                    let _ = report.send(ended).await;
                });
            }
        });
        let address = endpoint.local_addr().unwrap();
        Self { address, drain, counters, ended, certificate, endpoint }
    }

    pub async fn connect(&self) -> quinn::Connection {
        self.connect_by(self.address).await
    }

    /// Connects to an address that leads here.
    pub async fn connect_by(&self, address: SocketAddr) -> quinn::Connection {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let quic = QuicClientConfig::try_from(tls).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(quic));
        let mut transport = quinn::TransportConfig::default();
        transport.send_window(256 * 1024);
        config.transport_config(Arc::new(transport));
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(config);
        let connecting = endpoint.connect(address, "a.test").unwrap();
        timeout(PATIENCE, connecting).await.unwrap().unwrap()
    }

    /// A connection whose control stream is open and says nothing special.
    pub async fn raw(&self) -> Raw {
        let quic = self.connect().await;
        let control = open_uni(&quic, &[0x00, 0x04, 0x00]).await;
        Raw { quic, control }
    }

    pub async fn h3(&self) -> H3 {
        let quic = self.connect().await;
        let connection = h3_quinn::Connection::new(quic.clone());
        let (mut driver, send) = h3::client::new(connection).await.unwrap();
        let driver = tokio::spawn(async move { driver.wait_idle().await });
        H3 { quic, send, driver }
    }

    /// How the connection ended.
    pub async fn ended(&mut self) -> Result<Ended, ConnectionError> {
        timeout(PATIENCE, self.ended.recv()).await.unwrap().unwrap()
    }
}

pub struct H3 {
    pub quic: quinn::Connection,
    pub send: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    pub driver: tokio::task::JoinHandle<h3::error::ConnectionError>,
}

pub type Stream = h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

impl H3 {
    pub async fn open(&mut self, method: &str) -> Stream {
        let request = Request::builder().method(method).uri("https://a.test/");
        self.send.send_request(request.body(()).unwrap()).await.unwrap()
    }
}

pub async fn read_all(stream: &mut Stream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(data) = timeout(PATIENCE, stream.recv_data()).await.unwrap().unwrap() {
        all.extend_from_slice(bytes::Buf::chunk(&data));
    }
    all
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Answer(Vec<u8>),
    Reset(u64),
    Closed(u64),
}

impl Outcome {
    pub fn status(&self) -> &[u8] {
        let Self::Answer(bytes) = self else { panic!("no answer: {self:?}") };
        match bytes[5] {
            0xd9 => b"200",
            _ => bytes.windows(3).find(|three| *three == b"431").unwrap_or(b"???"),
        }
    }
}

pub struct Raw {
    pub quic: quinn::Connection,
    pub control: quinn::SendStream,
}

impl Raw {
    /// Sends these bytes and FIN as a request.
    pub async fn request(&self, bytes: &[u8]) -> Outcome {
        let (mut send, recv) = self.quic.open_bi().await.unwrap();
        let _ = send.write_all(bytes).await; // it may be refused meanwhile
        let _ = send.finish();
        outcome(recv).await
    }

    /// The code that the server closes the connection with.
    pub async fn closed(&self) -> u64 {
        code_of(timeout(PATIENCE, self.quic.closed()).await.unwrap())
    }
}

pub async fn outcome(mut recv: quinn::RecvStream) -> Outcome {
    match timeout(PATIENCE, recv.read_to_end(1 << 20)).await.unwrap() {
        Ok(bytes) => Outcome::Answer(bytes),
        Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => {
            Outcome::Reset(code.into_inner())
        }
        Err(quinn::ReadToEndError::Read(quinn::ReadError::ConnectionLost(error))) => {
            Outcome::Closed(code_of(error))
        }
        Err(error) => panic!("{error}"),
    }
}

fn code_of(error: quinn::ConnectionError) -> u64 {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        error => panic!("{error}"),
    }
}

pub async fn open_uni(quic: &quinn::Connection, bytes: &[u8]) -> quinn::SendStream {
    let mut stream = quic.open_uni().await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// A frame.
pub fn frame(ty: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = announce(ty, payload.len() as u64);
    out.extend_from_slice(payload);
    out
}

/// A frame's type and length.
pub fn announce(ty: u64, length: u64) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    edge_http3::fuzzing::write_frame_header(ty, length, &mut out);
    out.to_vec()
}

/// A HEADERS frame of literals.
pub fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut section = vec![0, 0];
    for (name, value) in fields {
        prefixed(0x20, 3, name.len(), &mut section);
        section.extend_from_slice(name.as_bytes());
        prefixed(0x00, 7, value.len(), &mut section);
        section.extend_from_slice(value.as_bytes());
    }
    frame(1, &section)
}

/// RFC 7541 5.1.
fn prefixed(first: u8, bits: u32, value: usize, out: &mut Vec<u8>) {
    let max = (1 << bits) - 1;
    if value < max {
        return out.push(first | u8::try_from(value).unwrap());
    }
    out.push(first | u8::try_from(max).unwrap());
    let mut rest = value - max;
    while rest >= 128 {
        out.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    out.push(u8::try_from(rest).unwrap());
}

pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/")];

pub const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "https"), (":authority", "a.test"), (":path", "/")];

pub fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
