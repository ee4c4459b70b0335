//! HTTP/3 over QUIC.

use std::{
    future::poll_fn,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use bytes::{Buf, Bytes};
use h3_quinn::OpenStreams;
use http::{Request, Version};
use quinn::crypto::rustls::QuicClientConfig;

use super::{Head, Sink, Target};
use crate::failure::Failure;

/// One connection; requests go one after the other.
pub(super) struct Sender {
    connection: quinn::Connection,
    requests: h3::client::SendRequest<OpenStreams, Bytes>,
    // The endpoint carries the connection's packets for as long as it lives.
    _endpoint: quinn::Endpoint,
}

/// Connects.
pub(super) async fn open(target: &Target, address: SocketAddr) -> Result<Sender, Failure> {
    let to = format!("connect to {}:{} over QUIC", target.host, target.port);
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| Failure::local(to.clone(), e);
    let Some(tls) = &target.tls else { return Err(failed("HTTP/3 needs https".into())) };
    let mut tls = rustls::ClientConfig::clone(tls);
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = QuicClientConfig::try_from(tls).map_err(|e| failed(e.into()))?;
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let mut endpoint = quinn::Endpoint::client(any).map_err(|e| failed(e.into()))?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let connecting = endpoint.connect(address, &target.host).map_err(|e| failed(e.into()))?;
    let connection = connecting.await.map_err(|e| failed(e.into()))?;
    let (mut driver, requests) = h3::client::new(h3_quinn::Connection::new(connection.clone()))
        .await
        .map_err(|e| failed(e.into()))?;
    // Its errors reach us through the requests on the connection.
    tokio::spawn(async move { poll_fn(|context| driver.poll_close(context)).await });
    Ok(Sender { connection, requests, _endpoint: endpoint })
}

impl Sender {
    pub(super) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Bytes>,
        sink: &mut Sink<'_>,
    ) -> Result<Head, Failure> {
        let sending = |e| Failure::local("send the request", e);
        let reading = |e| Failure::local("read the answer", e);
        let (parts, body) = request.into_parts();
        let head = Request::from_parts(parts, ());
        let mut stream = self.requests.send_request(head).await.map_err(sending)?;
        if !body.is_empty() {
            stream.send_data(body).await.map_err(sending)?;
        }
        stream.finish().await.map_err(sending)?;
        let (parts, ()) = stream.recv_response().await.map_err(reading)?.into_parts();
        while let Some(mut data) = stream.recv_data().await.map_err(reading)? {
            sink(&data.copy_to_bytes(data.remaining()))?;
        }
        Ok(Head { status: parts.status, version: Version::HTTP_3, headers: parts.headers })
    }
}
