//! How is the QUIC endpoint of one worker configured?

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TokioRuntime,
    TransportConfig, ValidationTokenConfig, VarInt,
};

use crate::cid::{CidGenerator, Owner};
use crate::shared::Shared;
use crate::steered::SteeredSocket;

/// Limits of one connection, and of what waits to become one. Sizes in bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct TransportLimits {
    /// Requests a peer may have open at once on one connection.
    pub max_bidi_streams: u32,
    /// Unidirectional streams a peer may open: HTTP/3 has three of its own (RFC 9114 section 6.2).
    pub max_uni_streams: u32,
    /// A connection that is silent for this long is closed.
    pub idle: Duration,
    /// What a peer may send on one stream before we read.
    pub stream_window: u32,
    /// What a peer may send on one connection before we read.
    pub connection_window: u32,
    /// What we keep unacknowledged for one connection.
    pub send_window: u64,
    /// Largest UDP payload that is received, 1200 to 65527. Receive memory grows with it.
    pub max_udp_payload: u16,
    /// How long a Retry token is good for.
    pub retry_token_lifetime: Duration,
    /// How long a token for the next visit is good for.
    pub visit_token_lifetime: Duration,
    /// Connection attempts that wait to be accepted; more are refused.
    pub max_incoming: usize,
    /// What is kept of the packets of one waiting attempt.
    pub incoming_buffer: u64,
    /// What is kept of the packets of all waiting attempts.
    pub incoming_buffer_total: u64,
    /// Whether segmentation offload is used when sending.
    pub segmentation: bool,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            max_bidi_streams: 128,
            max_uni_streams: 8,
            idle: Duration::from_secs(30),
            stream_window: 1 << 20,
            connection_window: 4 << 20,
            send_window: 4 << 20,
            max_udp_payload: 1472,
            retry_token_lifetime: Duration::from_secs(15),
            visit_token_lifetime: Duration::from_secs(14 * 24 * 3600),
            max_incoming: 1024,
            incoming_buffer: 64 << 10,
            incoming_buffer_total: 8 << 20,
            segmentation: true,
        }
    }
}

impl TransportLimits {
    /// quinn's transport settings of these limits: no datagrams (RFC 9221), path MTU discovery on.
    ///
    /// # Errors
    ///
    /// If `idle` is longer than QUIC can say (2^62 ms).
    pub fn transport(&self) -> io::Result<TransportConfig> {
        let idle = IdleTimeout::try_from(self.idle).map_err(io::Error::other)?;
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(self.max_bidi_streams.into())
            .max_concurrent_uni_streams(self.max_uni_streams.into())
            .max_idle_timeout(Some(idle))
            .stream_receive_window(self.stream_window.into())
            .receive_window(VarInt::from_u32(self.connection_window))
            .send_window(self.send_window)
            .datagram_receive_buffer_size(None)
            .datagram_send_buffer_size(0)
            .mtu_discovery_config(Some(MtuDiscoveryConfig::default()))
            .enable_segmentation_offload(self.segmentation);
        Ok(transport)
    }
}

/// The endpoint of one worker and the socket under it.
#[derive(Debug, Clone)]
pub struct WorkerEndpoint {
    /// quinn's endpoint. Its driver runs on the runtime it was made on.
    pub endpoint: Endpoint,
    /// The socket: starts and stops reading.
    pub socket: Arc<SteeredSocket>,
}

impl WorkerEndpoint {
    /// An endpoint for `worker` on `socket`; nothing is received before
    /// [`SteeredSocket::start_reading`] is called on its socket.
    ///
    /// Keys for resets, tokens and connection ids come from `shared`, so every worker, generation and edge with the same
    /// installation secret understands them. Tokens for the next visit are remembered in a bloom filter of this
    /// process: one can be used again once per process, which only saves its bearer a round trip.
    ///
    /// # Errors
    ///
    /// Limits out of range, no such worker, or a socket the runtime does not take.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime: the worker's own.
    pub fn new(
        worker: u8,
        socket: UdpSocket,
        shared: &Arc<Shared>,
        tls: Arc<QuicServerConfig>,
        limits: &TransportLimits,
    ) -> io::Result<Self> {
        let config = endpoint_config(worker, shared, limits)?;
        let server = server_config(shared, tls, limits)?;
        let socket = SteeredSocket::new(socket, worker, Arc::clone(shared), limits.segmentation)?;
        let endpoint = Endpoint::new_with_abstract_socket(
            config,
            Some(server),
            Arc::clone(&socket) as Arc<dyn quinn::AsyncUdpSocket>,
            Arc::new(TokioRuntime),
        )?;
        Ok(Self { endpoint, socket })
    }
}

fn endpoint_config(
    worker: u8,
    shared: &Shared,
    limits: &TransportLimits,
) -> io::Result<EndpointConfig> {
    let reset_key = Arc::clone(&shared.secrets.reset);
    let mut config = EndpointConfig::new(reset_key);
    let owner = Owner { generation: shared.generation(), worker };
    let generator = CidGenerator::new(shared.secrets.cid.clone(), owner);
    config.cid_generator(move || Box::new(generator.clone()));
    config.max_udp_payload_size(limits.max_udp_payload).map_err(io::Error::other)?;
    Ok(config)
}

/// The server settings of all workers; also for [`Endpoint::set_server_config`] when certificates change.
///
/// # Errors
///
/// Limits out of range.
pub fn server_config(
    shared: &Shared,
    tls: Arc<QuicServerConfig>,
    limits: &TransportLimits,
) -> io::Result<ServerConfig> {
    let token_key = Arc::clone(&shared.secrets.token);
    let mut server = ServerConfig::new(tls, token_key);
    let mut visits = ValidationTokenConfig::default();
    visits.lifetime(limits.visit_token_lifetime).log(Arc::clone(&shared.token_log) as _).sent(2);
    server
        .transport_config(Arc::new(limits.transport()?))
        .validation_token_config(visits)
        .retry_token_lifetime(limits.retry_token_lifetime)
        .max_incoming(limits.max_incoming)
        .incoming_buffer_size(limits.incoming_buffer)
        .incoming_buffer_size_total(limits.incoming_buffer_total)
        .migration(true);
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_out_of_range_are_an_error() {
        let limits = TransportLimits { idle: Duration::MAX, ..TransportLimits::default() };
        assert!(limits.transport().is_err());
        let secrets = crate::QuicSecrets::derive(&[1; 32]).unwrap();
        let shared = Shared::new(secrets, 0, 1);
        let small = TransportLimits { max_udp_payload: 100, ..TransportLimits::default() };
        assert!(endpoint_config(0, &shared, &small).is_err());
        assert!(endpoint_config(0, &shared, &TransportLimits::default()).is_ok());
    }
}
