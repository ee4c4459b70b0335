//! TCP connections: accepted, their PROXY header read, their TLS shaken hands for, then served.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::TryFutureExt as _;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    life::{Lifecycle, NoPlace, Place},
    limits::{Limit, ListenerConfigs},
    proxy_header, serve,
};
use crate::{
    config::ProxyProtocol,
    gateway::{ClientInfo, Protocol, Worker},
};

/// Pause after a failed `accept` (no descriptors left): others must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// ALPN of ACME's own handshakes (RFC 8737): they end with the handshake.
const ACME_ALPN: &[u8] = edge_tls::ACME_TLS_ALPN;

/// Accepts until drained.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    worker: Arc<Worker>,
    configs: Arc<ListenerConfigs>,
    life: Lifecycle,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = life.paused() => {
                if life.resumed().await {
                    continue;
                }
                return;
            }
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot accept");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = match life.place(peer.ip()) {
            Ok(place) => place,
            Err(why) => {
                configs.count(match why {
                    NoPlace::Full => Limit::Connections,
                    NoPlace::Address => Limit::ConnectionsPerAddress,
                });
                continue;
            }
        };
        let connection = Connection {
            peer,
            tls: tls.clone(),
            worker: Arc::clone(&worker),
            configs: Arc::clone(&configs),
            life: life.clone(),
            _place: place,
        };
        life.spawn(connection.run(stream));
    }
}

struct Connection {
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    worker: Arc<Worker>,
    configs: Arc<ListenerConfigs>,
    life: Lifecycle,
    _place: Place,
}

impl Connection {
    async fn run(mut self, stream: TcpStream) {
        let peer = self.peer;
        // A client that takes no bytes for so long is gone, whatever its TCP says.
        let silence = self.worker.gateway.limits.body_idle_timeout.as_millis();
        let silence_ms = u32::try_from(silence).unwrap_or(u32::MAX);
        if stream.set_nodelay(true).is_err()
            || setsockopt(&stream, sockopt::TcpUserTimeout, &silence_ms).is_err()
        {
            return tracing::debug!(%peer, "connection is gone");
        }
        let trust = &self.worker.gateway.trust;
        let is_trusted =
            trust.trusted_proxies.iter().any(|net| net.contains(&peer.ip().to_canonical()));
        let mut stream = stream;
        match (trust.proxy_protocol, is_trusted) {
            (ProxyProtocol::Off, _) | (ProxyProtocol::Trusted, false) => {}
            (ProxyProtocol::Required, false) => {
                return tracing::debug!(%peer, "a PROXY header is needed, from a trusted proxy");
            }
            (ProxyProtocol::Trusted | ProxyProtocol::Required, true) => {
                let wait = self.worker.gateway.limits.handshake_timeout;
                let read = Box::pin(timeout(wait, proxy_header::read(&mut stream))).await;
                match read {
                    Ok(Ok(Some(address))) => self.peer = address,
                    Ok(Ok(None)) => {}
                    Ok(Err(error)) => {
                        let error: &dyn std::error::Error = &error;
                        return tracing::debug!(%peer, error, "no PROXY header");
                    }
                    Err(_) => return tracing::debug!(%peer, "the PROXY header took too long"),
                }
            }
        }
        // Each stage is a future of its own on the heap: within one another they would all stay as
        // large as the largest for as long as the connection lives, and several times over.
        match self.tls.take() {
            Some(acceptor) => Box::pin(self.shake_hands(acceptor, stream)).await,
            None => Box::pin(self.serve(stream, None, None)).await,
        }
    }

    async fn shake_hands(self, acceptor: TlsAcceptor, stream: TcpStream) {
        let peer = self.peer;
        let wait = self.worker.gateway.limits.handshake_timeout;
        let shaken = Box::pin(timeout(wait, acceptor.accept(stream).map_ok(Box::new))).await;
        match shaken {
            Ok(Ok(stream)) => {
                let session = stream.get_ref().1;
                let sni = session.server_name().map(|name| Arc::from(name.to_ascii_lowercase()));
                let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
                self.configs.handshake(session.handshake_kind());
                Box::pin(self.serve(stream, Some(sni), alpn.as_deref())).await;
            }
            Ok(Err(error)) => {
                let tls = error.get_ref().and_then(|error| error.downcast_ref());
                self.configs.handshake_failed(tls);
                let error: &dyn std::error::Error = &error;
                tracing::debug!(%peer, error, "no TLS handshake");
            }
            Err(_) => {
                self.configs.count(Limit::Handshake);
                tracing::debug!(%peer, "the TLS handshake took too long");
            }
        }
    }

    /// `tls`: the host that was asked for, if it was; `None`: in the clear.
    async fn serve<I>(self, io: I, tls: Option<Option<Arc<str>>>, alpn: Option<&[u8]>)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let is_tls = tls.is_some();
        let sni = tls.flatten();
        let client = ClientInfo { peer: self.peer, protocol: Protocol::H1, tls: is_tls, sni };
        let Self { worker, configs, life, .. } = &self;
        match alpn {
            Some(ACME_ALPN) => {}
            Some(b"h2") => {
                let _open = configs.open(Protocol::H2);
                Box::pin(serve::h2(io, client, Arc::clone(worker), configs, life)).await;
            }
            _ => {
                let _open = configs.open(Protocol::H1);
                Box::pin(serve::h1(io, client, worker, configs, life)).await;
            }
        }
    }
}
