//! What does a proxy cost that is only libraries put together, the floor of `loadtest/edge`?
//!
//! ```text
//! bench_naive cert.pem key.pem 127.0.0.1:8443 127.0.0.1:9000
//! ```
//!
//! `hyper` and `h3` in front of `hyper`'s pooled client, on one thread: no limits, no guards, no
//! metrics, no log, nothing said of the client to the upstream.
#![allow(clippy::unwrap_used, reason = "a program for measurements: what fails ends it")]

use std::{error::Error, io, net::SocketAddr, sync::Arc};

use bytes::{Buf as _, Bytes};
use h3::{quic::BidiStream, server::RequestStream};
use http::{HeaderMap, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::{Body, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// As in the `edge` program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Pool = Client<HttpConnector, BoxBody<Bytes, io::Error>>;

/// Where requests go.
#[derive(Clone)]
struct Upstream {
    pool: Pool,
    authority: Arc<str>,
}

impl Upstream {
    async fn answer<B>(&self, request: Request<B>) -> io::Result<Response<Incoming>>
    where
        B: Body<Data = Bytes, Error: Error + Send + Sync> + Send + Sync + 'static,
    {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = Uri::builder().scheme("http").authority(&*self.authority).path_and_query(path);
        parts.uri = uri.build().map_err(io::Error::other)?;
        parts.version = http::Version::HTTP_11;
        remove_hop_by_hop(&mut parts.headers);
        let body = body.map_err(io::Error::other).boxed();
        let response = self.pool.request(Request::from_parts(parts, body)).await;
        let mut response = response.map_err(io::Error::other)?;
        remove_hop_by_hop(response.headers_mut());
        Ok(response)
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in [header::CONNECTION, header::TE, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
}

fn tls(cert: &str, key: &str, alpn: &[&[u8]]) -> ServerConfig {
    let chain = CertificateDer::pem_file_iter(cert).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

async fn serve_tcp(listener: TcpListener, acceptor: TlsAcceptor, upstream: Upstream) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).unwrap();
        let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request| {
                let upstream = upstream.clone();
                async move { upstream.answer(request).await }
            });
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await; // the client left
        });
    }
}

async fn serve_quic(endpoint: quinn::Endpoint, upstream: Upstream) {
    while let Some(incoming) = endpoint.accept().await {
        let upstream = upstream.clone();
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            let connection = h3_quinn::Connection::new(connection);
            let Ok(mut requests) = h3::server::Connection::new(connection).await else { return };
            while let Ok(Some(resolver)) = requests.accept().await {
                let upstream = upstream.clone();
                tokio::spawn(async move {
                    let Ok((request, stream)) = resolver.resolve_request().await else { return };
                    let _ = serve_h3(request, stream, &upstream).await; // the client left
                });
            }
        });
    }
}

async fn serve_h3<S: BidiStream<Bytes>>(
    request: Request<()>,
    mut stream: RequestStream<S, Bytes>,
    upstream: &Upstream,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut sent = Vec::new();
    while let Some(mut part) = stream.recv_data().await? {
        let length = part.remaining();
        sent.extend_from_slice(&part.copy_to_bytes(length));
    }
    let response = upstream.answer(request.map(|()| Full::new(Bytes::from(sent)))).await?;
    let (parts, mut body) = response.into_parts();
    stream.send_response(Response::from_parts(parts, ())).await?;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            stream.send_data(data).await?;
        }
    }
    Ok(stream.finish().await?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [cert, key, listen, authority] = args.as_slice() else {
        panic!("usage: bench_naive CERT KEY LISTEN UPSTREAM")
    };
    let listen: SocketAddr = listen.parse().unwrap();
    let upstream = Upstream {
        pool: Client::builder(TokioExecutor::new()).build_http(),
        authority: Arc::from(authority.as_str()),
    };
    let acceptor = TlsAcceptor::from(Arc::new(tls(cert, key, &[b"h2", b"http/1.1"])));
    let quic = QuicServerConfig::try_from(tls(cert, key, &[b"h3"])).unwrap();
    let quic = quinn::ServerConfig::with_crypto(Arc::new(quic));
    let endpoint = quinn::Endpoint::server(quic, listen).unwrap();
    let listener = TcpListener::bind(listen).await.unwrap();
    println!("listening");
    tokio::spawn(serve_quic(endpoint, upstream.clone()));
    serve_tcp(listener, acceptor, upstream).await;
}
