//! A simple client of each protocol.

use std::{
    error::Error,
    future::poll_fn,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use loadtest_server::Server;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tokio_rustls::TlsConnector;

/// Longest for any single answer in these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proto {
    ClearH1,
    ClearH2,
    TlsH1,
    TlsH2,
    H3,
}

pub(crate) const ALL: [Proto; 5] =
    [Proto::ClearH1, Proto::ClearH2, Proto::TlsH1, Proto::TlsH2, Proto::H3];

impl Proto {
    pub(crate) fn is_h1(self) -> bool {
        matches!(self, Self::ClearH1 | Self::TlsH1)
    }
}

enum Sender {
    H1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    H2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
    H3(h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>),
}

/// One connection. Dropping it closes the connection.
pub(crate) struct Client {
    sender: Sender,
    _tasks: JoinSet<()>,
    _endpoint: Option<quinn::Endpoint>,
}

/// All of an answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    /// Whether the body came to its end.
    pub(crate) is_whole: bool,
    /// From before it was asked for to its head, and to its end.
    pub(crate) head_after: Duration,
    pub(crate) end_after: Duration,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// An entry of a `Server-Timing`.
pub(crate) fn timing(headers: &HeaderMap, name: &str) -> Duration {
    let text = headers["server-timing"].to_str().unwrap();
    let prefix = format!("{name};dur=");
    let found = text.split(", ").find_map(|entry| entry.strip_prefix(&prefix));
    Duration::from_secs_f64(found.expect(text).parse::<f64>().unwrap() / 1e3)
}

pub(crate) fn get(path: &str) -> Request<Bytes> {
    Request::get(path).body(Bytes::new()).unwrap()
}

pub(crate) fn tls(server: &Server, alpn: &[u8]) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

async fn tls_stream(
    server: &Server,
    alpn: &[u8],
) -> TokioIo<tokio_rustls::client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(server.tls_address().unwrap()).await.unwrap();
    let connector = TlsConnector::from(Arc::new(tls(server, alpn)));
    let stream = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
    TokioIo::new(stream)
}

async fn clear_stream(server: &Server) -> TokioIo<TcpStream> {
    let stream = TcpStream::connect(server.clear_address().unwrap()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    TokioIo::new(stream)
}

impl Client {
    pub(crate) async fn new(server: &Server, proto: Proto) -> Self {
        timeout(PATIENCE, Self::open(server, proto)).await.expect("it connects")
    }

    async fn open(server: &Server, proto: Proto) -> Self {
        use hyper::client::conn::{http1, http2};
        let (mut tasks, mut endpoint) = (JoinSet::new(), None);
        macro_rules! hyper {
            ($variant:ident, $handshake:expr) => {{
                let (sender, connection) = $handshake.await.unwrap();
                tasks.spawn(async { drop(connection.await) });
                Sender::$variant(sender)
            }};
        }
        let pool = TokioExecutor::new();
        let sender = match proto {
            Proto::ClearH1 => hyper!(H1, http1::handshake(clear_stream(server).await)),
            Proto::ClearH2 => hyper!(H2, http2::handshake(pool, clear_stream(server).await)),
            Proto::TlsH1 => hyper!(H1, http1::handshake(tls_stream(server, b"http/1.1").await)),
            Proto::TlsH2 => hyper!(H2, http2::handshake(pool, tls_stream(server, b"h2").await)),
            Proto::H3 => {
                let (ours, connection) = quic(server).await;
                endpoint = Some(ours);
                let transport = h3_quinn::Connection::new(connection);
                let (mut driver, sender) = h3::client::new(transport).await.unwrap();
                tasks.spawn(async move {
                    let _ = poll_fn(|context| driver.poll_close(context)).await;
                });
                Sender::H3(sender)
            }
        };
        Self { sender, _tasks: tasks, _endpoint: endpoint }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(get(path)).await
    }

    pub(crate) async fn send(&mut self, request: Request<Bytes>) -> Answer {
        self.try_send(request).await.expect("it is answered")
    }

    /// An error if there is no head.
    pub(crate) async fn try_send(&mut self, request: Request<Bytes>) -> Result<Answer, BoxError> {
        timeout(PATIENCE, self.exchange(request)).await.expect("it ends")
    }

    async fn exchange(&mut self, mut request: Request<Bytes>) -> Result<Answer, BoxError> {
        let begun = Instant::now();
        if matches!(self.sender, Sender::H1(_)) {
            request.headers_mut().insert("host", "localhost".parse()?);
        } else {
            let path = request.uri().path_and_query().unwrap().as_str();
            *request.uri_mut() = format!("https://localhost{path}").parse::<Uri>()?;
        }
        let response = match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await?;
                sender.send_request(request.map(Full::new)).await?
            }
            Sender::H2(sender) => {
                sender.ready().await?;
                sender.send_request(request.map(Full::new)).await?
            }
            Sender::H3(sender) => {
                let (head, body) = request.into_parts();
                let mut stream = sender.send_request(Request::from_parts(head, ())).await?;
                if !body.is_empty() {
                    stream.send_data(body).await?;
                }
                stream.finish().await?;
                let response = stream.recv_response().await?;
                let mut answer = begin(&response, begun);
                loop {
                    match stream.recv_data().await {
                        Ok(Some(mut data)) => {
                            answer.body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
                        }
                        Ok(None) => break answer.is_whole = true,
                        Err(_) => break,
                    }
                }
                answer.end_after = begun.elapsed();
                if answer.is_whole {
                    answer.trailers = stream.recv_trailers().await?;
                }
                return Ok(answer);
            }
        };
        Ok(collect(response, begun).await)
    }
}

fn begin<B>(response: &Response<B>, begun: Instant) -> Answer {
    Answer {
        status: response.status(),
        headers: response.headers().clone(),
        head_after: begun.elapsed(),
        ..Answer::default()
    }
}

async fn collect(mut response: Response<Incoming>, begun: Instant) -> Answer {
    let mut answer = begin(&response, begun);
    answer.is_whole = true;
    while let Some(frame) = response.body_mut().frame().await {
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => answer.body.extend_from_slice(&data),
            Ok(Err(frame)) => answer.trailers = frame.into_trailers().ok(),
            Err(_) => {
                // It would be said again and again.
                answer.is_whole = false;
                break;
            }
        }
    }
    answer.end_after = begun.elapsed();
    answer
}

async fn quic(server: &Server) -> (quinn::Endpoint, quinn::Connection) {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut endpoint = quinn::Endpoint::client(any).unwrap();
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls(server, b"h3")).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let connecting = endpoint.connect(server.tls_address().unwrap(), "localhost").unwrap();
    (endpoint, connecting.await.expect("a QUIC handshake"))
}
