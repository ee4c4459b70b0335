//! Servers: one that echoes, over every protocol, and one that says what a test wants.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use loadtest_wire::{Guard, Origin};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// Ample on a machine that is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A certificate for `localhost` and who trusts it.
pub(crate) struct Identity {
    server: ServerConfig,
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) pem: String,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { server, client: Arc::new(client), pem: made.cert.pem() }
    }

    fn serves(&self, alpn: &[&str]) -> ServerConfig {
        let mut config = self.server.clone();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

pub(crate) fn plain(address: SocketAddr) -> Origin {
    Origin::new("localhost", address.port(), None, Guard::default())
}

pub(crate) fn secure(address: SocketAddr, identity: &Identity) -> Origin {
    let client = Arc::clone(&identity.client);
    Origin::new("localhost", address.port(), Some(client), Guard::default())
}

/// Hands each connection to `serve`.
pub(crate) async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Reads the head of a request.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Echoes in the clear: HTTP/1.1, or HTTP/2 without being asked.
pub(crate) async fn echo_plain(h2: bool) -> SocketAddr {
    listen(move |stream| serve(stream, h2)).await
}

/// Echoes over TLS what was agreed on.
pub(crate) async fn echo_tls(identity: &Identity, alpn: &[&str]) -> SocketAddr {
    let acceptor = TlsAcceptor::from(Arc::new(identity.serves(alpn)));
    listen(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                serve(stream, h2).await;
            }
        }
    })
    .await
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, h2: bool) {
    let stream = TokioIo::new(stream);
    // How a connection ends is for the client to tell.
    let _ = if h2 {
        let executor = TokioExecutor::new();
        http2::Builder::new(executor).serve_connection(stream, service_fn(echo)).await
    } else {
        http1::Builder::new().serve_connection(stream, service_fn(echo)).await
    };
}

/// The body comes back as it comes, or `/bytes/N` so many.
async fn echo(
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>, Infallible> {
    let mut response = Response::builder().header("x-said", said(&request));
    for (name, value) in request.headers().iter().filter(|(name, _)| *name == "x-nonce") {
        response = response.header(name, value);
    }
    let asked = request.uri().path().strip_prefix("/bytes/").map(|n| n.parse().unwrap());
    let body = match asked {
        Some(bytes) => Full::from(vec![b'x'; bytes]).map_err(|never| match never {}).boxed(),
        None => request.into_body().boxed(),
    };
    Ok(response.body(body).unwrap())
}

fn said<T>(request: &Request<T>) -> String {
    let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
    let host = host.or_else(|| request.uri().authority().map(ToString::to_string));
    format!("{} {} {}", request.method(), host.unwrap_or_default(), request.uri().path())
}

/// Echoes over QUIC.
pub(crate) async fn echo_quic(identity: &Identity, alpn: &[&str]) -> (SocketAddr, quinn::Endpoint) {
    let crypto = QuicServerConfig::try_from(identity.serves(alpn)).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap();
    let address = endpoint.local_addr().unwrap();
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            tokio::spawn(async move {
                if let Ok(connection) = incoming.await {
                    serve_h3(connection).await;
                }
            });
        }
    });
    (address, endpoint)
}

async fn serve_h3(connection: quinn::Connection) {
    let connection = h3_quinn::Connection::new(connection);
    let mut connection = h3::server::Connection::<_, Bytes>::new(connection).await.unwrap();
    while let Ok(Some(resolver)) = connection.accept().await {
        tokio::spawn(async move {
            let (request, mut stream) = resolver.resolve_request().await.unwrap();
            let response = Response::builder().header("x-said", said(&request)).body(()).unwrap();
            let _ = stream.send_response(response).await;
            if let Some(bytes) = request.uri().path().strip_prefix("/bytes/") {
                let body = vec![b'x'; bytes.parse().unwrap()];
                let _ = stream.send_data(Bytes::from(body)).await;
            }
            if request.uri().path() == "/stop" {
                stream.stop_stream(h3::error::Code::H3_INTERNAL_ERROR);
                return;
            }
            while let Ok(Some(mut piece)) = stream.recv_data().await {
                let piece = piece.copy_to_bytes(piece.remaining());
                if stream.send_data(piece).await.is_err() {
                    return;
                }
            }
            let _ = stream.finish().await;
        });
    }
}
