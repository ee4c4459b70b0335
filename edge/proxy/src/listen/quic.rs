//! QUIC connections: admitted, shaken hands for, then served as HTTP/3.

use std::sync::Arc;

use edge_quic::{Admission, Admit, Permit};
use quinn::{Incoming, VarInt, crypto::rustls::HandshakeData};
use tokio::time::timeout;

use super::{
    life::{Lifecycle, NoPlace, Place},
    limits::{Limit, ListenerConfigs},
    serve,
};
use crate::gateway::{ClientInfo, Protocol, Worker};

/// `H3_NO_ERROR` (RFC 9114 8.1).
pub(super) const NO_ERROR: VarInt = VarInt::from_u32(0x100);

/// Accepts until drained.
pub(super) async fn accept(
    endpoint: quinn::Endpoint,
    worker: Arc<Worker>,
    configs: Arc<ListenerConfigs>,
    life: Lifecycle,
    admission: Arc<Admission>,
) {
    loop {
        let incoming = tokio::select! {
            biased;
            () = life.paused() => {
                if life.resumed().await {
                    continue;
                }
                break;
            }
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        let busy = life.is_busier_than(worker.gateway.limits.quic_retry_above_percent);
        match admission.admit(&incoming, if busy { 1.0 } else { 0.0 }) {
            Admit::Refuse => {
                configs.count(Limit::Connections);
                incoming.refuse();
            }
            Admit::Retry => {
                configs.count(Limit::QuicRetry);
                let _ = incoming.retry(); // it may: the admission asked
            }
            Admit::Accept(permit) => match life.place(incoming.remote_address().ip()) {
                Ok(place) => {
                    let (worker, configs) = (Arc::clone(&worker), Arc::clone(&configs));
                    let (incoming, places) = (Box::new(incoming), (place, permit));
                    life.spawn(connection(incoming, worker, configs, life.clone(), places));
                }
                Err(why) => {
                    configs.count(match why {
                        NoPlace::Full => Limit::Connections,
                        NoPlace::Address => Limit::ConnectionsPerAddress,
                    });
                    incoming.refuse();
                }
            },
        }
    }
    // No new connections; those that are open go on.
    endpoint.set_server_config(None);
}

async fn connection(
    incoming: Box<Incoming>,
    worker: Arc<Worker>,
    configs: Arc<ListenerConfigs>,
    life: Lifecycle,
    _places: (Place, Permit),
) {
    let peer = incoming.remote_address();
    let handshake = async { incoming.accept()?.await };
    // Each stage on the heap of its own, or this future stays as large as the largest of them.
    let shaken = timeout(worker.gateway.limits.handshake_timeout, handshake);
    let connection = match Box::pin(shaken).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            configs.handshake_failed(None);
            let error: &dyn std::error::Error = &error;
            return tracing::debug!(%peer, error, "no QUIC handshake");
        }
        Err(_) => {
            configs.count(Limit::Handshake);
            return tracing::debug!(%peer, "the QUIC handshake took too long");
        }
    };
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    let sni =
        data.and_then(|data| data.server_name).map(|name| Arc::from(name.to_ascii_lowercase()));
    let client = ClientInfo { peer, protocol: Protocol::H3, tls: true, sni };
    let _open = configs.open(Protocol::H3);
    Box::pin(serve::h3(connection, client, worker, &configs, &life)).await;
}
