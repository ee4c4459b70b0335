//! The edge's settings.

use std::{net::SocketAddr, path::PathBuf};

pool_config::settings! {
    /// What the edge needs to start.
    pub struct EdgeConfig in "edge" {
        /// Where plain HTTP/1.1 is served; empty for nowhere.
        http_listen: Option<SocketAddr> = "127.0.0.1:8080",
        /// Where HTTP/1.1 and HTTP/2 are served over TLS; empty for nowhere.
        https_listen: Option<SocketAddr> = "127.0.0.1:8443",
        /// Where HTTP/3 is served; empty for nowhere.
        quic_listen: Option<SocketAddr> = "127.0.0.1:8443",
        /// Where health and metrics are served, without a key: keep it on loopback.
        admin_listen: SocketAddr = "127.0.0.1:7400",
        /// The domain under which the API, functions and capsules live.
        domain: String = "wrenn.localhost",
        /// The port in the URLs that the API hands out; empty for the one listened on.
        public_port: Option<u16> = "",
        /// The agent's RPC listener.
        agent_rpc: SocketAddr = "127.0.0.1:7401",
        /// The agent's proxy listener.
        agent_proxy: SocketAddr = "127.0.0.1:7402",
        /// The file with the agent's token; empty for the installation's own.
        agent_token_file: Option<PathBuf> = "",
        /// How long the agent may take to make its token at the first start, milliseconds.
        agent_token_wait_ms: u64 = "60000",
        /// The database; empty for the installation's own.
        database_file: Option<PathBuf> = "",
        /// A certificate chain in PEM; empty for one by the installation's own authority.
        tls_cert_file: Option<PathBuf> = "",
        /// The chain's key in PEM.
        tls_key_file: Option<PathBuf> = "",
        /// Client connections at a time.
        connections_max: usize = "8192",
        /// Longest wait for a capsule's answer to begin, its resume included, milliseconds.
        capsule_timeout_ms: u64 = "300000",
        /// How often the agent is brought in line with the records, milliseconds.
        reconcile_interval_ms: u64 = "3000",
        /// How long requests may go on after SIGTERM, milliseconds.
        drain_ms: u64 = "8000",
    }
}
