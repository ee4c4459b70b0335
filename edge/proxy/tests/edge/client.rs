//! One client over three protocols.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use edge_proxy::{Body, BoxError};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::stack::{DOMAIN, Stack};

/// Longest any single answer may take in these tests.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proto {
    /// HTTP/1.1 in the clear.
    Plain,
    /// HTTP/1.1 over TLS.
    H1,
    H2,
    H3,
}

pub(crate) const ENCRYPTED: [Proto; 3] = [Proto::H1, Proto::H2, Proto::H3];
pub(crate) const ALL: [Proto; 4] = [Proto::Plain, Proto::H1, Proto::H2, Proto::H3];

enum Sender {
    H1(hyper::client::conn::http1::SendRequest<Body>),
    H2(hyper::client::conn::http2::SendRequest<Body>),
    H3(h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>),
}

/// One connection. Dropping it closes the connection.
pub(crate) struct Client {
    sender: Sender,
    tasks: JoinSet<()>,
    quic: Option<(quinn::Endpoint, quinn::Connection)>,
    https: bool,
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some((endpoint, connection)) = &self.quic {
            connection.close(0x100_u32.into(), b"");
            endpoint.close(0x100_u32.into(), b"");
        }
    }
}

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that doesn't say how long it is.
pub(crate) fn unsized_body(bytes: Vec<u8>) -> Body {
    let frames = [Ok::<_, BoxError>(Frame::data(Bytes::from(bytes)))];
    BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(frames)))
}

pub(crate) fn get(host: &str, path: &str) -> Request<Body> {
    Request::get(path).header("host", host).body(empty()).unwrap()
}

pub(crate) fn post(host: &str, path: &str, body: Body) -> Request<Body> {
    Request::post(path).header("host", host).body(body).unwrap()
}

pub(crate) async fn text(response: Response<Body>) -> String {
    let body = timeout(PATIENCE, response.into_body().collect()).await.expect("the body ends");
    String::from_utf8(body.expect("the body is whole").to_bytes().to_vec()).unwrap()
}

/// What reached the guest.
pub(crate) async fn seen(client: &mut Client, request: Request<Body>) -> serde_json::Value {
    let response = client.send(request).await;
    assert_eq!(response.status(), 200);
    serde_json::from_str(&text(response).await).unwrap()
}

/// An error's status and code.
pub(crate) async fn code(response: Response<Body>) -> (u16, String) {
    let status = response.status().as_u16();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(body["request_id"], id.as_str());
    assert!(!body["message"].as_str().unwrap().is_empty());
    (status, body["code"].as_str().unwrap().to_owned())
}

fn tls(stack: &Stack, alpn: &[u8]) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(stack.roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

pub(crate) async fn tls_stream(
    stack: &Stack,
    alpn: &[u8],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    tls_over(stack, TcpStream::connect(stack.https).await.unwrap(), alpn).await
}

/// Connects from an address of this host.
pub(crate) async fn tcp_from(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// TLS on a connection to the edge that is there already.
pub(crate) async fn tls_over(
    stack: &Stack,
    stream: TcpStream,
    alpn: &[u8],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let name = format!("hello.fn.{DOMAIN}").try_into().unwrap();
    let connector = TlsConnector::from(Arc::new(tls(stack, alpn)));
    connector.connect(name, stream).await.expect("the certificate covers functions")
}

impl Client {
    pub(crate) async fn new(stack: &Stack, proto: Proto) -> Self {
        Self::from(stack, proto, Ipv4Addr::LOCALHOST).await
    }

    /// The same from another address of this host.
    pub(crate) async fn from(stack: &Stack, proto: Proto, from: Ipv4Addr) -> Self {
        let mut tasks = JoinSet::new();
        let mut quic = None;
        let sender = match proto {
            Proto::Plain => {
                let io = TokioIo::new(tcp_from(from, stack.http).await);
                let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                tasks.spawn(async { drop(connection.await) });
                Sender::H1(sender)
            }
            Proto::H1 => {
                let io = TokioIo::new(
                    tls_over(stack, tcp_from(from, stack.https).await, b"http/1.1").await,
                );
                let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                tasks.spawn(async { drop(connection.await) });
                Sender::H1(sender)
            }
            Proto::H2 => {
                let io =
                    TokioIo::new(tls_over(stack, tcp_from(from, stack.https).await, b"h2").await);
                let (sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
                tasks.spawn(async { drop(connection.await) });
                Sender::H2(sender)
            }
            Proto::H3 => {
                let (endpoint, connecting) = quic_from(stack, from).await;
                let connection = connecting.expect("a QUIC handshake");
                let transport = h3_quinn::Connection::new(connection.clone());
                let (mut driver, sender) = h3::client::new(transport).await.unwrap();
                tasks.spawn(async move {
                    let _ = std::future::poll_fn(|cx| driver.poll_close(cx)).await;
                });
                quic = Some((endpoint, connection));
                Sender::H3(sender)
            }
        };
        Self { sender, tasks, quic, https: proto != Proto::Plain }
    }

    /// Sends a request whose `host` says where; HTTP/2 and HTTP/3 put it into `:authority`.
    pub(crate) async fn send(&mut self, request: Request<Body>) -> Response<Body> {
        self.try_send(request).await.unwrap()
    }

    /// The same, but no answer is an answer too.
    pub(crate) async fn try_send(
        &mut self,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, BoxError> {
        if !matches!(self.sender, Sender::H1(_)) {
            let host = request.headers_mut().remove("host").unwrap();
            let path = request.uri().path_and_query().unwrap().clone();
            *request.uri_mut() = http::Uri::builder()
                .scheme(if self.https { "https" } else { "http" })
                .authority(host.as_bytes())
                .path_and_query(path)
                .build()
                .unwrap();
        }
        timeout(PATIENCE, self.exchange(request)).await.expect("an answer begins")
    }

    /// As `send`, but an error is an answer too.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Body>, BoxError> {
        let boxed = |response: Response<hyper::body::Incoming>| {
            response.map(|body| body.map_err(Into::into).boxed_unsync())
        };
        match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await?;
                Ok(boxed(sender.send_request(request).await?))
            }
            Sender::H2(sender) => {
                sender.ready().await?;
                Ok(boxed(sender.send_request(request).await?))
            }
            Sender::H3(sender) => {
                let (head, mut body) = request.into_parts();
                let stream = sender.send_request(Request::from_parts(head, ())).await?;
                let (mut send, mut recv) = stream.split();
                self.tasks.spawn(async move {
                    while let Some(frame) = body.frame().await {
                        let Ok(frame) = frame else {
                            return send.stop_stream(h3::error::Code::H3_REQUEST_CANCELLED);
                        };
                        let sent = match frame.into_data() {
                            Ok(data) => send.send_data(data).await,
                            Err(frame) => send.send_trailers(frame.into_trailers().unwrap()).await,
                        };
                        if sent.is_err() {
                            return;
                        }
                    }
                    let _ = send.finish().await;
                });
                let response = recv.recv_response().await?;
                let frames = futures::stream::unfold(Some(recv), h3_frame);
                Ok(response.map(|()| BodyExt::boxed_unsync(StreamBody::new(Box::pin(frames)))))
            }
        }
    }
}

type H3Recv = h3::client::RequestStream<h3_quinn::RecvStream, Bytes>;

async fn h3_frame(
    recv: Option<H3Recv>,
) -> Option<(Result<Frame<Bytes>, BoxError>, Option<H3Recv>)> {
    let mut recv = recv?;
    match recv.recv_data().await {
        Ok(Some(mut data)) => {
            let bytes = data.copy_to_bytes(data.remaining());
            Some((Ok(Frame::data(bytes)), Some(recv)))
        }
        Ok(None) => match recv.recv_trailers().await {
            Ok(trailers) => trailers.map(|trailers| (Ok(Frame::trailers(trailers)), None)),
            Err(error) => Some((Err(error.into()), None)),
        },
        Err(error) => Some((Err(error.into()), None)),
    }
}

pub(crate) async fn quic_connect(stack: &Stack) -> (quinn::Endpoint, quinn::Connection) {
    let (endpoint, connection) = quic_from(stack, Ipv4Addr::LOCALHOST).await;
    (endpoint, connection.expect("a QUIC handshake"))
}

/// Connects from an address of this host, if the edge lets it.
pub(crate) async fn quic_from(
    stack: &Stack,
    from: Ipv4Addr,
) -> (quinn::Endpoint, Result<quinn::Connection, quinn::ConnectionError>) {
    let mut endpoint = quinn::Endpoint::client(SocketAddr::from((from, 0))).unwrap();
    let config = tls(stack, b"h3");
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let name = format!("hello.fn.{DOMAIN}");
    let connection = endpoint.connect(stack.quic, &name).unwrap().await;
    (endpoint, connection)
}
